//! The HTTP server in front of the engine.
//!
//! I/O rim.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::StreamExt;
use millrace_terms::{Code, Error};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, AnswerBody, Shared, answer, refusal};
use super::body::{BodyReader, PIECES};
use super::engine::Engine;
use super::failure::{self, Failure};
use super::request::{Credentials, Request};
use super::running::Running;

/// Requests at work at once; further ones wait. Each holds a thread.
const REQUESTS_MAX: usize = 100;
/// Bytes of a refused request's body that are still read, so that the client gets to read the answer
/// instead of a broken connection.
const DRAIN_BYTES_MAX: usize = 64 << 20;

/// What to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine's library.
    pub library: PathBuf,
    /// Its data, made at the first start.
    pub dir: PathBuf,
    /// The one user, who may do everything.
    pub user: String,
    /// The user's password.
    pub password: String,
}

struct Front {
    shared: Shared,
    user: String,
    password: String,
    places: Semaphore,
}

/// Serves ClickHouse's HTTP interface until `shutdown`, then ends running requests in order.
///
/// Every request has a clean session of its own, so `session_id` has no effect. A running query's id
/// is seen in `system.processes` as `Settings['log_comment']`; `KILL QUERY WHERE query_id ...` is
/// translated to it.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if the engine does not start, INTERNAL if the listener fails.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let opening = settings.clone();
    let shared = tokio::task::spawn_blocking(move || open(&opening.library, &opening.dir))
        .await
        .map_err(|e| Error::new(Code::Internal, format!("opening the engine: {e}")))??;
    tracing::info!(version = shared.version, address = ?listener.local_addr().ok(), "serving ClickHouse's HTTP interface");
    let front = Front {
        shared,
        user: settings.user,
        password: settings.password,
        places: Semaphore::new(REQUESTS_MAX),
    };
    let router = Router::new()
        .route("/ping", get(async || "Ok.\n"))
        .route("/replicas_status", get(async || "Ok.\n"))
        .route("/", any(root))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(front));
    // Answers are small and awaited.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|e| Error::new(Code::Internal, format!("serving HTTP: {e}")))
}

fn open(library: &Path, dir: &Path) -> Result<Shared, Error> {
    std::fs::create_dir_all(dir).map_err(|e| crate::unavailable(format!("{}: {e}", dir.display())))?;
    let engine = Engine::open(library, dir)?;
    let facts = engine.session().and_then(|mut session| {
        let output = session.query(b"SELECT version(), timezone()", "TabSeparated", &[])?;
        Ok(String::from_utf8_lossy(output.bytes()).trim().to_owned())
    });
    let facts = facts.map_err(|failure| crate::unavailable(format!("the engine: {}", failure.text)))?;
    let (version, timezone) = facts.split_once('\t').unwrap_or((&facts, "UTC"));
    Ok(Shared {
        engine,
        running: Running::default(),
        version: version.to_owned(),
        timezone: timezone.to_owned(),
    })
}

async fn root(
    State(front): State<Arc<Front>>,
    method: Method,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (pieces, receiver) = mpsc::channel(PIECES);
    let credentials = Credentials::of(&pairs, &headers);
    let is_get = method == Method::GET || method == Method::HEAD;
    let mut request = Request::new(is_get, pairs, &headers);
    if is_get && request.query.is_empty() {
        return Response::new(Body::from("Ok.\n"));
    }
    tokio::spawn(pump(body, pieces));
    let version = front.shared.version.clone();
    if let Err(failure) = front.admit(&credentials) {
        return respond(refusal(&version, &failure));
    }
    if request.query_id.is_empty() {
        request.query_id = uuid::Uuid::new_v4().to_string();
    }
    let (reply, answered) = oneshot::channel();
    let place = Arc::clone(&front);
    let work = move || answer(&place.shared, request, BodyReader::new(receiver), reply);
    tokio::spawn(async move {
        let _place = front.places.acquire().await;
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "a request's thread failed");
        }
    });
    match answered.await {
        Ok(answer) => respond(answer),
        Err(_) => respond(refusal(&version, &Failure::internal("the request was dropped"))),
    }
}

impl Front {
    fn admit(&self, credentials: &Credentials) -> Result<(), Failure> {
        let user = credentials.user.as_deref().unwrap_or("default");
        let password = credentials.password.as_deref().unwrap_or_default();
        if user == self.user && password == self.password {
            return Ok(());
        }
        let message = format!(
            "{user}: Authentication failed: password is incorrect, or there is no user with such name"
        );
        Err(Failure::new(failure::AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", &message))
    }
}

/// Moves a body's pieces to the thread that reads them. An empty piece is its end.
async fn pump(body: Body, pieces: mpsc::Sender<Bytes>) {
    let mut stream = body.into_data_stream();
    let mut unread = 0;
    while let Some(piece) = stream.next().await {
        // Without the empty piece the reader knows that the client went away.
        let Ok(piece) = piece else { return };
        if piece.is_empty() {
            continue;
        }
        let length = piece.len();
        if pieces.send(piece).await.is_err() {
            unread += length;
            if unread > DRAIN_BYTES_MAX {
                return;
            }
        }
    }
    // Nobody may be waiting for the end any more.
    let _gone = pieces.send(Bytes::new()).await;
}

fn respond(answer: Answer) -> Response {
    let body = match answer.body {
        AnswerBody::Whole(bytes) => Body::from(bytes),
        AnswerBody::Pieces(pieces) => Body::from_stream(ReceiverStream::new(pieces)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("x-clickhouse-server-display-name", HeaderValue::from_static("millrace-embedded"));
    for (name, value) in answer.headers {
        // A query id is the client's own text and may be no header value.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
