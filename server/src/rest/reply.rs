//! Answers in HTTP: messages as JSON, errors as the JSON of `google.rpc.Status`, streams line by line.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method as Verb, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _};
use millrace_proto::json::Codec;
use millrace_terms::{Code, Error};
use serde_json::json;
use tonic::Status;
use tonic::codec::Streaming;
use tonic_types::StatusExt as _;

use super::JSON;
use crate::fault::{self, Fault};
use crate::grpc::REQUEST_ID_KEY;

/// Content type of a stream whose lines are JSON values.
const JSON_LINES: &str = "application/x-ndjson";
/// How often a silent stream of events says that it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Where callers who went astray find the way.
const SEE_DOCS: &str = "See /docs or /openapi.json for the methods.";

/// A request that is not answered with what it asked for.
pub(super) struct Refusal {
    http: StatusCode,
    status: Status,
    allow: Option<String>,
}

impl Refusal {
    /// A refusal by the face itself, before any method was called.
    pub(super) fn new(http: StatusCode, fault: Fault) -> Self {
        Self { http, status: fault.into(), allow: None }
    }

    /// Nothing is called so.
    pub(super) fn no_such_path(path: &str) -> Self {
        let error = Error::new(Code::Unimplemented, format!("there is nothing at {path}"));
        Self::new(StatusCode::NOT_FOUND, error.with_remedy(SEE_DOCS).into())
    }

    /// There is something, for other verbs.
    pub(super) fn other_verbs(verb: &Verb, allowed: &[Verb]) -> Self {
        let allowed = allowed.iter().map(Verb::as_str).collect::<Vec<_>>().join(", ");
        let error = Error::new(Code::Unimplemented, format!("{verb} is not possible here, but {allowed} is"));
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, error.with_remedy(SEE_DOCS).into());
        Self { allow: Some(allowed), ..refusal }
    }

    pub(super) fn into_response(self) -> Response {
        let body = fault::to_json(&self.status).to_string();
        let mut response = (self.http, [(header::CONTENT_TYPE, JSON)], body).into_response();
        pass_back(self.status.metadata().as_ref(), response.headers_mut());
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if self.http == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let details = self.status.get_error_details();
        if let Some(wait) = details.retry_info().and_then(|info| info.retry_delay) {
            // Whole seconds, and not before the time is over (RFC 9110, section 10.2.3).
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { http: fault::http_code(&status), status, allow: None }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Status::from(fault).into()
    }
}

/// One answer.
pub(super) fn message(answer: tonic::Response<Bytes>, codec: Codec) -> Result<Response, Refusal> {
    let (metadata, message, _) = answer.into_parts();
    let mut response = ([(header::CONTENT_TYPE, JSON)], json_of(&message, codec)?).into_response();
    pass_back(metadata.as_ref(), response.headers_mut());
    Ok(response)
}

fn json_of(message: &[u8], codec: Codec) -> Result<Vec<u8>, Status> {
    codec.to_json(message).map_err(|error| Status::internal(format!("an answer has no JSON: {error}")))
}

/// The request's id goes back to who sent it.
fn pass_back(from: &HeaderMap, to: &mut HeaderMap) {
    if let Some(id) = from.get(REQUEST_ID_KEY) {
        to.insert(REQUEST_ID_KEY, id.clone());
    }
}

/// How the messages of a stream are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// One a line; the last line of a stream that fails is `{"error": ...}`.
    Lines,
    /// Server-sent events, for a browser's EventSource; one that fails ends with an event `error`.
    Events,
}

impl Frames {
    /// What the caller asks for by `accept`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
            Self::Events
        } else {
            Self::Lines
        }
    }
}

/// A stream of answers, each sent as soon as it is there.
pub(super) fn stream(answers: tonic::Response<Streaming<Bytes>>, codec: Codec, frames: Frames) -> Response {
    let (metadata, messages, _) = answers.into_parts();
    let messages = messages.map(move |message| message.and_then(|message| json_of(&message, codec)));
    let mut response = match frames {
        Frames::Lines => lines(messages),
        Frames::Events => events(messages),
    };
    pass_back(metadata.as_ref(), response.headers_mut());
    response
}

fn lines(messages: impl Stream<Item = Result<Vec<u8>, Status>> + Send + 'static) -> Response {
    let lines = messages.map(|message| {
        let mut line = match message {
            Ok(json) => json,
            Err(status) => json!({ "error": fault::to_json(&status) }).to_string().into_bytes(),
        };
        line.push(b'\n');
        Ok::<_, Infallible>(line)
    });
    ([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response()
}

fn events(messages: impl Stream<Item = Result<Vec<u8>, Status>> + Send + 'static) -> Response {
    let events = messages.map(|message| {
        Ok::<_, Infallible>(match message {
            Ok(json) => Event::default().data(String::from_utf8_lossy(&json)),
            Err(status) => Event::default().event("error").data(fault::to_json(&status).to_string()),
        })
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE_INTERVAL)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_fails_says_so_in_its_last_line() {
        let messages = || {
            let gone = Status::from(Fault::from(Error::new(Code::Cancelled, "the server is shutting down")));
            futures::stream::iter([Ok(b"{\"a\":1}".to_vec()), Err(gone)])
        };
        let text = body(lines(messages())).await;
        let (first, last) = text.trim_end().split_once('\n').unwrap();
        assert_eq!(first, "{\"a\":1}");
        let last: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!(last["error"]["message"], "the server is shutting down");
        let text = body(events(messages())).await;
        assert!(text.starts_with("data: {\"a\":1}\n\nevent: error\ndata: {"), "{text}");
    }

    #[tokio::test]
    async fn a_wrong_verb_is_told_which_are_right() {
        let response = Refusal::other_verbs(&Verb::GET, &[Verb::POST, Verb::DELETE]).into_response();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "POST, DELETE");
        assert!(body(response).await.contains("GET is not possible here"));
    }
}
