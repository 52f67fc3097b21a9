//! Why a call failed, and how that looks on the wire: the one place that makes a `tonic::Status`, and
//! (`http`) shows it over HTTP.
//!
//! Pure: no I/O.

mod http;

use std::collections::HashMap;
use std::time::Duration;

use millrace_terms::{Class, Code, Error};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) use http::{http_code, to_json};

/// `ErrorInfo.domain` of every error.
pub(crate) const DOMAIN: &str = "millrace.dev";

// Status and details travel in HTTP/2 trailers, the message up to three times. Stock clients accept
// 8 KiB of headers (grpc-core's default); beyond that the caller would see only a broken stream.
/// Bytes of a message at most; longer ones end in an ellipsis.
const MESSAGE_BYTES_MAX: usize = 800;
/// Bytes of a remedy, and of a metadata value, at most.
const REMEDY_BYTES_MAX: usize = 500;
/// Bytes of one violation's description at most.
const DESCRIPTION_BYTES_MAX: usize = 160;
/// Violations listed at most; the message says how many there were.
const VIOLATIONS_MAX: usize = 6;
/// Metadata entries at most.
const METADATA_MAX: usize = 6;

/// Key of an error's metadata for the milliseconds after which a call may be repeated.
pub(crate) const RETRY_AFTER_MS: &str = "retry_after_ms";
/// When to come back to a server that has its hands full: most requests take milliseconds.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// A failed call: the error, and what exactly was wrong with which field or object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    pub(crate) details: Details,
}

/// What exactly was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Details {
    /// The error says it all.
    None,
    /// Fields of the request: `(path, what is wrong)`.
    Fields(Vec<(String, String)>),
    /// Objects that are not as they have to be: `(code, object, what is wrong)`.
    Preconditions(Vec<(Code, String, String)>),
}

/// Result of everything that answers a call.
pub(crate) type Answer<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, details: Details::None }
    }
}

/// Collects what is wrong with a request, so that the caller learns all of it at once.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<(String, String)>);

impl Violations {
    /// Notes that a field is wrong.
    pub(crate) fn add(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.0.push((field.into(), what.into()));
    }

    /// Notes it unless `ok`.
    pub(crate) fn require(&mut self, ok: bool, field: impl Into<String>, what: impl Into<String>) {
        if !ok {
            self.add(field, what);
        }
    }

    /// The fault, if anything was noted.
    pub(crate) fn into_result(self) -> Answer<()> {
        let Some((field, what)) = self.0.first() else {
            return Ok(());
        };
        let message = match self.0.len() {
            1 => format!("{field}: {what}"),
            n => format!("{field}: {what} (and {} more)", n - 1),
        };
        let error = Error::new(Code::InvalidArgument, message).with("field", field.clone());
        Err(Fault { error, details: Details::Fields(self.0) })
    }
}

#[cfg(test)]
impl Fault {
    /// The fields that it names.
    pub(crate) fn field_names(&self) -> Vec<&str> {
        match &self.details {
            Details::Fields(fields) => fields.iter().map(|(field, _)| field.as_str()).collect(),
            Details::None | Details::Preconditions(_) => Vec::new(),
        }
    }
}

/// A single wrong field.
pub(crate) fn invalid(field: &str, what: impl Into<String>) -> Fault {
    let what = what.into();
    let error = Error::new(Code::InvalidArgument, format!("{field}: {what}")).with("field", field.to_owned());
    Fault { error, details: Details::Fields(vec![(field.to_owned(), what)]) }
}

/// The gRPC code of a kind of failure.
pub(crate) fn grpc_code(class: Class) -> tonic::Code {
    match class {
        Class::InvalidArgument => tonic::Code::InvalidArgument,
        Class::NotFound => tonic::Code::NotFound,
        Class::AlreadyExists => tonic::Code::AlreadyExists,
        Class::FailedPrecondition => tonic::Code::FailedPrecondition,
        Class::Aborted => tonic::Code::Aborted,
        Class::Unavailable => tonic::Code::Unavailable,
        Class::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Class::Unauthenticated => tonic::Code::Unauthenticated,
        Class::PermissionDenied => tonic::Code::PermissionDenied,
        Class::ResourceExhausted => tonic::Code::ResourceExhausted,
        Class::Unimplemented => tonic::Code::Unimplemented,
        Class::DataLoss => tonic::Code::DataLoss,
        Class::Internal => tonic::Code::Internal,
    }
}

