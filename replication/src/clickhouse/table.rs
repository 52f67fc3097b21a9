//! The life of a destination table. I/O.

use std::collections::{BTreeMap, BTreeSet};

use millrace_terms::{Code, Error, Result};

use super::ddl::Placement;
use super::{Clickhouse, ddl};
use crate::table::TablePlan;

/// Deletes are over, on all replicas, when the statement returns: the floor that is recorded next
/// must hold.
const PURGE_SETTINGS: &[(&str, &str)] = &[("lightweight_deletes_sync", "2"), ("mutations_sync", "2")];

/// Nobody waits for the repetition of a delete.
const PURGE_LATER_SETTINGS: &[(&str, &str)] = &[("lightweight_deletes_sync", "0"), ("mutations_sync", "0")];

/// Positions of a log stay below 2^62: at a GiB a second that is 136 years.
const VERSION_LIMIT: u128 = 1 << 126;

/// What is there under the name of a destination table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// Nothing.
    Missing,
    /// A table that takes the plan's rows.
    Ready,
    /// Something else: the message says what.
    Differs(Error),
}

impl Clickhouse {
    /// Makes the database if it does not exist.
    ///
    /// # Errors
    /// By the server's code.
    pub async fn create_database(&self, cluster: &str) -> Result<()> {
        self.execute(&ddl::create_database(self.placement(cluster))).await
    }

    /// Makes the destination table, or finds that the one that is there takes the plan's rows.
    ///
    /// # Errors
    /// `DESTINATION_TABLE_EXISTS` if something else is there; else by the server's code.
    pub async fn create_table(&self, plan: &TablePlan, cluster: &str) -> Result<()> {
        self.execute(&ddl::create_table(self.placement(cluster), plan)).await?;
        match self.table_state(plan).await? {
            TableState::Ready => Ok(()),
            TableState::Differs(error) => Err(error),
            TableState::Missing => {
                let message = format!("table {} vanished after it was made", plan.destination);
                Err(Error::new(Code::DestinationTableChanged, message).with("table", &plan.destination))
            }
        }
    }

    /// Compares what is there with the plan: engine, columns and their types, sorting key. Further
    /// columns are the user's, if they have defaults, or those of another source table.
    ///
    /// # Errors
    /// By the server's code.
    pub async fn table_state(&self, plan: &TablePlan) -> Result<TableState> {
        let (database, table) = (ddl::quote_text(self.database()), ddl::quote_text(&plan.destination));
        let found: Vec<String> = self
            .query(&format!(
                "select engine from system.tables where database = {database} and name = {table}"
            ))
            .await?;
        let Some(found) = found.first() else { return Ok(TableState::Missing) };
        let rows: Vec<(String, String, u8, String)> = self
            .query(&format!(
                "select name, type, is_in_sorting_key, default_kind from system.columns \
                 where database = {database} and table = {table}"
            ))
            .await?;
        Ok(match difference(plan, found, rows) {
            None => TableState::Ready,
            Some(what) => TableState::Differs(
                Error::new(
                    Code::DestinationTableExists,
                    format!("table {} of database {} {what}", plan.destination, self.database()),
                )
                .with("table", plan.source.to_string())
                .with("destination", &plan.destination),
            ),
        })
    }

    /// Whether a destination table, which is there, holds rows of the plan's source table.
    ///
    /// # Errors
    /// By the server's code.
    pub async fn holds_rows(&self, plan: &TablePlan) -> Result<bool> {
        let rows: u64 = self.query_one(&ddl::holds_rows(self.database(), plan)).await?;
        Ok(rows > 0)
    }

    /// Looks whether the server understands the PARTITION BY of a plan.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with what the server says, if it does not.
    pub async fn check_partition_by(&self, plan: &TablePlan) -> Result<()> {
        if plan.partition_by.is_empty() {
            return Ok(());
        }
        self.execute(&ddl::try_partition_by(plan)).await.map_err(|error| {
            let is_away = error.code().is_retryable() && error.code() != Code::DestinationError;
            if is_away || matches!(error.code(), Code::DestinationAuth | Code::DestinationPermission) {
                return error;
            }
            let text = format!("partition_by of {}: {}", plan.source, error.message());
            Error::new(Code::InvalidArgument, text)
                .with("table", plan.source.to_string())
                .with("field", "partition_by")
        })
    }

    /// Removes a destination table if it exists.
    ///
    /// # Errors
    /// By the server's code.
    pub async fn drop_table(&self, table: &str, cluster: &str) -> Result<()> {
        self.execute(&ddl::drop_table(self.placement(cluster), table)).await
    }

