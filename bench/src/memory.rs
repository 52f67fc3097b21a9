//! What a worker holds at most, and what mirrors cost that have nothing to do. I/O.

use std::time::{Duration, Instant};

use crate::backlog::{Backlog, Writer};
use crate::bed::Bed;
use crate::meter::Meter;
use crate::report::{Rounds, Section};
use crate::snapshot::{fill, snapshot};
use crate::stream::resume;
use crate::tables::Kind;
use crate::{Scope, say};

const ABOUT: &str = "## Memory and idle mirrors\n\n\
    The worker's peak (`VmHWM`) while it copies rows with documents of 2 KB, while it streams one large transaction, and with mirrors that have \
    nothing to do; of those also its CPU, in percent of a core. Default settings.";

/// How long idle mirrors are watched, and left alone before.
const WATCHED: Duration = Duration::from_secs(30);
const SETTLING: Duration = Duration::from_secs(10);
/// Idle mirrors.
const MIRRORS: [usize; 2] = [1, 20];

/// Measures.
///
/// # Errors
/// If something does not work.
pub async fn measure(scope: &Scope) -> anyhow::Result<Section> {
    let mut bed = Bed::start(scope, 1).await?;
    let (mut idle, mut made) = (Vec::new(), 0);
    for count in MIRRORS.map(|count| scope.or_small(count, count.min(2))) {
        for number in made..count {
            let table = format!("idle{number}");
            bed.source.batch_execute(&Kind::Reference.create(&table)).await?;
            bed.api.create(&table, std::slice::from_ref(&table)).await?;
            bed.api.wait_until_streaming(&table).await?;
        }
        made = count;
        let mut rounds = Rounds::default();
        tokio::time::sleep(scope.or_small(SETTLING, Duration::ZERO)).await;
        for _ in 0..scope.rounds {
            let meter = Meter::begin(&bed.stack)?;
            let began = Instant::now();
            tokio::time::sleep(scope.or_small(WATCHED, Duration::from_secs(1))).await;
            let parts = meter.end()?;
            let percent = 100.0 * parts.worker.cpu / began.elapsed().as_secs_f64();
            say(&format!("{count} idle mirrors: {percent:.2} % of a core"));
            rounds.add(vec![("worker peak MiB", parts.worker.peak_mib), ("worker CPU %", percent)]);
        }
        idle.push(rounds.line(format!("{count} idle mirrors")));
    }
    for number in 0..made {
        bed.api.delete(&format!("idle{number}")).await?;
    }
    let mut lines = idle;
    lines.extend([documents(&mut bed, scope).await?, transaction(&mut bed, scope).await?]);
    bed.stop().await;
    Ok(Section { name: "memory", about: ABOUT, rounds: scope.rounds, lines })
}

async fn documents(bed: &mut Bed, scope: &Scope) -> anyhow::Result<crate::report::Line> {
    let rows = Kind::Json.rows(scope.rows);
    fill(bed, Kind::Json, rows).await?;
    let mut rounds = Rounds::default();
    for _ in 0..scope.rounds {
        let taken = snapshot(bed, Kind::Json, rows).await?;
        rounds.add(vec![("worker peak MiB", taken.parts.worker.peak_mib)]);
    }
    Ok(rounds.line(format!("snapshot of {rows} rows of 2 KB")))
}

async fn transaction(bed: &mut Bed, scope: &Scope) -> anyhow::Result<crate::report::Line> {
    let mirror = "single";
    let mut writer = Writer::prepare(bed, Backlog::Single, scope.changes, scope.rounds).await?;
    bed.api.create(mirror, &[mirror.to_owned()]).await?;
    bed.api.wait_until_streaming(mirror).await?;
    let mut rounds = Rounds::default();
    for _ in 0..scope.rounds {
        bed.api.pause(mirror).await?;
        writer.write(bed).await?;
        let taken = resume(bed, mirror, &writer, "").await?;
        rounds.add(vec![("worker peak MiB", taken.parts.worker.peak_mib)]);
    }
    Ok(rounds.line(format!("stream of one transaction of {} rows", writer.changes)))
}
