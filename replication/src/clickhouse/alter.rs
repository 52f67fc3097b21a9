//! Changes of a destination table whose source changed. I/O in [`Clickhouse::alter`].
//!
//! A plan is stored with what is to be done for it before that is done. A worker may die in between or
//! behind it, and the next one does all of it again: each is done only where the table's columns, read
//! before, say that it was not.

use std::collections::BTreeMap;

use millrace_terms::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use super::Clickhouse;
use super::ddl::{self, quote_ident};
use crate::table::TablePlan;

/// One change of a destination table's columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alter {
    /// A column goes.
    Drop {
        /// Its name.
        name: String,
        /// The column that is to take the name, if it exists already: when it has been renamed, the name
        /// is its own.
        pending: Option<String>,
    },
    /// A column stays that gets no values any more.
    Keep {
        /// Its name.
        name: String,
        /// Its type.
        kind: String,
    },
    /// A column is called otherwise.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// A column has another type.
    Modify {
        /// Its name.
        name: String,
        /// Its new type.
        kind: String,
    },
    /// A column comes.
    Add {
        /// Its name.
        name: String,
        /// Its type.
        kind: String,
        /// What rows have in it that do not hold it, as an expression.
        default: Option<String>,
        /// The column behind which it stands.
        after: Option<String>,
    },
}

impl Alter {
    /// What is to be done of it, where the table has these columns: names and types.
    fn command(&self, columns: &BTreeMap<String, String>) -> Option<String> {
        let exists = |name: &String| columns.contains_key(name);
        match self {
            Alter::Drop { name, pending } => {
                let is_due = exists(name) && pending.as_ref().is_none_or(exists);
                is_due.then(|| format!("DROP COLUMN {}", quote_ident(name)))
            }
            Alter::Keep { name, kind } => exists(name).then(|| {
                let kind = ddl::quote_text(kind);
                format!("MODIFY COLUMN {} DEFAULT defaultValueOfTypeName({kind})", quote_ident(name))
            }),
            Alter::Rename { from, to } => (exists(from) && !exists(to))
                .then(|| format!("RENAME COLUMN {} TO {}", quote_ident(from), quote_ident(to))),
            Alter::Modify { name, kind } => {
                let is = columns.get(name)?;
                let same = is.split_whitespace().eq(kind.split_whitespace());
                (!same).then(|| format!("MODIFY COLUMN {} {kind}", quote_ident(name)))
            }
            Alter::Add { name, kind, default, after } => (!exists(name)).then(|| {
                let default = default.as_ref().map(|value| format!(" DEFAULT {value}")).unwrap_or_default();
                let after = after.as_ref().map(|column| format!(" AFTER {}", quote_ident(column)));
                format!("ADD COLUMN {} {kind}{default}{}", quote_ident(name), after.unwrap_or_default())
            }),
        }
    }
}

impl Clickhouse {
    /// Makes the changes in order, each where it is not made yet. `is_ours` is asked before each: an
    /// attempt that was replaced must not change what another has changed since.
    ///
    /// # Errors
    /// `LEASE_LOST`; `DESTINATION_TABLE_CHANGED` if the table is gone; by the server's code.
    pub async fn alter(
        &self,
        plan: &TablePlan,
        alters: &[Alter],
        cluster: &str,
        is_ours: impl Fn() -> bool,
    ) -> Result<()> {
        for alter in alters {
            let Some(command) = alter.command(&self.columns(&plan.destination).await?) else { continue };
            if !is_ours() {
                return Err(Error::new(Code::LeaseLost, "the lease ended before a table was altered"));
            }
            let sql = ddl::alter_table(self.placement(cluster), &plan.destination, &command);
            self.execute(&sql).await?;
        }
        Ok(())
    }

    /// Names and types of a table's columns.
    async fn columns(&self, table: &str) -> Result<BTreeMap<String, String>> {
        let (database, name) = (ddl::quote_text(self.database()), ddl::quote_text(table));
        let sql =
            format!("select name, type from system.columns where database = {database} and table = {name}");
        let columns: BTreeMap<String, String> =
            self.query::<(String, String)>(&sql).await?.into_iter().collect();
        if columns.is_empty() {
            let message = format!("table {table} is gone");
            return Err(Error::new(Code::DestinationTableChanged, message).with("destination", table));
        }
        Ok(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> String {
        name.to_owned()
    }

    /// What is done of the changes by a worker that finds these columns.
    fn done(alters: &[Alter], columns: &[(&str, &str)]) -> Vec<String> {
        let columns = columns.iter().map(|(name, kind)| (text(name), text(kind))).collect();
        alters.iter().filter_map(|alter| alter.command(&columns)).collect()
    }

    #[test]
    fn what_was_done_before_a_crash_is_not_done_again() {
        let add = Alter::Add {
            name: text("n"),
            kind: text("Int32"),
            default: Some(text("7")),
            after: Some(text("it's `odd`")),
        };
        let rename = Alter::Rename { from: text("a"), to: text("b") };
        let modify = Alter::Modify { name: text("m"), kind: text("Decimal(12, 2)") };
        let alters = [rename, modify, add];
        assert_eq!(
            done(&alters, &[("a", "String"), ("m", "Decimal(10, 2)")]),
            [
                "RENAME COLUMN `a` TO `b`",
                "MODIFY COLUMN `m` Decimal(12, 2)",
                "ADD COLUMN `n` Int32 DEFAULT 7 AFTER `it's \\`odd\\``",
            ]
        );
        let after = [("b", "String"), ("m", "Decimal(12,  2)"), ("n", "Int32")];
        assert_eq!(done(&alters, &after), Vec::<String>::new());
    }

    #[test]
    fn a_column_that_took_the_name_of_a_dropped_one_is_not_dropped() {
        let alters = [
            Alter::Drop { name: text("b"), pending: Some(text("a")) },
            Alter::Rename { from: text("a"), to: text("b") },
        ];
        assert_eq!(done(&alters, &[("a", "String"), ("b", "String")])[0], "DROP COLUMN `b`");
        assert_eq!(done(&alters, &[("a", "String")]), ["RENAME COLUMN `a` TO `b`"]);
        assert!(done(&alters, &[("b", "String")]).is_empty());
    }
}
