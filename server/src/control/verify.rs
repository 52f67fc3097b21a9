//! Comparing tables with their sources: begun, looked at, ended.

use std::sync::Arc;

use jiff::Timestamp;
use millrace_catalog::state::MirrorState;
use millrace_catalog::verifications::{NewVerification, Verification, VerificationSpec, VerificationState};
use millrace_proto::v1;
use millrace_terms::{Code, Error, Result};
use uuid::Uuid;

use super::Control;
use super::edits::source_of;
use crate::convert::verification as convert;
use crate::fault::{Answer, Violations, invalid};
use crate::text::{Page, check_request_id, name_of};

/// Tables that one request names at most.
const TABLES_MAX: usize = 10_000;

impl Control {
    /// Begins to compare tables with their sources.
    pub(crate) async fn verify_mirror(
        self: Arc<Self>,
        request: v1::VerifyMirrorRequest,
    ) -> Answer<v1::Verification> {
        let name = name_of(&request.name)?;
        let spec = self.spec(name, &request).await?;
        let new = NewVerification {
            id: Uuid::new_v4(),
            mirror: name.to_owned(),
            spec,
            request_id: request.request_id.clone(),
        };
        let stored = self.catalog.create_verification(&new).await?;
        self.start_verification(&stored).await?;
        Ok(convert::verification(&stored, Timestamp::now()))
    }

    /// What a request asks for.
    async fn spec(&self, name: &str, request: &v1::VerifyMirrorRequest) -> Answer<VerificationSpec> {
        let mut violations = Violations::default();
        check_request_id(&request.request_id, &mut violations);
        let is_part = (0.0..=1.0).contains(&request.sample);
        violations.require(is_part, "sample", "must be above 0 and up to 1; 0 stands for 1");
        violations.require(request.rows_per_second >= 0, "rows_per_second", "must not be negative");
        let is_bounded = request.tables.len() <= TABLES_MAX;
        violations.require(is_bounded, "tables", format!("are {TABLES_MAX} at most"));
        violations.into_result()?;
        let mirror = self.catalog.get_mirror(name).await?;
        require_comparable(mirror.state, name)?;
        let mut tables = Vec::new();
        for table in &request.tables {
            tables.push(self.catalog.find_table(name, &source_of(table)?).await?.id);
        }
        Ok(VerificationSpec {
            tables,
            sample: if request.sample == 0.0 { 1.0 } else { request.sample },
            repair: request.repair,
            with_values: request.with_values,
            rows_per_second: u64::try_from(request.rows_per_second).unwrap_or(0),
        })
    }

    /// A comparison: how far it is, and a page of what was found.
    pub(crate) async fn get_verification(
        self: Arc<Self>,
        request: v1::GetVerificationRequest,
    ) -> Answer<v1::Verification> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let after =
            convert::place(&page.after).ok_or_else(|| invalid("page_token", "is not a token of ours"))?;
        let stored = self.verification(&request.name, &request.id).await?;
        if stored.state == VerificationState::Running && stored.tables.is_empty() {
            // A server died before it had started the work.
            self.start_verification(&stored).await?;
        }
        let found = self.catalog.list_differences(stored.id, after, page.size).await?;
        let is_full = found.len() == usize::try_from(page.size).unwrap_or(usize::MAX);
        let last = found.last().map(|difference| difference.place).filter(|_| is_full);
        let differences = found.into_iter().map(convert::difference).collect::<Result<_>>()?;
        Ok(v1::Verification {
            differences,
            next_page_token: last.map(convert::token).unwrap_or_default(),
            ..convert::verification(&stored, Timestamp::now())
        })
    }

    /// Ends a comparison.
    pub(crate) async fn cancel_verification(
        self: Arc<Self>,
        request: v1::CancelVerificationRequest,
    ) -> Answer<v1::Verification> {
        let stored = self.verification(&request.name, &request.id).await?;
        self.orchestra.cancel_verify(&stored.mirror, &stored.id.to_string()).await?;
        // Whoever compares finds it over, also where no workflow tells.
        self.catalog.end_verification(stored.id, VerificationState::Cancelled, None).await?;
        let stored = self.catalog.get_verification(&stored.mirror, stored.id).await?;
        Ok(convert::verification(&stored, Timestamp::now()))
    }

    async fn verification(&self, name: &str, id: &str) -> Answer<Verification> {
        let name = name_of(name)?;
        let id = Uuid::try_parse(id).map_err(|_| invalid("id", "must be a UUID"))?;
        Ok(self.catalog.get_verification(name, id).await?)
    }

    async fn start_verification(&self, stored: &Verification) -> Result<()> {
        match stored.state {
            VerificationState::Running => {
                self.orchestra.start_verify(&stored.mirror, &stored.id.to_string()).await
            }
            _ => Ok(()),
        }
    }
}

/// Refuses what would compare nothing.
fn require_comparable(state: MirrorState, name: &str) -> Result<()> {
    if matches!(state, MirrorState::Running | MirrorState::Snapshot | MirrorState::Degraded) {
        return Ok(());
    }
    let message = format!(
        "mirror {name} is {state}: its tables are compared while it is RUNNING, SNAPSHOT or DEGRADED"
    );
    Err(Error::new(Code::MirrorState, message).with("mirror", name).with("state", state.to_string()))
}
