//! The server's side of Temporal: it starts workflows, asks them and waits for them. All I/O of
//! the server towards Temporal is here; `diagnosis` has what is asked for a diagnosis.

mod diagnosis;

use std::collections::HashMap;
use std::time::Duration;

use millrace_terms::{Code, Error, Result};
use millrace_workflows::payload::{
    CheckInput, DropInput, DropOptions, DropReport, MirrorInput, Resync, ResyncInput, VerifyRef,
};
use millrace_workflows::{CheckWorkflow, DropMirrorWorkflow, MirrorWorkflow, VerifyWorkflow, failure, ids};
use temporalio_client::errors::{
    WorkflowGetResultError, WorkflowInteractionError, WorkflowStartError, WorkflowUpdateError,
};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, WorkflowCancelOptions, WorkflowDescribeOptions,
    WorkflowExecutionStatus, WorkflowGetResultOptions, WorkflowHandle, WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy, WorkflowStartOptions, WorkflowStartUpdateOptions, WorkflowTerminateOptions,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::error::IncomingError;
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType;
use temporalio_common::protos::temporal::api::operatorservice::v1::AddSearchAttributesRequest;
use temporalio_common::protos::temporal::api::workflowservice::v1::DescribeNamespaceRequest;
use temporalio_common::search_attributes::SearchAttributes;
use tonic::IntoRequest as _;
use uuid::Uuid;

use crate::deadlines;

/// How long the connection to Temporal may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer to "do you live?" may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the report of a drop that is over may take to be read.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Events of a check's history before a worker has taken it up: started, and task scheduled.
const EVENTS_UNTAKEN: usize = 2;

/// How a drop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropWork {
    /// It is being carried out.
    Running,
    /// It was carried out, or has failed: there is a report.
    Over,
    /// Nobody carries it on: there is none, or it was ended by force.
    Abandoned,
}

/// A change to a running mirror.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Look into the catalog for what was changed there, and have it done.
    Edit,
    /// Copy these tables again.
    Resync(Resync),
    /// Go away.
    Drop(DropOptions),
}

/// The connection to Temporal, and where our work is queued.
#[derive(Clone)]
pub(crate) struct Orchestra {
    client: Client,
    queues: ids::Queues,
}

impl Orchestra {
    /// Connects, once.
    pub(crate) async fn connect(address: &str, namespace: &str, queues: ids::Queues) -> Result<Self> {
        let target: url::Url = address.parse().map_err(|_| {
            Error::new(Code::InvalidArgument, format!("the Temporal address {address} is not a URL"))
                .with_remedy("Give MILLRACE_TEMPORAL_ADDRESS as http://HOST:PORT or https://HOST:PORT.")
        })?;
        let options = ConnectionOptions::new(target)
            .identity(format!("millrace-server-{}", std::process::id()))
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
        let unreachable = |what: String| Error::new(Code::TemporalUnreachable, format!("{address}: {what}"));
        let connection =
            Connection::connect(options).await.map_err(|error| unreachable(error.to_string()))?;
        let client = Client::new(connection, ClientOptions::new(namespace).build())
            .map_err(|error| unreachable(error.to_string()))?;
        Ok(Self { client, queues })
    }

    /// Proves that Temporal answers and that the namespace exists: for readiness.
    pub(crate) async fn ping(&self) -> Result<()> {
        let namespace = self.client.options().namespace.clone();
        let request = DescribeNamespaceRequest { namespace, ..Default::default() };
        let mut service = self.client.connection().workflow_service();
        match tokio::time::timeout(PING_TIMEOUT, service.describe_namespace(request.into_request())).await {
            Ok(answer) => answer.map(drop).map_err(|status| rpc(&status)),
            Err(_) => Err(Error::new(Code::TemporalUnreachable, "Temporal does not answer")),
        }
    }

