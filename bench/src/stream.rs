//! How fast a backlog of changes is drained: from the call of ResumeMirror to the last row visible. I/O.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::bed::{Bed, DATABASE, LIMIT};
use crate::limits::{Taken, recvlogical};
use crate::meter::Meter;
use crate::report::{Line, Rounds, Section, throughput};
use crate::tables::Kind;
use crate::{Scope, say};

const ABOUT: &str = "## Stream\n\n\
    A mirror is paused, changes of the reference table are written, and the mirror goes on: from the call of ResumeMirror to the last \
    change visible, with default settings. In turn with it `pg_recvlogical` reads the same changes from a copy of the slot to nothing; \
    *of pg_recvlogical* compares rates of the same round. `inserts`: transactions of 100 rows. `single`: one transaction. \
    `mix`: transactions of 50 updates, 10 deletes and 40 inserts over 20 tables.";

/// Pause between two looks at the destination: a hundredth of what is measured.
const LOOK: Duration = Duration::from_millis(50);
/// Changes of a transaction.
const TRANSACTION: u64 = 100;
/// Tables of the mix.
const TABLES: u64 = 20;
/// The slot's copy that `pg_recvlogical` reads.
const COPY: &str = "bench_copy";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Many small transactions that insert.
    Inserts,
    /// One transaction that inserts.
    Single,
    /// Updates, deletes and inserts.
    Mix,
}

impl Backlog {
    const ALL: [Backlog; 3] = [Backlog::Inserts, Backlog::Single, Backlog::Mix];

    fn name(self) -> &'static str {
        match self {
            Backlog::Inserts => "inserts",
            Backlog::Single => "single",
            Backlog::Mix => "mix",
        }
    }

    fn tables(self) -> Vec<String> {
        match self {
            Backlog::Inserts | Backlog::Single => vec![self.name().to_owned()],
            Backlog::Mix => (0..TABLES).map(|n| format!("mix{n}")).collect(),
        }
    }
}

/// Measures.
///
/// # Errors
/// If something does not work, or rows differ.
pub async fn measure(scope: &Scope) -> anyhow::Result<Section> {
    let mut bed = Bed::start(scope, 1).await?;
    let mut lines = Vec::new();
    for backlog in Backlog::ALL.into_iter().filter(|backlog| scope.wants(backlog.name())) {
        lines.extend(drain(&mut bed, scope, backlog).await?);
    }
    bed.stop().await;
    Ok(Section { name: "stream", about: ABOUT, rounds: scope.rounds, lines })
}

async fn drain(bed: &mut Bed, scope: &Scope, backlog: Backlog) -> anyhow::Result<Vec<Line>> {
    let mirror = backlog.name();
    let mut writer = Writer::prepare(bed, backlog, scope.changes, scope.rounds + 1).await?;
    bed.api.create(mirror, &backlog.tables()).await?;
    bed.api.wait_until_streaming(mirror).await?;
    let (mut ours, mut limit) = (Rounds::default(), Rounds::default());
    // The first round is not counted: it fills caches.
    for round in 0..=scope.rounds {
        bed.api.pause(mirror).await?;
        writer.write(bed).await?;
        let end = bed.value("pg_current_wal_insert_lsn()").await?;
        copy_slot(bed, mirror).await?;
        let publication = publication(bed, mirror).await?;
        // By turns: who comes second finds the log in nearer caches.
        let (reader, taken) = if round % 2 == 0 {
            let reader = recvlogical(bed, COPY, &publication, &end).await?;
            (reader, resume(bed, mirror, &writer).await?)
        } else {
            let taken = resume(bed, mirror, &writer).await?;
            (recvlogical(bed, COPY, &publication, &end).await?, taken)
        };
        drop_copy(bed).await?;
        writer.compare(bed).await?;
        say(&format!(
            "{mirror} round {round}: pg_recvlogical {:.2} s (walsender {:.2}), ours {:.2} s (walsender {:.2}, worker {:.2}, ClickHouse {:.2})",
            reader.seconds,
            reader.parts.source.cpu,
            taken.seconds,
            taken.parts.source.cpu,
            taken.parts.worker.cpu,
            taken.parts.clickhouse.cpu,
        ));
        if round == 0 && scope.rounds > 0 && !scope.small {
            continue;
        }
        let mut figures = throughput(writer.changes, taken.seconds, &taken.parts);
        figures.insert(1, ("of pg_recvlogical", reader.seconds / taken.seconds));
        ours.add(figures);
        limit.add(throughput(writer.changes, reader.seconds, &reader.parts));
    }
    bed.api.delete(mirror).await?;
    let what = |text: &str| format!("{mirror}, {} changes: {text}", writer.changes);
    Ok(vec![ours.line(what("Millrace")), limit.line(what("pg_recvlogical"))])
}