impl From<Fault> for tonic::Status {
    fn from(fault: Fault) -> Self {
        let error = &fault.error;
        let message = cut(error.message(), MESSAGE_BYTES_MAX);
        let remedy = cut(error.remedy(), REMEDY_BYTES_MAX);
        let mut metadata: HashMap<String, String> = error
            .metadata()
            .iter()
            .take(METADATA_MAX)
            .map(|(key, value)| (key.clone(), cut(value, DESCRIPTION_BYTES_MAX)))
            .collect();
        metadata.insert("remedy".to_owned(), remedy.clone());

        let mut details = ErrorDetails::with_error_info(error.code().as_str(), DOMAIN, metadata);
        details.set_localized_message("en", format!("{message}\n{remedy}"));
        if let Some(wait) = retry_after(error) {
            details.set_retry_info(Some(wait));
        }
        let short = |text: &str| cut(text, DESCRIPTION_BYTES_MAX);
        match &fault.details {
            Details::None => {}
            Details::Fields(fields) => {
                for (field, what) in fields.iter().take(VIOLATIONS_MAX) {
                    details.add_bad_request_violation(short(field), short(what));
                }
            }
            Details::Preconditions(failed) => {
                for (code, subject, what) in failed.iter().take(VIOLATIONS_MAX) {
                    details.add_precondition_failure_violation(code.as_str(), short(subject), short(what));
                }
            }
        }
        tonic::Status::with_error_details(grpc_code(error.code().class()), message, details)
    }
}

/// When a call that was refused for what others do may be repeated.
fn retry_after(error: &Error) -> Option<Duration> {
    match error.code() {
        Code::RateLimited => error.metadata().get(RETRY_AFTER_MS)?.parse().ok().map(Duration::from_millis),
        Code::ServerBusy => Some(BUSY_RETRY),
        _ => None,
    }
}

/// The text, cut at a character's border to at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max - ELLIPSIS.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_code_object_and_remedy() {
        let error = Error::new(Code::TableWithoutKey, "public.log has no primary key")
            .with("table", "public.log")
            .with_remedy("ALTER TABLE public.log ADD PRIMARY KEY (id);");
        let failed = (Code::TableWithoutKey, "public.log".into(), "no primary key".into());
        let fault = Fault { error, details: Details::Preconditions(vec![failed]) };
        let status = tonic::Status::from(fault);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert_eq!(status.message(), "public.log has no primary key");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("TABLE_WITHOUT_KEY", DOMAIN));
        assert_eq!(info.metadata["table"], "public.log");
        assert_eq!(info.metadata["remedy"], "ALTER TABLE public.log ADD PRIMARY KEY (id);");
        assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "public.log");
    }

    #[test]
    fn a_caller_who_is_limited_is_told_when_to_come_back() {
        let delay = |error: Error| {
            let status = tonic::Status::from(Fault::from(error));
            status.get_error_details().retry_info().and_then(|info| info.retry_delay)
        };
        let limited = Error::new(Code::RateLimited, "too often").with(RETRY_AFTER_MS, "250");
        assert_eq!(delay(limited), Some(Duration::from_millis(250)));
        assert_eq!(delay(Error::new(Code::ServerBusy, "busy")), Some(BUSY_RETRY));
        assert_eq!(delay(Error::new(Code::PeerNotFound, "none")), None);
    }

    #[test]
    fn every_violation_is_told_at_once() {
        let mut violations = Violations::default();
        violations.require(true, "name", "fine");
        violations.add("mirror.source", "must not be empty");
        violations.add("mirror.tables", "must not be empty");
        let status = tonic::Status::from(violations.into_result().unwrap_err());
        assert_eq!(status.message(), "mirror.source: must not be empty (and 1 more)");
        assert_eq!(status.get_error_details().bad_request().unwrap().field_violations.len(), 2);
        assert_eq!(Violations::default().into_result(), Ok(()));
    }

    #[test]
    fn a_status_fits_into_the_headers_that_stock_clients_accept() {
        let long = "ä".repeat(100_000);
        let mut error = Error::new(Code::SourceError, long.clone()).with_remedy(long.clone());
        for key in 0..50 {
            error = error.with(&format!("key{key}"), long.clone());
        }
        let failed = vec![(Code::SourceError, long.clone(), long); 50];
        let fault = Fault { error, details: Details::Preconditions(failed) };
        let status = tonic::Status::from(fault);
        assert!(status.message().len() <= MESSAGE_BYTES_MAX);
        assert!(status.details().len() < 6 << 10, "{}", status.details().len());
    }
}