    /// Registers the search attributes of the workflows, those that the namespace does not have. Repeating it
    /// changes nothing.
    pub(crate) async fn register(&self) -> Result<()> {
        let missing = self.attributes_missing().await?;
        if missing.is_empty() {
            return Ok(());
        }
        let request = AddSearchAttributesRequest {
            search_attributes: attributes()
                .map(|(name, kind)| (name.to_owned(), i32::from(kind)))
                .into_iter()
                .filter(|(name, _)| missing.contains(name))
                .collect::<HashMap<_, _>>(),
            namespace: self.client.options().namespace.clone(),
        };
        let mut service = self.client.connection().operator_service();
        match service.add_search_attributes(request.into_request()).await {
            Err(status) if status.code() != tonic::Code::AlreadyExists => Err(rpc(&status)),
            _ => Ok(()),
        }
    }

    /// Starts a mirror's workflow. One that runs already is left alone.
    pub(crate) async fn start_mirror(&self, mirror: &str) -> Result<()> {
        let options = WorkflowStartOptions::new(self.queues.control(), ids::mirror(mirror))
            .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
            .search_attributes(SearchAttributes::new([
                ids::MIRROR_NAME.value_set(mirror.to_owned()),
                ids::MIRROR_STATE.value_set("SETUP".to_owned()),
            ]))
            .static_summary(format!("mirror {mirror}"))
            .build();
        match self.client.start_workflow(MirrorWorkflow::run, MirrorInput::new(mirror), options).await {
            Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
            Err(error) => Err(start_error(error)),
        }
    }

    /// Changes a running mirror and waits until it is done, for a bounded time. A mirror whose
    /// workflow is not there is started first.
    ///
    /// # Errors
    /// NO_WORKERS, MIRROR_STATE.
    pub(crate) async fn change(&self, mirror: &str, change: Change, request_id: &str) -> Result<()> {
        let update_id =
            if request_id.is_empty() { Uuid::new_v4().to_string() } else { request_id.to_owned() };
        match self.try_change(mirror, change, &update_id).await {
            Err(WorkflowUpdateError::NotFound(_)) => {
                self.start_mirror(mirror).await?;
                self.try_change(mirror, change, &update_id).await.map_err(update_error)
            }
            other => other.map_err(update_error),
        }
    }

    async fn try_change(
        &self,
        mirror: &str,
        change: Change,
        update_id: &str,
    ) -> Result<(), WorkflowUpdateError> {
        // By id alone: the workflow may have continued as new.
        let handle = self.handle(MirrorWorkflow::run, ids::mirror(mirror));
        let options = WorkflowStartUpdateOptions::builder().update_id(update_id.to_owned()).build();
        macro_rules! update {
            ($update:expr, $input:expr) => {{
                let accepted = handle.start_update($update, $input, options);
                match tokio::time::timeout(deadlines::ACCEPT, accepted).await {
                    Ok(accepted) => {
                        let done = accepted?;
                        let done = done.get_result(Default::default());
                        // Accepted is what counts: what takes longer goes on by itself.
                        tokio::time::timeout(deadlines::UPDATE, done)
                            .await
                            .map_or(Ok(()), |done| done.map(drop))
                    }
                    Err(_) => Err(WorkflowUpdateError::Other(Box::new(self.no_workers()))),
                }
            }};
        }
        match change {
            Change::Pause => update!(MirrorWorkflow::pause, ()),
            Change::Resume => update!(MirrorWorkflow::resume, ()),
            Change::Edit => update!(MirrorWorkflow::edit, ()),
            Change::Resync(which) => {
                update!(MirrorWorkflow::resync, ResyncInput { mirror: mirror.to_owned(), which })
            }
            Change::Drop(options_of_drop) => update!(MirrorWorkflow::drop_mirror, options_of_drop),
        }
    }

    /// Whether the workflow of a mirror runs.
    pub(crate) async fn is_at_work(&self, mirror: &str) -> Result<bool> {
        let status = self.status(MirrorWorkflow::run, ids::mirror(mirror)).await?;
        Ok(status == Some(WorkflowExecutionStatus::Running))
    }

    /// How the newest drop of a mirror is.
    pub(crate) async fn drop_work(&self, mirror: &str) -> Result<DropWork> {
        Ok(match self.status(DropMirrorWorkflow::run, ids::drop(mirror)).await? {
            Some(WorkflowExecutionStatus::Running) => DropWork::Running,
            Some(WorkflowExecutionStatus::Completed | WorkflowExecutionStatus::Failed) => DropWork::Over,
            _ => DropWork::Abandoned,
        })
    }

