//! Backlogs of changes: how they are written, and when they are visible. I/O.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::bed::{Bed, DATABASE};
use crate::say;
use crate::tables::Kind;

/// Pause between two looks at the destination: a hundredth of what is measured.
const LOOK: Duration = Duration::from_millis(50);
/// Changes of a transaction.
const TRANSACTION: u64 = 100;
/// Tables of the mix, and of inserts that are spread.
const MIXED: u64 = 20;
const SPREAD: u64 = 4;

/// What identifies the rows of several tables: to be followed by a query of theirs.
const SUMS: &str = "select concat(sum(n), ' ', sum(i), ' ', sum(a)) from";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Many small transactions that insert.
    Inserts,
    /// One transaction that inserts.
    Single,
    /// Updates, deletes and inserts.
    Mix,
    /// As the small transactions, by turns into several tables.
    Spread,
}

impl Backlog {
    /// Its name in the report, and that of its first or only table.
    pub fn name(self) -> &'static str {
        match self {
            Backlog::Inserts => "inserts",
            Backlog::Single => "single",
            Backlog::Mix => "mix",
            Backlog::Spread => "spread",
        }
    }

    /// Its tables on the source.
    pub fn tables(self) -> Vec<String> {
        let numbered = |count| (0..count).map(|n| format!("{}{n}", self.name())).collect();
        match self {
            Backlog::Inserts | Backlog::Single => vec![self.name().to_owned()],
            Backlog::Mix => numbered(MIXED),
            Backlog::Spread => numbered(SPREAD),
        }
    }
}

/// Writes backlogs, and knows when they are visible.
#[derive(Debug)]
pub struct Writer {
    backlog: Backlog,
    /// Changes of a round.
    pub changes: u64,
    /// Rows that were there before.
    preloaded: u64,
    /// Transactions of the mix, or rows, so far.
    written: u64,
    /// What identifies the source's rows, once they are written.
    sums: String,
}

impl Writer {
    /// Makes the tables for so many rounds.
    ///
    /// # Errors
    /// The source's.
    pub async fn prepare(bed: &Bed, backlog: Backlog, changes: u64, rounds: u32) -> anyhow::Result<Self> {
        // Each table of the mix gets as many whole transactions.
        let unit = TRANSACTION * MIXED;
        let changes = if backlog == Backlog::Mix { changes.div_ceil(unit) * unit } else { changes };
        // Deletes take the first third, updates the others.
        let preloaded = match backlog {
            Backlog::Mix => 3 * u64::from(rounds) * (changes / unit) * 10,
            Backlog::Inserts | Backlog::Single | Backlog::Spread => 0,
        };
        for table in backlog.tables() {
            bed.source.batch_execute(&Kind::Reference.create(&table)).await?;
            bed.source.batch_execute(&Kind::Reference.insert(&table, 1, preloaded)).await?;
        }
        let sql = format!(
            "create or replace procedure write_inserts(first int8, last int8) language plpgsql as $$ begin \
               for k in first..last loop insert into inserts select {row} from \
                 generate_series(k * {TRANSACTION} + 1, (k + 1) * {TRANSACTION}) i; commit; end loop; end $$; \
             create or replace procedure write_spread(first int8, last int8) language plpgsql as $$ begin \
               for k in first..last loop \
                 execute format($q$insert into %I select {row_in_format} from \
                   generate_series($1 * {TRANSACTION} + 1, ($1 + 1) * {TRANSACTION}) i$q$, 'spread' || k % {SPREAD}) using k; \
                 commit; end loop; end $$; \
             create or replace procedure write_mix(first int8, last int8, preloaded int8) language plpgsql as $$ \
             declare t text; n int8; u int8 := preloaded / 3; at int8; begin \
               for k in first..last loop \
                 t := 'mix' || k % {MIXED}; n := k / {MIXED}; at := u + n * 50 % (preloaded - u); \
                 execute format('update %I set a = a + 1, b = md5(b), d = now() where id > $1 and id <= $1 + 50', t) using at; \
                 execute format('delete from %I where id > $1 and id <= $1 + 10', t) using n * 10; \
                 execute format($q$insert into %I select {row_in_format} from generate_series($1 + 1, $1 + 40) i$q$, t) \
                   using preloaded + n * 40; \
                 commit; end loop; end $$;",
            row = Kind::Reference.row(),
            // `format` reads a percent sign as the beginning of a place.
            row_in_format = Kind::Reference.row().replace('%', "%%"),
        );
        bed.source.batch_execute(&sql).await?;
        Ok(Self { backlog, changes, preloaded, written: 0, sums: String::new() })
    }

