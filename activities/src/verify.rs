//! Comparisons of a mirror's tables with their sources, and the mending of what differs.
//!
//! - `plan`: which tables are compared, and by which ranges.
//! - `ranges`: one that compares: ranges from the catalog's queue, until none is left.
//! - `one`: one range.
//!
//! Values of rows go from the data plane to the catalog, and nowhere else: what Temporal and the log see
//! are numbers and names.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

mod one;
mod plan;
mod ranges;

use std::sync::Arc;

use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::verifications::{Verification, VerificationState};
use millrace_terms::{Code, Error, EventCode, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{
    Comparer, ComparerReport, Outcome, VerifyEnd, VerifyPlan, VerifyRef, VerifyReport,
};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use uuid::Uuid;

use crate::environment::Environment;
use crate::{alive, failure};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::PlanVerification)]
    pub(crate) async fn plan_verification(
        self: Arc<Self>,
        ctx: ActivityContext,
        verify: VerifyRef,
    ) -> Result<VerifyPlan, ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(plan::plan(&self.0, &verify))).await;
        self.0.outcome(&ctx, &verify.mirror, None, done).await
    }

    #[activity(definition = contract::EndVerification)]
    pub(crate) async fn end_verification(
        self: Arc<Self>,
        _ctx: ActivityContext,
        ended: VerifyEnd,
    ) -> Result<VerifyReport, ActivityError> {
        end(&self.0, &ended).await.map_err(failure::of)
    }
}

pub(crate) struct Compare(pub(crate) Arc<Environment>);

#[activities]
impl Compare {
    #[activity(definition = contract::CompareRanges)]
    pub(crate) async fn compare_ranges(
        self: Arc<Self>,
        ctx: ActivityContext,
        comparer: Comparer,
    ) -> Result<ComparerReport, ActivityError> {
        let info = ctx.info();
        let run = info.workflow_run_id.as_deref().unwrap_or_default();
        let owner = format!("{}/{run}/{}/{}", self.0.worker, info.activity_id, info.attempt);
        let verify = &comparer.verify;
        let work =
            alive::draining(&ctx, |cancel| Box::pin(ranges::compare_all(&self.0, verify, owner, cancel)));
        let report = work.await;
        if ctx.is_cancelled() {
            return Err(ActivityError::cancelled());
        }
        self.0.outcome(&ctx, &verify.mirror, None, report).await
    }
}

/// The id, as the catalog has it.
fn id_of(verify: &VerifyRef) -> Result<Uuid> {
    let id = Uuid::try_parse(&verify.id);
    id.map_err(|_| Error::new(Code::Internal, format!("{} is no id of a verification", verify.id)))
}

async fn end(environment: &Environment, ended: &VerifyEnd) -> Result<VerifyReport> {
    let (catalog, id) = (&environment.catalog, id_of(&ended.verify)?);
    let (state, error) = match &ended.outcome {
        Outcome::Done => (VerificationState::Completed, None),
        Outcome::Stopped => (VerificationState::Cancelled, None),
        Outcome::Failed(error) => (VerificationState::Failed, Some(error)),
    };
    catalog.end_verification(id, state, error).await?;
    let verification = catalog.get_verification(&ended.verify.mirror, id).await?;
    let report = report(&verification);
    let event = match error {
        Some(error) => {
            let error = error.clone().context(format_args!("verification {id}"));
            NewEvent::of_error(&ended.verify.mirror, Severity::Warning, &error)
        }
        None => {
            NewEvent::info(&ended.verify.mirror, EventCode::VerificationEnded, &words(id, state, &report))
        }
    };
    catalog.add_event(&event).await?;
    Ok(report)
}

fn report(verification: &Verification) -> VerifyReport {
    let mut report = VerifyReport::default();
    for table in &verification.tables {
        report.rows += table.counts.source_rows;
        report.differences += table.counts.differences();
        report.mended += table.counts.mended;
        report.unsettled += table.counts.unsettled;
        report.skipped += u32::from(table.skipped.is_some());
    }
    report
}

fn words(id: Uuid, state: VerificationState, report: &VerifyReport) -> String {
    let VerifyReport { rows, differences, mended, unsettled, skipped } = report;
    let how = if state == VerificationState::Completed { "is over" } else { "was ended" };
    format!(
        "verification {id} {how}: {rows} rows compared, {differences} differ, {mended} of them mended, {unsettled} unsettled, {skipped} tables skipped"
    )
}
