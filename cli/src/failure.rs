//! What an error looks like to a user: cause, remedy and stable code; and the exit code.
//!
//! Pure, but for [`report`], which writes.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use millrace_proto::v1::{Check, check};
use millrace_terms::{Class, Code, Error};
use tonic_types::{ErrorDetails, StatusExt};

use crate::client::style::{Paint, Tone};

/// The exit code of a defect or of anything not foreseen.
const EXIT_INTERNAL: u8 = 1;
/// The exit code of a request that is wrong.
const EXIT_REQUEST: u8 = 2;
/// The exit code of an environment that is not as it must be.
const EXIT_ENVIRONMENT: u8 = 3;
/// The exit code of a comparison that found differences: nothing failed, but the answer is no.
pub const EXIT_DIFFERENT: u8 = 4;

/// Key of `ErrorInfo.metadata` under which the server sends what to do.
const REMEDY_KEY: &str = "remedy";

/// Key of `ErrorInfo.metadata` for the line of an applied document.
const LINE_KEY: &str = "line";

/// A failure as the user sees it. Codes of a newer server are shown as they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable code, such as `PEER_NOT_FOUND`.
    pub code: String,
    /// Its kind, which decides the exit code.
    pub class: Class,
    /// What was seen.
    pub message: String,
    /// What to do, if known.
    pub remedy: Option<String>,
    /// Fields of the request or objects that are at fault, each with the reason. Empty if the message
    /// names the only one.
    pub faults: Vec<(String, String)>,
    /// The line of the document that is at fault, from 1.
    pub line: Option<u64>,
}

impl Failure {
    /// The exit code of the process (documented in `docs/reference/cli.md`).
    pub fn exit_code(&self) -> u8 {
        exit_code(self.class)
    }
}

/// The exit code of a kind of failure.
pub fn exit_code(class: Class) -> u8 {
    match class {
        Class::InvalidArgument
        | Class::NotFound
        | Class::AlreadyExists
        | Class::FailedPrecondition
        | Class::Unimplemented => EXIT_REQUEST,
        Class::Unavailable
        | Class::DeadlineExceeded
        | Class::Unauthenticated
        | Class::PermissionDenied
        | Class::ResourceExhausted => EXIT_ENVIRONMENT,
        Class::Aborted | Class::DataLoss | Class::Internal => EXIT_INTERNAL,
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().as_str().to_owned(),
            class: error.code().class(),
            message: error.message().to_owned(),
            remedy: Some(error.remedy().to_owned()),
            faults: Vec::new(),
            line: None,
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map(|info| info.reason.clone()).filter(|reason| !reason.is_empty());
        if reason.is_none() && is_broken(&status) {
            let message = format!("the connection to the server broke: {}", status.message());
            return Self::from(&Error::new(Code::ServerUnreachable, message));
        }
        let known: Option<Code> = reason.as_deref().and_then(|reason| reason.parse().ok());
        let remedy = info
            .and_then(|info| info.metadata.get(REMEDY_KEY).cloned())
            .or_else(|| known.map(|code| code.remedy().to_owned()));
        Self {
            code: reason.unwrap_or_else(|| grpc_name(status.code()).to_owned()),
            class: grpc_class(status.code()),
            message: status.message().to_owned(),
            remedy,
            faults: faults(&details),
            line: info.and_then(|info| info.metadata.get(LINE_KEY)?.parse().ok()),
        }
    }
}

/// Whether no server answered: the status was made here, out of a connection's error, or by a proxy.
fn is_broken(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some() || status.code() == tonic::Code::Unavailable
}

/// The fields and objects at fault; none if there is only one, which the message names.
fn faults(details: &ErrorDetails) -> Vec<(String, String)> {
    let fields = details.bad_request().map(|request| request.field_violations.as_slice());
    let fields = fields.unwrap_or_default().iter().map(|v| (v.field.clone(), v.description.clone()));
    let objects = details.precondition_failure().map(|failure| failure.violations.as_slice());
    let objects = objects.unwrap_or_default().iter().map(|v| (v.subject.clone(), v.description.clone()));
    let faults: Vec<_> = fields.chain(objects).collect();
    if faults.len() == 1 { Vec::new() } else { faults }
}

/// The kind of failure that a gRPC code stands for.
fn grpc_class(code: tonic::Code) -> Class {
    match code {
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Class::InvalidArgument,
        tonic::Code::NotFound => Class::NotFound,
        tonic::Code::AlreadyExists => Class::AlreadyExists,
        tonic::Code::FailedPrecondition => Class::FailedPrecondition,
        tonic::Code::Aborted => Class::Aborted,
        tonic::Code::Unavailable | tonic::Code::Cancelled => Class::Unavailable,
        tonic::Code::DeadlineExceeded => Class::DeadlineExceeded,
        tonic::Code::Unauthenticated => Class::Unauthenticated,
        tonic::Code::PermissionDenied => Class::PermissionDenied,
        tonic::Code::ResourceExhausted => Class::ResourceExhausted,
        tonic::Code::Unimplemented => Class::Unimplemented,
        tonic::Code::DataLoss => Class::DataLoss,
        tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal => Class::Internal,
    }
}

