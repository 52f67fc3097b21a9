//! How fast tables are copied: from the return of CreateMirror to the last row visible. I/O.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bed::{Bed, DATABASE};
use crate::limits::{Taken, by_clickhouse, copy_to_null};
use crate::meter::Meter;
use crate::report::{Rounds, Section, throughput};
use crate::tables::Kind;
use crate::{Scope, say};

const ABOUT: &str = "## Snapshot\n\n\
    A table is copied, from the return of CreateMirror to the last row visible, with default settings; in turn with it, \
    two `psql` read half of it each by `COPY ... (FORMAT binary)` to nothing, and ClickHouse reads it itself \
    (`INSERT ... SELECT FROM postgresql(...)`) into a table like ours. *Of COPY* and *of postgresql()* compare rates of the same round. \
    Written bytes are those that ClickHouse and the worker handed to the disk for each byte of the table.";

/// Pause between two looks at the destination: the parts' own counts, which cost nearly nothing.
const LOOK: Duration = Duration::from_millis(20);
/// Ranges that the limit is read in: the cores.
const RANGES: u64 = 2;
const MIRROR: &str = "copied";

/// Measures.
///
/// # Errors
/// If something does not work, or rows are missing.
pub async fn measure(scope: &Scope) -> anyhow::Result<Section> {
    let mut bed = Bed::start(scope, 1).await?;
    let mut lines = Vec::new();
    for kind in scope
        .or_small(Kind::ALL.as_slice(), &[Kind::Json])
        .iter()
        .copied()
        .filter(|kind| scope.wants(kind.name()))
    {
        let rows = kind.rows(scope.rows);
        fill(&bed, kind, rows).await?;
        let (mut ours, mut copy, mut theirs) = (Rounds::default(), Rounds::default(), Rounds::default());
        // One that is not counted: everything is read once, and ClickHouse's own insert has its model.
        snapshot(&mut bed, kind, rows).await?;
        for round in 1..=scope.rounds {
            let by_copy = copy_to_null(&bed, kind.name(), RANGES).await?;
            let by_clickhouse = by_clickhouse(&bed, kind.name(), &kept(kind)).await?;
            let taken = snapshot(&mut bed, kind, rows).await?;
            say(&format!(
                "{} round {round}: COPY {:.2} s, postgresql() {:.2} s, ours {:.2} s with {:.2} s of the worker's CPU",
                kind.name(),
                by_copy.seconds,
                by_clickhouse.seconds,
                taken.seconds,
                taken.parts.worker.cpu
            ));
            let mut figures = throughput(rows, taken.seconds, &taken.parts);
            figures.insert(1, ("of COPY", by_copy.seconds / taken.seconds));
            figures.insert(2, ("of postgresql()", by_clickhouse.seconds / taken.seconds));
            let bytes: f64 = bed.value(&format!("pg_table_size('{}')", kind.name())).await?.parse()?;
            let written = taken.parts.worker.written + taken.parts.clickhouse.written;
            figures.push(("bytes written per byte", written / bytes));
            ours.add(figures);
            copy.add(throughput(rows, by_copy.seconds, &by_copy.parts));
            theirs.add(throughput(rows, by_clickhouse.seconds, &by_clickhouse.parts));
        }
        let what = |text: &str| format!("{}, {} rows: {text}", kind.name(), rows);
        lines.push(ours.line(what("Millrace")));
        lines.push(copy.line(what("COPY to nothing, 2 sessions")));
        lines.push(theirs.line(what("`postgresql()`")));
        bed.source.batch_execute(&format!("drop table {}", kind.name())).await?;
    }
    bed.stop().await;
    Ok(Section { name: "snapshot", about: ABOUT, rounds: scope.rounds, lines })
}

/// Makes the table.
///
/// # Errors
/// The source's.
pub async fn fill(bed: &Bed, kind: Kind, rows: u64) -> anyhow::Result<()> {
    let table = kind.name();
    say(&format!("writing {rows} rows of the table {table}"));
    bed.source.batch_execute(&kind.create(table)).await?;
    bed.source.batch_execute(&kind.insert(table, 1, rows)).await?;
    // Not in one: VACUUM takes no transaction.
    for sql in [format!("vacuum (freeze, analyze) {table}"), "checkpoint".to_owned()] {
        bed.source.batch_execute(&sql).await?;
    }
    Ok(())
}

/// The empty table that `postgresql()` is to write one like.
fn kept(kind: Kind) -> String {
    format!("{}_like", kind.name())
}

/// Copies the table once, and compares it.
///
/// # Errors
/// If it does not work, or rows are missing.
pub async fn snapshot(bed: &mut Bed, kind: Kind, rows: u64) -> anyhow::Result<Taken> {
    let table = kind.name();
    let meter = Meter::begin(&bed.stack)?;
    bed.api.create(MIRROR, &[table.to_owned()]).await?;
    let created = Instant::now();
    let parts = format!(
        "select sum(rows) from system.parts where database = '{DATABASE}' and table = '{table}' and active"
    );
    let seen =
        bed.clickhouse.wait(&parts, LOOK, |count| count.parse::<u64>().is_ok_and(|n| n >= rows)).await?;
    let seconds = seen.into_std().saturating_duration_since(created).as_secs_f64();
    let taken = Taken { seconds, parts: meter.end()? };
    bed.api.wait_until_streaming(MIRROR).await?;
    let checks = [("count()", "count(*)"), ("sum(id)", "sum(id)")];
    for (there, here) in checks {
        let there = bed.clickhouse.text(&format!("select {there} from {DATABASE}.{table} final")).await?;
        let here = bed.value(&format!("select {here} from {table}")).await?;
        ensure!(there == here, "{table}: {there} on the destination, {here} on the source");
    }
    let like = kept(kind);
    let copy = format!("create table if not exists {DATABASE}.{like} as {DATABASE}.{table}");
    bed.clickhouse.execute(&copy).await?;
    bed.api.delete(MIRROR).await?;
    Ok(taken)
}
