//! Copies by several workers. I/O.

use crate::bed::Bed;
use crate::report::{Line, Rounds, throughput};
use crate::snapshot::{fill, snapshot};
use crate::tables::Kind;
use crate::{Scope, say};

/// Rows at most: enough for several partitions for each worker.
const ROWS: u64 = 2_000_000;

/// Copies the reference table with the workers that are there.
///
/// # Errors
/// If it does not work, or rows are missing.
pub async fn measure(bed: &mut Bed, scope: &Scope, workers: usize) -> anyhow::Result<Line> {
    let kind = Kind::Reference;
    let rows = scope.rows.min(ROWS);
    fill(bed, kind, rows).await?;
    let mut rounds = Rounds::default();
    for round in scope.first_round()..=scope.rounds {
        let taken = snapshot(bed, kind, rows).await?;
        say(&format!("{workers} workers, round {round}: {:.2} s", taken.seconds));
        if round > 0 {
            let mut figures = vec![("seconds", taken.seconds)];
            figures.extend(throughput(rows, taken.seconds, &taken.parts));
            rounds.add(figures);
        }
    }
    bed.source.batch_execute(&format!("drop table {}", kind.name())).await?;
    Ok(rounds.line(format!("workers: {workers} copy {rows} rows")))
}