    /// How the newest workflow of this id is, if there is one.
    async fn status<W: HasWorkflowDefinition>(
        &self,
        run: W,
        id: String,
    ) -> Result<Option<WorkflowExecutionStatus>> {
        match self.handle(run, id).describe(WorkflowDescribeOptions::default()).await {
            Ok(description) => Ok(Some(description.status())),
            Err(WorkflowInteractionError::NotFound(_)) => Ok(None),
            Err(WorkflowInteractionError::Rpc(status)) => Err(rpc(&status)),
            Err(error) => Err(Error::new(Code::Internal, format!("a workflow was not described: {error}"))),
        }
    }

    /// Starts the drop of a mirror that is half dropped and that no workflow carries on. One that runs
    /// is left alone.
    pub(crate) async fn start_drop(&self, mirror: &str, how: DropOptions) -> Result<()> {
        let options = WorkflowStartOptions::new(self.queues.control(), ids::drop(mirror))
            .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
            .search_attributes(SearchAttributes::new([ids::MIRROR_NAME.value_set(mirror.to_owned())]))
            .static_summary("drop the mirror".to_owned())
            .build();
        let input = DropInput { mirror: mirror.to_owned(), options: how };
        match self.client.start_workflow(DropMirrorWorkflow::run, input, options).await {
            Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
            Err(error) => Err(start_error(error)),
        }
    }

    /// Starts a comparison. One that runs, or is over, is left alone.
    pub(crate) async fn start_verify(&self, mirror: &str, id: &str) -> Result<()> {
        let options = WorkflowStartOptions::new(self.queues.control(), ids::verify(mirror, id))
            .id_conflict_policy(WorkflowIdConflictPolicy::UseExisting)
            .id_reuse_policy(WorkflowIdReusePolicy::RejectDuplicate)
            .search_attributes(SearchAttributes::new([ids::MIRROR_NAME.value_set(mirror.to_owned())]))
            .static_summary("compare with the source".to_owned())
            .build();
        let input = VerifyRef { mirror: mirror.to_owned(), id: id.to_owned() };
        match self.client.start_workflow(VerifyWorkflow::run, input, options).await {
            Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
            Err(error) => Err(start_error(error)),
        }
    }

    /// Asks a comparison to stop. One that is over, or never was, is left alone.
    pub(crate) async fn cancel_verify(&self, mirror: &str, id: &str) -> Result<()> {
        let handle = self.handle(VerifyWorkflow::run, ids::verify(mirror, id));
        let options = WorkflowCancelOptions::builder().reason("asked for".to_owned()).build();
        match handle.cancel(options).await {
            Ok(()) | Err(WorkflowInteractionError::NotFound(_)) => Ok(()),
            Err(WorkflowInteractionError::Rpc(status)) => Err(rpc(&status)),
            Err(error) => Err(Error::new(Code::Internal, format!("a workflow was not cancelled: {error}"))),
        }
    }

    /// The report of the newest drop of a mirror, which must be over or nearly so.
    pub(crate) async fn drop_report(&self, mirror: &str) -> Result<DropReport> {
        let handle = self.handle(DropMirrorWorkflow::run, ids::drop(mirror));
        match tokio::time::timeout(REPORT_TIMEOUT, handle.get_result(WorkflowGetResultOptions::default()))
            .await
        {
            Ok(report) => report.map_err(result_error),
            Err(_) => Err(Error::new(Code::TemporalUnreachable, "the report of the drop does not come")),
        }
    }

