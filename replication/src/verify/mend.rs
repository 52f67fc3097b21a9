//! Mends rows that differ, while the table streams on. I/O.
//!
//! It is a copy of just these rows, and its argument is that of every copy (see `version`): a new epoch
//! `E` is taken when the rows are known to differ, and waited for; then the source is read, and what is
//! written bears `(base + E) << 64`.
//!
//! - A row that the source holds is written as it was read. Every change that the reading did not see is of
//!   a commit above `E`: the stream delivers it with a higher version.
//! - Of a key that the source does not hold a tombstone is written, at the same version. Who inserts the
//!   key later commits above `E`. A tombstone rather than a physical delete: it can be repeated and
//!   overtaken like any row, and brings nothing older back.
//! - A row whose version is above the epoch's would hide what is written, and every change to come until
//!   the log has reached it. The stream did not write it: all that it wrote before `E` was taken is of
//!   commits below. So it is deleted first, physically, by key and by exactly that version; no insert of
//!   ours that could still be under way bears it.
//!
//! A TRUNCATE meanwhile raises the table's floor and deletes below it; what was written here after that
//! delete is below the floor, too, and must go: the caller asks for the floor when the last row was
//! written, and repeats the delete. If a worker dies in between, so does housekeeping, when no insert of
//! it can be alive any more. A resync meanwhile has a higher epoch: it overwrites and sweeps.

use std::collections::HashSet;

use bytes::Bytes;
use millrace_terms::Result;

use super::compare::Kind;
use super::order::Range;
use super::range::Difference;
use super::read::{self, Digest, Sides};
use crate::block::Block;
use crate::clickhouse::InsertId;
use crate::clickhouse::ddl::{self, quote_ident, quote_text};
use crate::copy::Row;
use crate::table::audit;
use crate::version::Version;

/// Rows that one statement names.
const NAMED_MAX: usize = 1_000;
/// Rows and bytes of an insert.
const INSERT_ROWS: usize = 65_536;
const INSERT_BYTES: usize = 16 << 20;

/// How rows are mended.
#[derive(Debug)]
pub struct Mending<'a> {
    /// The range that they are in.
    pub range: &'a Range,
    /// The rows.
    pub differences: &'a [Difference],
    /// That of an epoch that was taken, and waited for, after they were found.
    pub version: Version,
    /// Whose inserts they are.
    pub id: &'a InsertId,
    /// Cluster of the statements that delete; empty for a single server.
    pub cluster: &'a str,
}

impl Sides<'_> {
    /// Mends rows. It may be repeated with the same version. `gate` says whether the caller may still
    /// write.
    ///
    /// # Errors
    /// `LEASE_LOST` if it may not, and those of both sides. The session must be closed then.
    pub async fn mend(&self, mending: &Mending<'_>, gate: impl Fn() -> bool) -> Result<()> {
        let version = mending.version.0;
        let ahead: Vec<&Difference> =
            mending.differences.iter().filter(|row| row.version >= version).collect();
        for some in ahead.chunks(NAMED_MAX) {
            let sql = self.delete_statement(mending, some);
            self.sink.delete(&sql).await?;
        }
        let found = self.copy_rows(mending, &gate).await?;
        let gone: Vec<&Difference> = mending
            .differences
            .iter()
            .filter(|row| row.told.kind != Kind::Missing && !found.contains(&row.key_digest))
            .collect();
        for some in gone.chunks(NAMED_MAX) {
            self.sink.execute(&self.tombstone_statement(mending, some)).await?;
        }
        Ok(())
    }

    /// Writes the rows that the source holds; gives their keys.
    async fn copy_rows(&self, mending: &Mending<'_>, gate: impl Fn() -> bool) -> Result<HashSet<Digest>> {
        let wanted: HashSet<Digest> = mending.differences.iter().map(|row| row.key_digest).collect();
        let binary: Vec<bool> =
            self.plan.columns.iter().map(|column| column.conversion.binary_known()).collect();
        let (mut found, mut full) = (HashSet::new(), Vec::new());
        let mut block = Block::new(self.plan.clone(), self.sink.time_range());
        let mut encode = |block: &mut Block| {
            let mut data = Vec::new();
            block.encode_native(crate::copy::now(), &mut data)?;
            block.clear();
            full.push(Bytes::from(data));
            Result::Ok(())
        };
        self.read_source(mending.range, &[], |row| {
            if wanted.contains(&row.key) && found.insert(row.key) {
                read::push_row(&mut block, &binary, Row::of_body(row.raw), mending.version.0)?;
                if block.rows() >= INSERT_ROWS || block.bytes() >= INSERT_BYTES {
                    encode(&mut block)?;
                }
            }
            Ok(())
        })
        .await?;
        if block.rows() > 0 {
            encode(&mut block)?;
        }
        for data in full {
            self.sink.insert(self.plan, data, mending.id, &gate).await?;
        }
        Ok(found)
    }

    fn delete_statement(&self, mending: &Mending<'_>, rows: &[&Difference]) -> String {
        let named: Vec<String> =
            rows.iter().map(|row| format!("({}, '{}')", quote_text(&row.handle), row.version)).collect();
        format!(
            "DELETE FROM {}{} WHERE {} AND ({}, toString({})) IN ({})",
            self.sink.qualified(&self.plan.destination),
            ddl::on_cluster(mending.cluster),
            read::condition(self.plan, self.order, mending.range),
            read::handle(self.plan),
            quote_ident(&self.plan.own.version),
            named.join(", ")
        )
    }

    /// The server makes the tombstones itself: keys need not travel.
    fn tombstone_statement(&self, mending: &Mending<'_>, rows: &[&Difference]) -> String {
        let own = &self.plan.own;
        let version = format!("toUInt128('{}')", mending.version.0);
        let mut columns: Vec<(String, String)> = self
            .plan
            .sorting_key()
            .map(|name| (quote_ident(name), quote_ident(name)))
            .chain([
                (quote_ident(&own.version), version.clone()),
                (quote_ident(&own.is_deleted), "1".to_owned()),
                (quote_ident(&own.synced_at), "now64(6)".to_owned()),
            ])
            .collect();
        if let Some(names) = &own.audit {
            columns.extend([
                (quote_ident(audit::OPERATION), "'delete'".to_owned()),
                (quote_ident(audit::TIMESTAMP), "now64(6)".to_owned()),
                (quote_ident(audit::SOURCE_DB), quote_text(&names.database)),
                (quote_ident(audit::SOURCE_TABLE), quote_text(&self.plan.source.to_string())),
            ]);
        }
        let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let named: Vec<String> = rows.iter().map(|row| quote_text(&row.handle)).collect();
        let table = self.sink.qualified(&self.plan.destination);
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {table} FINAL WHERE {} AND {} IN ({}) AND {} < {version}",
            names.join(", "),
            values.join(", "),
            read::condition(self.plan, self.order, mending.range),
            read::handle(self.plan),
            named.join(", "),
            quote_ident(&own.version),
        )
    }
}