    /// Deletes the plan's rows of versions below `below`, and waits until they are gone: the effect of a
    /// TRUNCATE, and the sweep at the end of a copy. A table that does not exist has no such rows.
    ///
    /// # Errors
    /// By the server's code.
    pub async fn purge(&self, plan: &TablePlan, below: u128, cluster: &str) -> Result<()> {
        self.execute_with(&ddl::purge(self.placement(cluster), plan, below), PURGE_SETTINGS).await
    }

    /// Runs a lightweight DELETE and waits until the rows are gone.
    ///
    /// # Errors
    /// By the server's code.
    pub(crate) async fn delete(&self, sql: &str) -> Result<()> {
        self.execute_with(sql, PURGE_SETTINGS).await
    }

    /// As [`Clickhouse::purge`], but without waiting: the server carries it out, and keeps it over a
    /// restart. What is in the table when this returns and is below `below` will be gone.
    ///
    /// # Errors
    /// By the server's code; not for a table that does not exist, which has no such rows.
    pub async fn purge_later(&self, plan: &TablePlan, below: u128, cluster: &str) -> Result<()> {
        let sql = ddl::purge(self.placement(cluster), plan, below);
        match self.execute_with(&sql, PURGE_LATER_SETTINGS).await {
            Err(error) if error.code() == Code::DestinationTableChanged => Ok(()),
            done => done,
        }
    }

    /// The highest version of a row of the destination table; 0 where there is none. Versions that no log
    /// of ours can reach are somebody else's.
    ///
    /// # Errors
    /// By the server's code.
    pub async fn highest_version(&self, plan: &TablePlan) -> Result<u128> {
        let (table, version) = (self.qualified(&plan.destination), ddl::quote_ident(&plan.own.version));
        let is_there = format!(
            "select count() from system.columns where database = {} and table = {} and name = {}",
            ddl::quote_text(self.database()),
            ddl::quote_text(&plan.destination),
            ddl::quote_text(&plan.own.version)
        );
        if self.query_one::<u64>(&is_there).await? == 0 {
            return Ok(0);
        }
        // Of every row there is, also those that FINAL hides.
        let highest = format!(
            "select toString(max({version})) from {table} where {version} < toUInt128('{VERSION_LIMIT}') settings final = 0"
        );
        let highest: String = self.query_one(&highest).await?;
        highest.parse().map_err(|_| Error::new(Code::Internal, "a version is no number"))
    }

    pub(super) fn placement<'a>(&'a self, cluster: &'a str) -> Placement<'a> {
        Placement { database: self.database(), cluster }
    }
}

/// The first difference between the plan and what is there.
fn difference(plan: &TablePlan, found: &str, rows: Vec<(String, String, u8, String)>) -> Option<String> {
    let wanted = ddl::engine(plan);
    // Replicated and shared engines are the user's choice, where they replace what is asked for.
    if !["", "Replicated", "Shared"].iter().any(|prefix| found == format!("{prefix}{wanted}")) {
        return Some(format!("has the engine {found}, not {wanted}"));
    }
    let mut there: BTreeMap<_, _> =
        rows.into_iter().map(|(name, kind, sorted, default)| (name, (kind, sorted == 1, default))).collect();
    let sorting: BTreeSet<&str> = plan.sorting_key().collect();
    let columns =
        plan.columns.iter().map(|column| (column.destination.as_str(), column.clickhouse_type.as_str()));
    for (name, kind) in columns.chain(plan.own_columns()) {
        let sorted = sorting.contains(name);
        let Some((found, found_sorted, _)) = there.remove(name) else {
            return Some(format!("has no column {name:?}"));
        };
        if without_spaces(&found) != without_spaces(kind) {
            return Some(format!("has {found} for column {name:?}, not {kind}"));
        }
        if found_sorted != sorted {
            let is = if found_sorted { "has" } else { "does not have" };
            return Some(format!("{is} column {name:?} in its ORDER BY"));
        }
    }
    // In a shared table they are columns that another source table has.
    let may_lack = plan.own.source.is_some();
    let (name, (_, sorted, default)) =
        there.into_iter().find(|(_, (_, sorted, default))| *sorted || default.is_empty() && !may_lack)?;
    let why = if sorted && !default.is_empty() { "in its ORDER BY" } else { "without a default" };
    Some(format!("has a further column {name:?} {why}"))
}

fn without_spaces(kind: &str) -> String {
    kind.split_whitespace().collect()
}
