//! How long it takes from a commit on the source until its rows are seen in ClickHouse. I/O.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, DATABASE};
use crate::meter::Meter;
use crate::report::{Figures, Rounds, Section};
use crate::seen::{Unseen, latencies};
use crate::tables::Kind;
use crate::{Scope, say};

const ABOUT: &str = "## Latency\n\n\
    Rows of the reference table are inserted at a steady rate, in transactions of the size shown, by one session with synchronous commit; \
    ClickHouse is asked for the highest id again and again. A row's latency ends with the answer that shows it, and begins when its COMMIT returned. \
    Default settings. CPU in cores, that of the questions included in ClickHouse's.";

const TABLE: &str = "latency";
const MIRROR: &str = "latency";
/// Rows a second, with the rows of a transaction.
const RATES: [(u64, u64); 3] = [(100, 1), (2_000, 10), (10_000, 50)];
/// How long is written before it counts, and while it does.
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(20);
/// Pause between two questions.
const LOOK: Duration = Duration::from_millis(4);

/// Measures.
///
/// # Errors
/// If something does not work.
pub async fn measure(scope: &Scope) -> anyhow::Result<Section> {
    let mut bed = Bed::start(scope, 1).await?;
    bed.source.batch_execute(&Kind::Reference.create(TABLE)).await?;
    bed.api.create(MIRROR, &[TABLE.to_owned()]).await?;
    bed.api.wait_until_streaming(MIRROR).await?;
    let mut next = 1;
    let rates = scope.or_small(RATES.as_slice(), &RATES[1..2]);
    let mut rounds: Vec<Rounds> = rates.iter().map(|_| Rounds::default()).collect();
    for _ in 0..scope.rounds {
        for ((rate, size), rounds) in rates.iter().copied().zip(&mut rounds) {
            let figures = at_rate(&bed, scope, rate, size, &mut next).await?;
            say(&format!("{rate} rows/s: {figures:.1?}"));
            rounds.add(figures);
        }
    }
    let what = |(rate, size): (u64, u64)| format!("{rate} rows/s in transactions of {size}");
    let lines = rates.iter().copied().zip(&rounds).map(|(rate, rounds)| rounds.line(what(rate))).collect();
    bed.stop().await;
    Ok(Section { name: "latency", about: ABOUT, rounds: scope.rounds, lines })
}

async fn at_rate(bed: &Bed, scope: &Scope, rate: u64, size: u64, next: &mut u64) -> anyhow::Result<Figures> {
    let unseen = Unseen::default();
    let end = CancellationToken::new();
    let writing = tokio::spawn(write(bed.session().await?, rate, size, *next, unseen.clone(), end.clone()));
    let warm_up = scope.or_small(WARM_UP, Duration::from_millis(200));
    let measured = scope.or_small(MEASURED, Duration::from_secs(1));
    let highest = format!("select max(id) from {DATABASE}.{TABLE}");
    drop(unseen.watch(bed, &highest, LOOK, warm_up).await?);
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    let seen = unseen.watch(bed, &highest, LOOK, measured).await?;
    let seconds = began.elapsed().as_secs_f64();
    let parts = meter.end()?;
    end.cancel();
    let before = *next;
    *next = writing.await??;
    let written = (*next - before) as f64 / (seconds + warm_up.as_secs_f64());
    let mut figures = latencies(seen);
    figures.extend([
        ("rows/s written", written),
        ("worker CPU", parts.worker.cpu / seconds),
        ("source CPU", parts.source.cpu / seconds),
        ("ClickHouse CPU", parts.clickhouse.cpu / seconds),
        ("worker peak MiB", parts.worker.peak_mib),
    ]);
    Ok(figures)
}

/// Writes until it is to end; returns the next id.
async fn write(
    session: tokio_postgres::Client,
    rate: u64,
    size: u64,
    first: u64,
    unseen: Unseen,
    end: CancellationToken,
) -> anyhow::Result<u64> {
    let sql = format!(
        "insert into {TABLE} select {} from generate_series($1::int8, $2::int8) i",
        Kind::Reference.row()
    );
    let insert = session.prepare(&sql).await?;
    let mut ticks = interval(Duration::from_secs_f64(size as f64 / rate as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut next = first;
    while !end.is_cancelled() {
        ticks.tick().await;
        let last = next + size - 1;
        session.execute(&insert, &[&next.cast_signed(), &last.cast_signed()]).await?;
        unseen.committed(last);
        next = last + 1;
    }
    Ok(next)
}
