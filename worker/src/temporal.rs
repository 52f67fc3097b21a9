//! The connection to Temporal, and what must be registered there before a workflow starts.
//!
//! I/O rim.

use std::time::Duration;

use millrace_terms::{Code, Error, Result};
use millrace_workflows::HousekeepingWorkflow;
use millrace_workflows::ids::{self, Queues};
use temporalio_client::schedules::{
    CreateScheduleOptions, ScheduleAction, ScheduleError, ScheduleOverlapPolicy, ScheduleSpec,
};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, RetryOptions};
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType;
use temporalio_common::protos::temporal::api::operatorservice::v1::{
    AddSearchAttributesRequest, ListSearchAttributesRequest,
};
use tonic::IntoRequest;
use url::Url;

use crate::config::Config;

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often idle slots are moved forward, lag is measured, and old rows are deleted. A slot that
/// is half a minute late holds half a minute of the source's log.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(30);

/// Connects.
///
/// # Errors
/// INVALID_ARGUMENT for an address that is no URL, else TEMPORAL_UNREACHABLE.
pub(crate) async fn connect(config: &Config) -> Result<Client> {
    let address = &config.temporal_address;
    let url = Url::parse(address).map_err(|error| {
        Error::new(Code::InvalidArgument, format!("Temporal's address {address} is not a URL: {error}"))
    })?;
    // Without limit: a worker outlives a restart of Temporal, and the answer of an activity that
    // ends meanwhile is not dropped (the default gives up after 10 s, and the work is done again).
    let retry = RetryOptions::builder().max_elapsed_time(None).max_retries(0).build();
    let options = ConnectionOptions::new(url)
        .identity(identity())
        .connect_timeout(CONNECT_TIMEOUT)
        .retry_options(retry)
        .build();
    let connection = Connection::connect(options).await.map_err(|error| unreachable(address, error))?;
    Client::new(connection, ClientOptions::new(config.temporal_namespace.clone()).build())
        .map_err(|error| unreachable(address, error))
}

/// Registers search attributes and the housekeeping schedule. What is there already stays.
///
/// # Errors
/// TEMPORAL_UNREACHABLE, also for a namespace that does not exist (yet).
pub(crate) async fn register(client: &Client, config: &Config) -> Result<()> {
    register_search_attributes(client, config).await?;
    register_housekeeping(client, config).await
}

async fn register_search_attributes(client: &Client, config: &Config) -> Result<()> {
    let mut operator = client.connection().operator_service();
    let list = ListSearchAttributesRequest { namespace: config.temporal_namespace.clone() };
    let listed = operator.list_search_attributes(list.into_request()).await;
    let present = listed.map_err(|status| refused(config, &status))?.into_inner().custom_attributes;
    let missing: Vec<&str> = [ids::MIRROR_NAME.name(), ids::MIRROR_STATE.name()]
        .into_iter()
        .filter(|name| !present.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let add = AddSearchAttributesRequest {
        search_attributes: missing
            .iter()
            .map(|name| ((*name).to_owned(), IndexedValueType::Keyword as i32))
            .collect(),
        namespace: config.temporal_namespace.clone(),
    };
    match operator.add_search_attributes(add.into_request()).await {
        Ok(_) => Ok(()),
        // Another process was faster.
        Err(status) if status.code() == tonic::Code::AlreadyExists => Ok(()),
        Err(status) => Err(refused(config, &status)),
    }
}

async fn register_housekeeping(client: &Client, config: &Config) -> Result<()> {
    let queues = Queues::new(&config.queue_prefix);
    let id = queues.housekeeping();
    let action = ScheduleAction::start_workflow(HousekeepingWorkflow::run, (), queues.control(), id.clone());
    let options = CreateScheduleOptions::builder()
        .action(action)
        .spec(ScheduleSpec::from_interval(HOUSEKEEPING_INTERVAL))
        .overlap_policy(ScheduleOverlapPolicy::Skip)
        .build();
    match client.create_schedule(id, options).await {
        Ok(_) => Ok(()),
        Err(ScheduleError::Rpc(status)) if status.code() == tonic::Code::AlreadyExists => Ok(()),
        Err(ScheduleError::Rpc(status)) => Err(refused(config, &status)),
        Err(error) => Err(Error::new(Code::Internal, format!("the housekeeping schedule: {error}"))),
    }
}

/// How Temporal's UI names this worker: process and machine.
pub(crate) fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("millrace-worker {}@{}", std::process::id(), host.trim())
}

fn unreachable(address: &str, error: impl std::fmt::Display) -> Error {
    Error::new(Code::TemporalUnreachable, format!("Temporal at {address}: {error}"))
}

fn refused(config: &Config, status: &tonic::Status) -> Error {
    let text = format!("namespace {}: {}", config.temporal_namespace, status.message());
    unreachable(&config.temporal_address, text)
}
