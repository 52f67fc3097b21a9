//! One range: compared, mended if that is asked for, and written down.

use std::collections::HashSet;

use millrace_catalog::verifications::Counts;
use millrace_catalog::verified_ranges::VerifiedRange;
use millrace_replication::clickhouse::InsertId;
use millrace_replication::postgres::{Session, epoch};
use millrace_replication::verify::mend::Mending;
use millrace_replication::verify::{self, Answer, Difference, Kind, Question, Sides};
use millrace_replication::version::Version;
use millrace_terms::{Code, Error, Lsn, Result};
use tokio::sync::watch;

use super::ranges::{Job, Known};
use crate::apart;

/// Rows of one range that are told by key: who has more has another trouble than single rows.
const TOLD_MAX: usize = 1_000;

/// A range, and what is known of its table.
pub(super) struct Range<'a> {
    pub(super) range: &'a VerifiedRange,
    pub(super) table: &'a Known,
    pub(super) base: u64,
    pub(super) position: watch::Receiver<Lsn>,
}

/// Compares a range and writes down what was found; gives the rows read.
pub(super) async fn compare(job: &Job<'_>, asked: &Range<'_>, session: &Session) -> Result<u64> {
    let bounds: verify::Range = serde_json::from_value(asked.range.bounds.clone())
        .map_err(|error| Error::new(Code::Internal, format!("the bounds of a range: {error}")))?;
    let Known { plan, order, with_heirs } = asked.table;
    let sides = Sides { session, sink: &job.destination.clickhouse, plan, order, with_heirs: *with_heirs };
    let question = Question {
        range: &bounds,
        base: asked.base,
        position: asked.position.clone(),
        with_values: job.verification.spec.with_values,
    };
    let catalog = &job.environment.catalog;
    if plan.append_only {
        let bags = sides.compare_bags(&question, asked.range.rows_estimated).await?;
        let counts = Counts { missing: bags.missing, extra: bags.extra, ..counts(&bags.answer, 0) };
        catalog.finish_range(asked.range, &counts, &[]).await?;
        return Ok(counts.source_rows);
    }
    let answer = compared(job, asked, &sides, &question).await?;
    let mut left: HashSet<u128> = answer.differences.iter().map(Difference::key).collect();
    if job.verification.spec.repair && !answer.differences.is_empty() {
        mend(job, asked, &sides, &bounds, &answer.differences).await?;
        let again = compared(job, asked, &sides, &question).await?;
        left = again.differences.iter().map(Difference::key).collect();
    }
    let mended = |difference: &Difference| !left.contains(&difference.key());
    let told = answer.differences.iter().take(TOLD_MAX).map(|difference| {
        let told = serde_json::to_value(&difference.told);
        let failed = |error| Error::new(Code::Internal, format!("a row that differs: {error}"));
        Ok((told.map_err(failed)?, mended(difference)))
    });
    let told = told.collect::<Result<Vec<_>>>()?;
    let count = answer.differences.iter().filter(|difference| mended(difference)).count();
    catalog.finish_range(asked.range, &counts(&answer, count), &told).await?;
    Ok(answer.source_rows)
}

/// Compares, and again if rows were deleted physically meanwhile: a key without a version may be one that had
/// one in between.
async fn compared(
    job: &Job<'_>,
    asked: &Range<'_>,
    sides: &Sides<'_>,
    question: &Question<'_>,
) -> Result<Answer> {
    let catalog = &job.environment.catalog;
    loop {
        let before = catalog.get_table(asked.range.table_id).await?.floor;
        let answer = sides.compare(question).await?;
        let is_certain =
            answer.differences.is_empty() || catalog.get_table(asked.range.table_id).await?.floor == before;
        if is_certain {
            return Ok(answer);
        }
    }
}

fn counts(answer: &Answer, mended: usize) -> Counts {
    let of = |kind| answer.differences.iter().filter(|row| row.told.kind == kind).count() as u64;
    Counts {
        source_rows: answer.source_rows,
        destination_rows: answer.destination_rows,
        missing: of(Kind::Missing),
        extra: of(Kind::Extra),
        different: of(Kind::Different),
        mended: mended as u64,
        unsettled: answer.unsettled,
        held_by: answer.held_by.clone().filter(|_| answer.unsettled > 0),
        ..Counts::default()
    }
}

/// Mends rows by an epoch of their own (see `millrace_replication::verify::mend`).
async fn mend(
    job: &Job<'_>,
    asked: &Range<'_>,
    sides: &Sides<'_>,
    bounds: &verify::Range,
    differences: &[Difference],
) -> Result<()> {
    let (catalog, table_id) = (&job.environment.catalog, asked.range.table_id);
    let epoch = epoch::take(sides.session, &job.cancel, |_| ()).await?.0;
    // Before the first row of that position is written; and the table must still stream.
    let base = catalog.announce_mending(table_id, epoch).await?;
    let version = Version::epoch(base, epoch);
    let id = InsertId {
        mirror: job.mirror.name().to_owned(),
        attempt: format!("verify.{table_id}"),
        table: sides.plan.destination.clone(),
        position: asked.range.no.to_string(),
    };
    let cluster = job.destination.cluster.as_str();
    let mending = Mending { range: bounds, differences, version, id: &id, cluster };
    let mending = async {
        sides.mend(&mending, || !job.cancel.is_cancelled()).await?;
        // A TRUNCATE meanwhile took what was written before its delete, but not what was written after.
        let floor = catalog.get_table(table_id).await?.floor;
        if floor > version.0 {
            sides.sink.purge(sides.plan, floor, cluster).await?;
        }
        Ok(())
    };
    apart::purge(job.environment, table_id, mending).await
}