/// The name of a gRPC code, for statuses that bear no code of ours (a proxy's, say).
fn grpc_name(code: tonic::Code) -> &'static str {
    match grpc_class(code) {
        Class::InvalidArgument => "INVALID_ARGUMENT",
        Class::NotFound => "NOT_FOUND",
        Class::AlreadyExists => "ALREADY_EXISTS",
        Class::FailedPrecondition => "FAILED_PRECONDITION",
        Class::Aborted => "ABORTED",
        Class::Unavailable => "UNAVAILABLE",
        Class::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Class::Unauthenticated => "UNAUTHENTICATED",
        Class::PermissionDenied => "PERMISSION_DENIED",
        Class::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Class::Unimplemented => "UNIMPLEMENTED",
        Class::DataLoss => "DATA_LOSS",
        Class::Internal => "INTERNAL",
    }
}

/// `error: cause`, then the fields at fault, the remedy and the code, each on its line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for (object, why) in &self.faults {
            write!(f, "\n     at: {object}: {why}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n remedy: {remedy}")?;
        }
        write!(f, "\n   code: {}", self.code)
    }
}

impl std::error::Error for Failure {}

/// The failure that an error at the edge stands for. What carries no code of ours is internal.
pub fn of(error: &anyhow::Error) -> Failure {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.clone();
        }
        if let Some(error) = cause.downcast_ref::<Error>() {
            return Failure::from(error);
        }
        if let Some(status) = cause.downcast_ref::<tonic::Status>() {
            return Failure::from(status.clone());
        }
    }
    let code = Code::Internal;
    // The whole chain, because no layer of it was written for users.
    Failure::from(&Error::new(code, format!("{error:#}")))
}

/// The exit code of a list of checks: that of the first one that failed, 0 if none did.
pub fn of_checks(checks: &[Check]) -> ExitCode {
    match checks.iter().find(|check| check.status() == check::Status::Fail) {
        None => ExitCode::SUCCESS,
        // A newer server's code is not known here; that something is not as it must be, is.
        Some(failed) => {
            let code: Code = failed.code.parse().unwrap_or(Code::InvalidArgument);
            ExitCode::from(exit_code(code.class()))
        }
    }
}

/// Writes the failure for a person and returns the exit code.
pub fn report(error: &anyhow::Error, out: &mut impl Write, paint: Paint) -> ExitCode {
    let failure = of(error);
    let text = failure.to_string().replacen("error:", &paint.paint(Tone::Bad, "error:"), 1);
    // A closed stderr leaves the exit code to speak.
    let _closed = writeln!(out, "{text}");
    ExitCode::from(failure.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_with_cause_field_remedy_and_code() {
        let mut details = ErrorDetails::with_error_info(
            "TABLE_WITHOUT_KEY",
            "millrace.dev",
            [("remedy".to_owned(), "ALTER TABLE t ADD PRIMARY KEY (id);".to_owned())],
        );
        details.add_precondition_failure_violation("TABLE_WITHOUT_KEY", "public.t", "no primary key");
        details.add_precondition_failure_violation("TABLE_WITHOUT_KEY", "public.u", "a partial index");
        let status = tonic::Status::with_error_details(
            tonic::Code::FailedPrecondition,
            "public.t has no primary key and no replica identity",
            details,
        );
        let failure = Failure::from(status);
        assert_eq!(failure.exit_code(), 2);
        insta::assert_snapshot!(failure, @r"
        error: public.t has no primary key and no replica identity
             at: public.t: no primary key
             at: public.u: a partial index
         remedy: ALTER TABLE t ADD PRIMARY KEY (id);
           code: TABLE_WITHOUT_KEY
        ");
    }

    #[test]
    fn a_status_without_details_keeps_its_class() {
        let failure = Failure::from(tonic::Status::permission_denied("no"));
        assert_eq!((failure.code.as_str(), failure.exit_code()), ("PERMISSION_DENIED", 3));
    }

    #[test]
    fn every_code_has_one_of_the_documented_exit_codes() {
        for code in Code::ALL {
            assert!((1..=3).contains(&exit_code(code.class())), "{code}");
        }
        assert_eq!(exit_code(Code::MirrorExists.class()), 2);
        assert_eq!(exit_code(Code::SourceAuth.class()), 3);
        assert_eq!(exit_code(Code::Internal.class()), 1);
    }

    #[test]
    fn the_code_is_found_under_any_context() {
        let error = anyhow::Error::new(Error::new(Code::CatalogUnreachable, "refused")).context("starting");
        assert_eq!(of(&error).exit_code(), 3);
        assert_eq!(of(&anyhow::anyhow!("odd")).exit_code(), 1);
    }
}
