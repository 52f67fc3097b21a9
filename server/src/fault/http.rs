//! How a failed call looks over HTTP: its status, and the JSON of its `google.rpc.Status`.
//!
//! Pure: no I/O.

use axum::http::StatusCode;
use millrace_terms::Code;
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt as _;

/// What the names of codes begin with that are about a user's database.
const OF_PEERS: [&str; 4] = ["SOURCE_", "DESTINATION_", "SLOT_", "DECODING_"];

/// The HTTP status of a failed call: that of its gRPC code (AIP-193), with two exceptions. A user's database
/// that cannot be reached or refuses its password is neither our outage (503) nor the caller's lack of
/// rights (401, 403): it is 424. What is not built is no failure of the server either: it is 400, naming
/// the field.
pub(crate) fn http_code(status: &Status) -> StatusCode {
    use tonic::Code as Grpc;
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    let is_peers = OF_PEERS.iter().any(|prefix| reason.starts_with(prefix)) && reason.parse::<Code>().is_ok();
    match status.code() {
        Grpc::Unavailable
        | Grpc::Unauthenticated
        | Grpc::PermissionDenied
        | Grpc::ResourceExhausted
        | Grpc::DataLoss
            if is_peers =>
        {
            StatusCode::FAILED_DEPENDENCY
        }
        Grpc::Ok => StatusCode::OK,
        Grpc::InvalidArgument | Grpc::FailedPrecondition | Grpc::OutOfRange | Grpc::Unimplemented => {
            StatusCode::BAD_REQUEST
        }
        Grpc::Unauthenticated => StatusCode::UNAUTHORIZED,
        Grpc::PermissionDenied => StatusCode::FORBIDDEN,
        Grpc::NotFound => StatusCode::NOT_FOUND,
        Grpc::AlreadyExists | Grpc::Aborted => StatusCode::CONFLICT,
        Grpc::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Grpc::Unavailable | Grpc::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Grpc::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Grpc::Internal | Grpc::DataLoss | Grpc::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The `google.rpc.Status` in JSON: `code` (of gRPC), `message`, and the details, each with its `@type`.
pub(crate) fn to_json(status: &Status) -> Value {
    let details = status.get_error_details();
    let mut shown = Vec::new();
    let mut show = |kind: &str, fields: Value| {
        let mut detail = json!({ "@type": format!("type.googleapis.com/google.rpc.{kind}") });
        if let (Some(detail), Value::Object(fields)) = (detail.as_object_mut(), fields) {
            detail.extend(fields);
        }
        shown.push(detail);
    };
    if let Some(info) = details.error_info() {
        // Sorted, so that an answer is the same every time.
        let metadata: std::collections::BTreeMap<_, _> = info.metadata.iter().collect();
        show("ErrorInfo", json!({ "reason": info.reason, "domain": info.domain, "metadata": metadata }));
    }
    if let Some(request) = details.bad_request() {
        let violations = request.field_violations.iter();
        let violations: Vec<Value> =
            violations.map(|v| json!({ "field": v.field, "description": v.description })).collect();
        show("BadRequest", json!({ "field_violations": violations }));
    }
    if let Some(failure) = details.precondition_failure() {
        let violation = |v: &tonic_types::PreconditionViolation| json!({ "type": v.r#type, "subject": v.subject, "description": v.description });
        let violations: Vec<Value> = failure.violations.iter().map(violation).collect();
        show("PreconditionFailure", json!({ "violations": violations }));
    }
    if let Some(wait) = details.retry_info().and_then(|info| info.retry_delay) {
        show(
            "RetryInfo",
            json!({ "retry_delay": format!("{}.{:03}s", wait.as_secs(), wait.subsec_millis()) }),
        );
    }
    if let Some(message) = details.localized_message() {
        show("LocalizedMessage", json!({ "locale": message.locale, "message": message.message }));
    }
    json!({ "code": i32::from(status.code()), "message": status.message(), "details": shown })
}

#[cfg(test)]
mod tests {
    use millrace_terms::Error;

    use super::super::{Fault, Violations};
    use super::*;

    fn status(code: Code) -> Status {
        Status::from(Fault::from(Error::new(code, "it failed")))
    }

    #[test]
    fn only_our_own_failures_are_5xx() {
        for code in Code::ALL {
            let http = http_code(&status(*code));
            let ours = [
                Code::Internal,
                Code::ProtocolViolation,
                Code::CatalogUnreachable,
                Code::CatalogError,
                Code::TemporalUnreachable,
                Code::NoWorkers,
                Code::Cancelled,
                Code::RequestTimeout,
                Code::ServerUnreachable,
                Code::EmbeddedUnavailable,
            ];
            assert_eq!(http.is_server_error(), ours.contains(code), "{code}: {http}");
        }
        assert_eq!(http_code(&status(Code::SourceAuth)), StatusCode::FAILED_DEPENDENCY);
        assert_eq!(http_code(&status(Code::SourceWalLevel)), StatusCode::BAD_REQUEST);
        assert_eq!(http_code(&status(Code::EditConflict)), StatusCode::CONFLICT);
        assert_eq!(http_code(&status(Code::MirrorNotFound)), StatusCode::NOT_FOUND);
        assert_eq!(http_code(&status(Code::ServerBusy)), StatusCode::TOO_MANY_REQUESTS);
    }

    #[test]
    fn an_error_tells_in_json_what_it_tells_in_grpc() {
        let json = to_json(&status(Code::MirrorState));
        assert_eq!((&json["code"], &json["message"]), (&9.into(), &"it failed".into()));
        let info = &json["details"][0];
        assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!((&info["reason"], &info["domain"]), (&"MIRROR_STATE".into(), &"millrace.dev".into()));
        assert_eq!(info["metadata"]["remedy"], Code::MirrorState.remedy());
        let mut violations = Violations::default();
        violations.add("mirror.name", "must not be empty");
        let json = to_json(&Status::from(violations.into_result().unwrap_err()));
        assert_eq!(json["details"][1]["field_violations"][0]["field"], "mirror.name");
    }
}