    /// Runs the check of a draft to its end; the answer is in the draft.
    ///
    /// # Errors
    /// NO_WORKERS, and what the check itself fails with (a peer's faults are in the answer).
    pub(crate) async fn check(&self, draft: &str) -> Result<()> {
        let options = WorkflowStartOptions::new(self.queues.control(), ids::check(draft))
            .execution_timeout(deadlines::CHECK)
            .static_summary("check of a draft".to_owned())
            .build();
        let input = CheckInput { draft: draft.to_owned() };
        let handle =
            self.client.start_workflow(CheckWorkflow::run, input, options).await.map_err(start_error)?;
        let result = handle.get_result(WorkflowGetResultOptions::default());
        tokio::pin!(result);
        if let Ok(done) = tokio::time::timeout(deadlines::ACCEPT, &mut result).await {
            return done.map_err(result_error);
        }
        if self.is_untaken(draft).await {
            let terminate =
                WorkflowTerminateOptions::builder().reason("no worker took it up".to_owned()).build();
            // Whether it ends now or by its time limit: nobody waits for it any more.
            let _ended = handle.terminate(terminate).await;
            return Err(self.no_workers());
        }
        match tokio::time::timeout(deadlines::CHECK - deadlines::ACCEPT, result).await {
            Ok(done) => done.map_err(result_error),
            Err(_) => Err(Error::new(Code::NoWorkers, "the check was not finished in time")),
        }
    }

    async fn is_untaken(&self, draft: &str) -> bool {
        let handle = self.handle(CheckWorkflow::run, ids::check(draft));
        match handle.describe(WorkflowDescribeOptions::default()).await {
            Ok(description) => description.history_length() <= EVENTS_UNTAKEN,
            Err(_) => false,
        }
    }

    /// The workflow of an id, whatever its run. The type is that of the `run` marker: the workflow's
    /// own type need not be `Send`.
    fn handle<W: HasWorkflowDefinition>(&self, _run: W, id: String) -> WorkflowHandle<Client, W> {
        self.client.get_workflow_handle(id)
    }

    fn no_workers(&self) -> Error {
        Error::new(
            Code::NoWorkers,
            format!(
                "no worker took up the request within {} s on the task queue {}",
                deadlines::ACCEPT.as_secs(),
                self.queues.control()
            ),
        )
    }
}

/// The search attributes of our workflows, and what they hold.
fn attributes() -> [(&'static str, IndexedValueType); 5] {
    let words = [ids::MIRROR_NAME, ids::MIRROR_STATE, ids::MIRROR_VERDICT];
    let [name, state, verdict] = words.map(|key| (key.name(), IndexedValueType::Keyword));
    let numbers = [ids::MIRROR_ROWS_COPIED, ids::MIRROR_LAG_SECONDS];
    let [rows, lag] = numbers.map(|key| (key.name(), IndexedValueType::Int));
    [name, state, verdict, rows, lag]
}

/// What a status of Temporal's means for our callers.
fn rpc(status: &tonic::Status) -> Error {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Error::new(Code::TemporalUnreachable, format!("Temporal cannot be reached: {}", status.message()))
        }
        tonic::Code::NotFound => Error::new(
            Code::TemporalUnreachable,
            format!("Temporal does not know what it was asked for: {}", status.message()),
        )
        .with_remedy("Check MILLRACE_TEMPORAL_NAMESPACE: the namespace must exist."),
        code => Error::new(Code::Internal, format!("Temporal answered {code:?}: {}", status.message())),
    }
}

fn start_error(error: WorkflowStartError) -> Error {
    match error {
        WorkflowStartError::Rpc(status) => rpc(&status),
        other => Error::new(Code::Internal, format!("a workflow was not started: {other}")),
    }
}

fn update_error(error: WorkflowUpdateError) -> Error {
    match error {
        WorkflowUpdateError::Failed(failure) => failure::from_message(&failure.message),
        WorkflowUpdateError::NotFound(status) | WorkflowUpdateError::Rpc(status) => rpc(&status),
        WorkflowUpdateError::Other(other) => match other.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::new(Code::Internal, format!("an update failed: {other}")),
        },
        other => Error::new(Code::Internal, format!("an update failed: {other}")),
    }
}

fn result_error(error: WorkflowGetResultError) -> Error {
    match error {
        WorkflowGetResultError::Failed(failed) => match &*failed {
            IncomingError::Application(application) => match application.details::<Error>() {
                Ok(Some(error)) => error,
                _ => failure::from_message(&application.source_error().to_string()),
            },
            other => Error::new(Code::Internal, other.to_string()),
        },
        WorkflowGetResultError::TimedOut => Error::new(Code::NoWorkers, "the work was not finished in time"),
        WorkflowGetResultError::Rpc(status) | WorkflowGetResultError::NotFound(status) => rpc(&status),
        other => Error::new(Code::Internal, other.to_string()),
    }
}
