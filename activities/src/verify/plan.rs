//! Which tables are compared, and by which ranges.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::state::{MirrorState, TableState};
use millrace_catalog::tables::Table;
use millrace_catalog::verifications::{Verification, VerifiedTable};
use millrace_replication::postgres::describe::{ShapeColumn, TableShape};
use millrace_replication::table::TablePlan;
use millrace_replication::verify::{incomparable, split};
use millrace_terms::{Code, Error, Result};
use millrace_workflows::payload::{VerifyPlan, VerifyRef};
use serde_json::Value;

use super::id_of;
use crate::environment::Environment;
use crate::plan_partitions;

/// Cuts every table that is asked for and can be compared.
pub(super) async fn plan(environment: &Environment, verify: &VerifyRef) -> Result<VerifyPlan> {
    let (catalog, id) = (&environment.catalog, id_of(verify)?);
    let mirror = catalog.get_mirror(&verify.mirror).await?;
    let verification = catalog.get_verification(&verify.mirror, id).await?;
    let asked = &verification.spec.tables;
    for table in &mirror.tables {
        let is_asked = match asked.as_slice() {
            [] => table.state != TableState::Dropped,
            named => named.contains(&table.id),
        };
        if is_asked && !verification.tables.iter().any(|known| known.table_id == table.id) {
            plan_table(environment, &mirror, &verification, table).await?;
        }
    }
    let verification = catalog.get_verification(&verify.mirror, id).await?;
    let skipped = verification.tables.iter().filter(|table| table.skipped.is_some()).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(VerifyPlan {
        tables: count(verification.tables.len() - skipped),
        skipped: count(skipped),
        ranges: verification.tables.iter().map(|table| table.counts.ranges).sum(),
    })
}

/// Why a table cannot be compared now, in words; none if it can.
pub(super) fn obstacle(mirror: &Mirror, table: &Table) -> Option<String> {
    match (mirror.state, table.state) {
        (_, state) if state != TableState::Streaming => {
            let why = table.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
            Some(format!("the table is {state}{why}"))
        }
        (MirrorState::Running | MirrorState::Snapshot | MirrorState::Degraded, _) => None,
        (state, _) => Some(format!("the mirror is {state}")),
    }
}

async fn plan_table(
    environment: &Environment,
    mirror: &Mirror,
    verification: &Verification,
    table: &Table,
) -> Result<()> {
    let mut stored = VerifiedTable {
        table_id: table.id,
        source: table.source.to_string(),
        destination: table.destination.clone(),
        ..VerifiedTable::default()
    };
    let cut = match obstacle(mirror, table) {
        Some(why) => Err(why),
        None => cut(environment, mirror, table).await?,
    };
    let mut ranges = Vec::new();
    match cut {
        Err(why) => stored.skipped = Some(why),
        Ok((plan, cut)) => {
            stored.incomparable = incomparable(&plan);
            stored.append_only = plan.append_only;
            stored.cut = cut.ranges.len() as u64;
            stored.rows_estimated = cut.rows;
            for (no, range) in (0..).zip(&cut.ranges) {
                let bounds = serde_json::to_value(range)
                    .map_err(|error| Error::new(Code::Internal, format!("the bounds of a range: {error}")))?;
                ranges.push((no, bounds));
            }
            ranges = sampled(ranges, verification);
        }
    }
    environment.catalog.plan_verified_table(verification.id, &stored, &ranges).await
}

/// Cuts a table; or says why it cannot be compared.
async fn cut(
    environment: &Environment,
    mirror: &Mirror,
    table: &Table,
) -> Result<std::result::Result<(TablePlan, split::Cut), String>> {
    let session = environment.dial_log(mirror, table.stream).await?;
    let plan = environment.plan(table.id).await?;
    let shape = match plan_partitions::shape(&session, &plan).await {
        Err(error) if !error.is_retryable() => return Ok(Err(error.message().to_owned())),
        shape => shape?,
    };
    if let Some(why) = unfollowed(&plan, &shape) {
        return Ok(Err(why));
    }
    let cut = split::cut(&session, &plan, &shape).await?;
    Ok(Ok((plan, cut)))
}

/// Why the destination cannot be like the source yet: the table changed there, and the stream, which is told
/// of it by the next change of a row, does not know.
pub(super) fn unfollowed(plan: &TablePlan, shape: &TableShape) -> Option<String> {
    let missing = plan.columns.iter().find(|column| {
        let is_it = |now: &ShapeColumn| {
            (now.plan.attnum, now.plan.type_oid) == (column.attnum, column.type_oid)
                && now.plan.name == column.name
        };
        !shape.columns.iter().any(is_it)
    });
    let is_known = |attnum: i16| {
        plan.columns.iter().any(|column| column.attnum == attnum)
            || plan.seen.omitted.iter().any(|(omitted, _)| *omitted == attnum)
    };
    let added = shape.columns.iter().find(|now| !is_known(now.plan.attnum));
    let column = missing.map(|column| &column.name).or(added.map(|column| &column.plan.name));
    match column {
        Some(name) => Some(format!(
            "column {name} was changed on the source, and the stream has not met a row of its new form yet"
        )),
        None if !plan.seen.pending.is_empty() => {
            Some("the destination table's columns are being changed".to_owned())
        }
        None => None,
    }
}

/// The part of the ranges that is asked for, the same whenever it is asked; one at least.
fn sampled(mut ranges: Vec<(i32, Value)>, verification: &Verification) -> Vec<(i32, Value)> {
    let sample = verification.spec.sample;
    if sample >= 1.0 || sample <= 0.0 {
        return ranges;
    }
    let place = |no: i32| {
        let mut hasher = DefaultHasher::new();
        (verification.id, no).hash(&mut hasher);
        hasher.finish()
    };
    ranges.sort_by_key(|(no, _)| place(*no));
    let count = (ranges.len() as f64 * sample).ceil() as usize;
    ranges.truncate(count.max(1));
    ranges
}