/// Has the mirror go on until everything is visible.
///
/// # Errors
/// If it does not get there.
pub async fn resume(bed: &mut Bed, mirror: &str, writer: &Writer) -> anyhow::Result<Taken> {
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    bed.api.resume(mirror).await?;
    let seen = writer.wait(bed).await?;
    let seconds = seen.into_std().saturating_duration_since(began).as_secs_f64();
    Ok(Taken { seconds, parts: meter.end()? })
}

/// The slot of a mirror; the name has that of the mirror in it.
async fn slot(bed: &Bed, mirror: &str) -> anyhow::Result<String> {
    bed.value(&format!(
        "select slot_name from pg_replication_slots where slot_name like 'millrace_%\\_{mirror}'"
    ))
    .await
}

async fn publication(bed: &Bed, mirror: &str) -> anyhow::Result<String> {
    bed.value(&format!("select pubname from pg_publication where pubname like 'millrace_%\\_{mirror}'")).await
}

async fn copy_slot(bed: &Bed, mirror: &str) -> anyhow::Result<()> {
    let slot = slot(bed, mirror).await?;
    let deadline = Instant::now() + LIMIT;
    while bed.value(&format!("select active from pg_replication_slots where slot_name = '{slot}'")).await?
        != "false"
    {
        ensure!(Instant::now() < deadline, "the slot of {mirror} is still read");
        tokio::time::sleep(LOOK).await;
    }
    bed.value(&format!("pg_copy_logical_replication_slot('{slot}', '{COPY}')")).await.map(drop)
}

async fn drop_copy(bed: &Bed) -> anyhow::Result<()> {
    bed.value(&format!("pg_drop_replication_slot('{COPY}')")).await.map(drop)
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
}

