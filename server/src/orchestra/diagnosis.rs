//! What Temporal is asked for a diagnosis. I/O.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use millrace_terms::Result;
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::protos::temporal::api::operatorservice::v1::ListSearchAttributesRequest;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeScheduleRequest, DescribeTaskQueueRequest,
};
use tonic::IntoRequest as _;

use super::{Orchestra, attributes, rpc};
use crate::doctor::{QueueFacts, Schedule};

/// Since when a worker may not have polled and is yet taken to live: its polls last a minute.
const POLL_AGE_MAX: Duration = Duration::from_secs(90);

impl Orchestra {
    /// The namespace.
    pub(crate) fn namespace(&self) -> String {
        self.client.options().namespace.clone()
    }

    /// Names of our search attributes that the namespace does not have.
    pub(crate) async fn attributes_missing(&self) -> Result<Vec<String>> {
        let request = ListSearchAttributesRequest { namespace: self.namespace() };
        let mut service = self.client.connection().operator_service();
        let listed = service.list_search_attributes(request.into_request()).await;
        let present = listed.map_err(|status| rpc(&status))?.into_inner().custom_attributes;
        let names = attributes().into_iter().map(|(name, _)| name.to_owned());
        Ok(names.filter(|name| !present.contains_key(name)).collect())
    }

    /// How the schedule of the housekeeping stands.
    pub(crate) async fn housekeeping(&self) -> Result<Schedule> {
        let request =
            DescribeScheduleRequest { namespace: self.namespace(), schedule_id: self.queues.housekeeping() };
        let mut service = self.client.connection().workflow_service();
        match service.describe_schedule(request.into_request()).await {
            Ok(answer) => {
                let state = answer.into_inner().schedule.and_then(|schedule| schedule.state);
                let is_paused = state.is_some_and(|state| state.paused);
                Ok(if is_paused { Schedule::Paused } else { Schedule::Running })
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Schedule::Missing),
            Err(status) => Err(rpc(&status)),
        }
    }

    /// Who polls the task queues.
    pub(crate) async fn pollers(&self) -> Vec<QueueFacts> {
        let (workflows, activities) = (TaskQueueType::Workflow, TaskQueueType::Activity);
        let queues = [
            ("control", self.queues.control(), &[workflows, activities][..]),
            ("snapshot", self.queues.snapshot(), &[activities]),
            ("stream", self.queues.stream(), &[activities]),
        ];
        let mut found = Vec::with_capacity(queues.len());
        for (option, name, kinds) in queues {
            let pollers = self.pollers_of(&name, kinds).await;
            found.push(QueueFacts { name, option, pollers });
        }
        found
    }

    /// How many workers poll a queue, for the kind that the fewest poll for.
    async fn pollers_of(&self, queue: &str, kinds: &[TaskQueueType]) -> Result<usize> {
        let mut fewest = usize::MAX;
        for kind in kinds {
            let request = DescribeTaskQueueRequest {
                namespace: self.namespace(),
                task_queue: Some(TaskQueue { name: queue.to_owned(), ..Default::default() }),
                task_queue_type: (*kind).into(),
                ..Default::default()
            };
            let mut service = self.client.connection().workflow_service();
            let answer = service.describe_task_queue(request.into_request()).await;
            let pollers = answer.map_err(|status| rpc(&status))?.into_inner().pollers;
            let since = Timestamp::now().as_second() - POLL_AGE_MAX.as_secs() as i64;
            let alive = pollers
                .iter()
                .filter(|poller| poller.last_access_time.as_ref().is_some_and(|at| at.seconds >= since))
                .map(|poller| poller.identity.as_str());
            fewest = fewest.min(alive.collect::<BTreeSet<_>>().len());
        }
        Ok(fewest)
    }
}
