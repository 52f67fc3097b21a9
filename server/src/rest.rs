//! REST: JSON under `/v1/...`. Routes come from the `google.api.http` of the methods; a request becomes
//! the method's message and calls the very same gRPC services inside this process, so limits, time-outs,
//! access and errors are the same whichever way a request came. A method that is added to the API is here
//! as soon as its `.proto` has the annotation: nothing in this module names one.
//!
//! - `route`: which method a path means (pure).
//! - `request`: path, query and body to one JSON value (pure).
//! - `call`: gRPC inside the process.
//! - `reply`: answers, errors and streams in HTTP.

mod call;
mod reply;
mod request;
mod route;

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use millrace_terms::{Code, Error};
use tonic::service::Routes;

use crate::fault::Fault;
use crate::grpc::REQUEST_BYTES_MAX;
use crate::listen::Peer;
use reply::Refusal;
use route::{Found, Route, Table};

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The only form of a request's body.
const JSON: &str = "application/json";

/// The API over HTTP.
#[derive(Clone)]
pub(crate) struct Rest {
    table: Table,
    services: Routes,
}

impl Rest {
    /// The routes of all methods, over these services.
    ///
    /// # Errors
    /// INTERNAL: a method's annotation does not fit its messages.
    pub(crate) fn new(services: Routes) -> Result<Self, Error> {
        Ok(Self { table: Table::new()?, services })
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        match self.try_answer(&parts, body).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn try_answer(&self, parts: &Parts, body: axum::body::Body) -> Result<Response, Refusal> {
        let (route, variables) = match self.table.find(&parts.method, parts.uri.path()) {
            Found::Route(route, variables) => (route, variables?),
            Found::OtherVerbs(verbs) => return Err(Refusal::other_verbs(&parts.method, &verbs)),
            Found::Nothing => return Err(Refusal::no_such_path(parts.uri.path())),
        };
        let body = read(body).await?;
        require_json(&parts.headers, &body)?;
        let value = request::value(route, variables, parts.uri.query(), &body)?;
        let message = route.method.request.to_wire(value).map_err(request::malformed)?;
        self.call(route, parts, message.into()).await
    }

    async fn call(&self, route: &Route, parts: &Parts, message: Bytes) -> Result<Response, Refusal> {
        let method = &route.method;
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(Peer(address))| *address);
        let request = call::request(message, &parts.headers, peer);
        let services = self.services.clone();
        if method.is_stream {
            let answers = call::streaming(services, &method.path, request).await?;
            Ok(reply::stream(answers, method.response, reply::Frames::of(&parts.headers)))
        } else {
            let answer = call::unary(services, &method.path, request).await?;
            reply::message(answer, method.response)
        }
    }
}

async fn read(body: axum::body::Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, REQUEST_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let what =
                format!("the body of the request is cut off, or longer than {REQUEST_BYTES_MAX} bytes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, invalid(what)))
        }
        Err(_) => {
            let what = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, invalid(what)))
        }
    }
}

/// A body of another type would be read as something that its sender did not mean.
fn require_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if body.is_empty() || essence.as_deref() == Some(JSON) {
        return Ok(());
    }
    let error = Error::new(Code::InvalidArgument, format!("the body of a request is {JSON}"))
        .with_remedy(format!("Send the header `content-type: {JSON}`, or no body."));
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.into()))
}

fn invalid(what: String) -> Fault {
    Error::new(Code::InvalidArgument, what).into()
}
