//! Our errors as the failures of activities. Pure: no I/O.

use millrace_terms::{Code, Error};
use millrace_workflows::failure;
use temporalio_common::error::ApplicationFailure;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

/// The failure, typed by its code; non-retryable where a retry cannot help.
pub(crate) fn of(error: Error) -> ActivityError {
    tracing::warn!(code = %error.code(), error = %error, "the attempt failed");
    ActivityError::application(failure::application(error))
}

/// The failure of an attempt, or that it stopped because it was told to.
pub(crate) fn ended(ctx: &ActivityContext, error: Error) -> ActivityError {
    if ctx.is_cancelled() { ActivityError::cancelled() } else { of(error) }
}

/// The failure of an attempt that holds a lease: another attempt may take it again, so a lost lease
/// is retried here. If the mirror was dropped meanwhile, the retry finds that out.
pub(crate) fn of_leased(error: Error) -> ActivityError {
    if error.code() != Code::LeaseLost {
        return of(error);
    }
    tracing::info!(error = %error, "the attempt lost its lease");
    let failure = ApplicationFailure::builder(error.clone())
        .type_name(error.code().as_str().to_owned())
        .details(error)
        .build();
    ActivityError::application(failure)
}
