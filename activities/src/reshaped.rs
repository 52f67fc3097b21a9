//! A copy whose table is another than was planned: the table is planned and copied anew.
//!
//! The mirror's workflow does that, as for every resync (see `resync`), and it ends this copy. So whoever
//! found it waits until the copy is over: a failure would put the table into ERROR.

use std::time::Duration;

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::spec::OnRewrite;
use millrace_terms::{Code, Error};
use millrace_workflows::ids;
use millrace_workflows::payload::TableCopy;
use temporalio_sdk::activities::ActivityContext;
use tokio::sync::Notify;

use crate::environment::Environment;
use crate::stream::{MirrorHandle, tell};

/// Time between two looks whether the copy is over.
const POLL: Duration = Duration::from_millis(500);

/// A copy, and whom to tell that it must begin anew.
pub(crate) struct Reshaped<'a> {
    environment: &'a Environment,
    copy: &'a TableCopy,
    mirror: MirrorHandle,
}

impl<'a> Reshaped<'a> {
    pub(crate) fn of(ctx: &ActivityContext, environment: &'a Environment, copy: &'a TableCopy) -> Self {
        Self { environment, copy, mirror: ctx.client().get_workflow_handle(ids::mirror(&copy.mirror)) }
    }

    /// Asks for it before anything was read, and gives what ends this copy.
    pub(crate) async fn plan_anew(&self, why: Error) -> Error {
        let reason = why.with_remedy("Nothing: the table is copied again by itself.");
        match self.environment.catalog.ask_resync(self.copy.table_id, None, &reason).await {
            Ok(_) => self.over().await,
            Err(error) => error,
        }
    }

    /// Asks for it in the middle of the copy, if the mirror follows such changes by itself.
    pub(crate) async fn follow(&self, mirror: &Mirror, why: Error) -> Error {
        match mirror.spec.settings.on_rewrite {
            OnRewrite::Resync => self.plan_anew(why).await,
            OnRewrite::Error | OnRewrite::Keep => why.with_remedy("Resync the table."),
        }
    }

    /// Waits until the copy is over, and gives the error that says so.
    async fn over(&self) -> Error {
        let changed = Notify::new();
        let waiting = async {
            loop {
                changed.notify_one();
                tokio::time::sleep(POLL).await;
                match self.environment.catalog.copy_state(self.copy.table_id, self.copy.copy_no).await {
                    Err(error) if error.code() == Code::LeaseLost || !error.is_retryable() => return error,
                    // Not yet, or the catalog is away.
                    _ => {}
                }
            }
        };
        tokio::select! {
            over = waiting => over,
            never = tell(&self.mirror, &changed) => match never {},
        }
    }
}
