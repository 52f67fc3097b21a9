//! Our errors as Temporal's failures, and back: type = code, message = `CODE: text`, details = the
//! error itself, non-retryable where a retry cannot help.
//!
//! Pure: no I/O.

use millrace_terms::{Code, Error};
use temporalio_common::error::{
    ActivityExecutionError, ApplicationFailure, ChildWorkflowStartError, IncomingError, TimeoutType,
};
use temporalio_workflow::WorkflowCancellationToken;

/// The error as a failure of an activity or a workflow.
pub fn application(error: Error) -> ApplicationFailure {
    ApplicationFailure::builder(error.clone())
        .type_name(error.code().as_str().to_owned())
        .non_retryable(!error.is_retryable())
        .details(error)
        .build()
}

/// How an activity ended that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and did.
    Stopped,
    /// No worker took it up in time.
    Unstaffed,
    /// It failed for good.
    Failed(Error),
}

impl Ended {
    /// As it is to be understood if the work was told to stop meanwhile: an attempt that would have been
    /// repeated, such as that of a worker that died, is not repeated then, and its end is no failure.
    #[must_use]
    pub fn or_stopped(self, token: &WorkflowCancellationToken) -> Self {
        match self {
            Ended::Failed(error) if error.is_retryable() && token.is_cancelled() => Ended::Stopped,
            ended => ended,
        }
    }
}

/// Reads what a failed activity says.
pub fn of_activity(error: &ActivityExecutionError) -> Ended {
    match error {
        ActivityExecutionError::Cancelled(_) => Ended::Stopped,
        ActivityExecutionError::Failed(failed) => of_cause(failed.cause(), &failed.failure().message),
        other => Ended::Failed(Error::new(Code::Internal, other.to_string())),
    }
}

fn of_cause(cause: Option<&IncomingError>, message: &str) -> Ended {
    match cause {
        Some(IncomingError::Cancelled(_)) => Ended::Stopped,
        Some(IncomingError::Timeout(timeout)) if timeout.timeout_type() == TimeoutType::ScheduleToStart => {
            Ended::Unstaffed
        }
        Some(IncomingError::Timeout(timeout)) => {
            // With unlimited attempts only an overall limit ends here; the last attempt's own
            // failure, if it had one, says more than the limit.
            match timeout.cause() {
                Some(cause @ IncomingError::Application(_)) => of_cause(Some(cause), message),
                _ => Ended::Failed(Error::new(Code::NoWorkers, "the work was not finished in time")),
            }
        }
        Some(IncomingError::Application(application)) => Ended::Failed(of_application(application)),
        _ => Ended::Failed(from_message(message)),
    }
}

fn of_application(failure: &ApplicationFailure) -> Error {
    match failure.details::<Error>() {
        Ok(Some(error)) => error,
        _ => from_message(&failure.source_error().to_string()),
    }
}

/// Whether a child could not be started because it runs already.
pub fn is_running_already(error: &ChildWorkflowStartError) -> bool {
    use temporalio_common::error::StartChildWorkflowExecutionFailedCause as Cause;
    matches!(error, ChildWorkflowStartError::StartFailed { cause: Cause::WorkflowAlreadyExists, .. })
}

/// Reads an error back from a text of the form `CODE: message`, which is all that is left of it
/// where Temporal keeps no details (a rejected update). A text of another form is a defect of ours.
pub fn from_message(text: &str) -> Error {
    text.split_once(": ")
        .and_then(|(code, message)| Some(Error::new(code.parse::<Code>().ok()?, message)))
        .unwrap_or_else(|| Error::new(Code::Internal, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_about_a_retry_and_is_read_back_from_the_message() {
        let lost = Error::new(Code::SlotLost, "slot s is gone");
        let failure = application(lost.clone());
        assert_eq!(failure.type_name(), Some("SLOT_LOST"));
        assert!(failure.is_non_retryable());
        assert_eq!(from_message(&failure.to_string()), lost);
        assert!(!application(Error::new(Code::SourceUnreachable, "refused")).is_non_retryable());
        assert_eq!(from_message("panicked").code(), Code::Internal);
    }
}