    /// Writes one round.
    ///
    /// # Errors
    /// The source's.
    pub async fn write(&mut self, bed: &Bed) -> anyhow::Result<()> {
        say(&format!("writing {} changes: {}", self.changes, self.backlog.name()));
        let session = bed.session().await?;
        session.batch_execute("set synchronous_commit = off").await?;
        let first = self.written;
        match self.backlog {
            Backlog::Single => {
                self.written += self.changes;
                let sql = Kind::Reference.insert("single", first + 1, self.written);
                session.batch_execute(&sql).await?;
            }
            Backlog::Inserts | Backlog::Spread => {
                self.written += self.changes / TRANSACTION;
                let (kind, last) = (self.backlog.name(), self.written - 1);
                session.batch_execute(&format!("call write_{kind}({first}, {last})")).await?;
            }
            Backlog::Mix => {
                self.written += self.changes / TRANSACTION;
                let sql = format!("call write_mix({first}, {}, {})", self.written - 1, self.preloaded);
                session.batch_execute(&sql).await?;
            }
        }
        // Without synchronous commit the end may still be unwritten.
        bed.source.batch_execute("checkpoint").await?;
        // Not when they are to be compared: who waits for that is measured.
        let here: Vec<_> = self.backlog.tables().iter().map(|table| Self::sums_of(table, "")).collect();
        self.sums = bed.value(&format!("{SUMS} ({}) t", here.join(" union all "))).await?;
        Ok(())
    }

    /// Waits until all that was written is visible in tables whose names begin so, and returns when it was.
    ///
    /// # Errors
    /// If it does not get there.
    pub async fn wait(&self, bed: &Bed, prefix: &str) -> anyhow::Result<tokio::time::Instant> {
        let rows = match self.backlog {
            Backlog::Mix => return self.wait_for_keys(bed, prefix).await,
            Backlog::Single => self.written,
            Backlog::Inserts | Backlog::Spread => self.written * TRANSACTION,
        };
        let names: Vec<_> = self.backlog.tables().iter().map(|table| format!("'{prefix}{table}'")).collect();
        let sql = format!(
            "select sum(rows) from system.parts where database = '{DATABASE}' and table in ({}) and active",
            names.join(", ")
        );
        bed.clickhouse.wait(&sql, LOOK, |count| count.parse::<u64>().is_ok_and(|n| n >= rows)).await
    }

    /// The last row of each table, and then everything: a table's last rows may overtake others.
    async fn wait_for_keys(&self, bed: &Bed, prefix: &str) -> anyhow::Result<tokio::time::Instant> {
        let last = self.preloaded + self.written / MIXED * 40;
        let look = |table: String| format!("select id from {DATABASE}.{prefix}{table} where id = {last}");
        let looks: Vec<_> = self.backlog.tables().into_iter().map(look).collect();
        let sql = format!("select count() from ({})", looks.join(" union all "));
        let wanted = MIXED.to_string();
        bed.clickhouse.wait(&sql, LOOK, |count| count == wanted).await?;
        bed.clickhouse.wait(&self.sums_there(prefix), LOOK, |sums| sums == self.sums).await
    }

    /// Asks ClickHouse for what identifies the rows of tables whose names begin so.
    fn sums_there(&self, prefix: &str) -> String {
        let of = |table: String| Self::sums_of(&format!("{DATABASE}.{prefix}{table}"), " final");
        let there: Vec<_> = self.backlog.tables().into_iter().map(of).collect();
        format!("{SUMS} ({})", there.join(" union all "))
    }

    fn sums_of(table: &str, end: &str) -> String {
        format!("select count(*) as n, sum(id) as i, sum(a) as a from {table}{end}")
    }

    /// Compares both sides.
    ///
    /// # Errors
    /// If they differ.
    pub async fn compare(&self, bed: &Bed, prefix: &str) -> anyhow::Result<()> {
        let there = bed.clickhouse.text(&self.sums_there(prefix)).await.context("comparing")?;
        let (name, here) = (self.backlog.name(), &self.sums);
        ensure!(there == *here, "{name}: {there} on the destination, {here} on the source");
        Ok(())
    }
}