impl Writer {
    /// Makes the tables for so many rounds.
    ///
    /// # Errors
    /// The source's.
    pub async fn prepare(bed: &Bed, backlog: Backlog, changes: u64, rounds: u32) -> anyhow::Result<Self> {
        // Each table of the mix gets as many whole transactions.
        let unit = TRANSACTION * TABLES;
        let changes = if backlog == Backlog::Mix { changes.div_ceil(unit) * unit } else { changes };
        // Deletes take the first third, updates the others.
        let preloaded = match backlog {
            Backlog::Mix => 3 * u64::from(rounds) * (changes / unit) * 10,
            Backlog::Inserts | Backlog::Single => 0,
        };
        for table in backlog.tables() {
            bed.source.batch_execute(&Kind::Reference.create(&table)).await?;
            bed.source.batch_execute(&Kind::Reference.insert(&table, 1, preloaded)).await?;
        }
        let sql = format!(
            "create or replace procedure write_inserts(first int8, last int8) language plpgsql as $$ begin \
               for k in first..last loop insert into inserts select {row} from \
                 generate_series(k * {TRANSACTION} + 1, (k + 1) * {TRANSACTION}) i; commit; end loop; end $$; \
             create or replace procedure write_mix(first int8, last int8, preloaded int8) language plpgsql as $$ \
             declare t text; n int8; u int8 := preloaded / 3; at int8; begin \
               for k in first..last loop \
                 t := 'mix' || k % {TABLES}; n := k / {TABLES}; at := u + n * 50 % (preloaded - u); \
                 execute format('update %I set a = a + 1, b = md5(b), d = now() where id > $1 and id <= $1 + 50', t) using at; \
                 execute format('delete from %I where id > $1 and id <= $1 + 10', t) using n * 10; \
                 execute format($q$insert into %I select {mixed_row} from generate_series($1 + 1, $1 + 40) i$q$, t) \
                   using preloaded + n * 40; \
                 commit; end loop; end $$;",
            row = Kind::Reference.row(),
            // `format` reads a percent sign as the beginning of a place.
            mixed_row = Kind::Reference.row().replace('%', "%%"),
        );
        bed.source.batch_execute(&sql).await?;
        Ok(Self { backlog, changes, preloaded, written: 0 })
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
            Backlog::Inserts => {
                self.written += self.changes / TRANSACTION;
                session.batch_execute(&format!("call write_inserts({first}, {})", self.written - 1)).await?;
            }
            Backlog::Mix => {
                self.written += self.changes / TRANSACTION;
                let sql = format!("call write_mix({first}, {}, {})", self.written - 1, self.preloaded);
                session.batch_execute(&sql).await?;
            }
        }
        // Without synchronous commit the end may still be unwritten.
        bed.source.batch_execute("checkpoint").await?;
        Ok(())
    }

    /// Waits until all that was written is visible, and returns when it was.
    async fn wait(&self, bed: &Bed) -> anyhow::Result<tokio::time::Instant> {
        match self.backlog {
            Backlog::Inserts | Backlog::Single => {
                let rows =
                    if self.backlog == Backlog::Single { self.written } else { self.written * TRANSACTION };
                let sql = format!(
                    "select sum(rows) from system.parts where database = '{DATABASE}' and table = '{}' and active",
                    self.backlog.name()
                );
                bed.clickhouse.wait(&sql, LOOK, |count| count.parse::<u64>().is_ok_and(|n| n >= rows)).await
            }
            Backlog::Mix => self.wait_for_keys(bed).await,
        }
    }

    /// The last row of each table, and then everything: a table's last rows may overtake others.
    async fn wait_for_keys(&self, bed: &Bed) -> anyhow::Result<tokio::time::Instant> {
        let last = self.preloaded + self.written / TABLES * 40;
        let look = |table: String| format!("select id from {DATABASE}.{table} where id = {last}");
        let looks: Vec<_> = self.backlog.tables().into_iter().map(look).collect();
        let sql = format!("select count() from ({})", looks.join(" union all "));
        let wanted = TABLES.to_string();
        bed.clickhouse.wait(&sql, LOOK, |count| count == wanted).await?;
        let (there, here) = self.sums(bed).await?;
        bed.clickhouse.wait(&there, LOOK, |sums| sums == here).await
    }

    /// The query of what identifies the tables' rows, and what it has to answer.
    async fn sums(&self, bed: &Bed) -> anyhow::Result<(String, String)> {
        let tables = self.backlog.tables();
        let of = |table: &String, schema: &str, end: &str| {
            format!("select count(*) as n, sum(id) as i, sum(a) as a from {schema}{table}{end}")
        };
        let there: Vec<_> = tables.iter().map(|table| of(table, &format!("{DATABASE}."), " final")).collect();
        let here: Vec<_> = tables.iter().map(|table| of(table, "", "")).collect();
        let sum = "select concat(sum(n), ' ', sum(i), ' ', sum(a)) from";
        let here = bed.value(&format!("{sum} ({}) t", here.join(" union all "))).await?;
        Ok((format!("{sum} ({})", there.join(" union all ")), here))
    }

    /// Compares both sides.
    async fn compare(&self, bed: &Bed) -> anyhow::Result<()> {
        let (there, here) = self.sums(bed).await?;
        let there = bed.clickhouse.text(&there).await.context("comparing")?;
        ensure!(there == here, "{}: {there} on the destination, {here} on the source", self.backlog.name());
        Ok(())
    }
}
