//! Which web pages may ask, for REST and gRPC-Web alike. A browser sends the page's origin along; a page of
//! another origin is let in only if the setting names it, and without the setting none is. That also keeps
//! pages from sending what needs no answer, such as a pause, to a server on the reader's own machine.
//! Programs send no origin and are not concerned.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use futures::future::BoxFuture;
use millrace_terms::{Code, Error, Result};
use tower::{Layer, Service};

/// How long a browser may remember what is allowed, in seconds.
const MAX_AGE_SECONDS: &str = "7200";
/// What allowed pages may send: the API's verbs.
const VERBS: &str = "GET, POST, PATCH, DELETE";
/// Headers that allowed pages may send.
const SENT: &str = "authorization, content-type, x-request-id, x-grpc-web, x-user-agent, grpc-timeout";
/// Headers of ours that allowed pages may read.
const READ: &str = "x-request-id, grpc-status, grpc-message, grpc-status-details-bin";

/// The setting, as a layer of a server.
#[derive(Debug, Clone)]
pub(crate) struct Cors {
    allowed: Arc<Vec<String>>,
}

/// What a request's origin means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// There is none, or it is the server's own.
    Own,
    /// Another one, which is allowed.
    Allowed(HeaderValue),
    /// Another one, which is not.
    Foreign,
}

impl Cors {
    /// The pages of these origins are allowed; those of any by `*`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no origin.
    pub(crate) fn new(origins: &[String]) -> Result<Self> {
        for origin in origins.iter().filter(|origin| *origin != "*") {
            let uri = origin.parse::<Uri>().ok();
            let is_origin = uri.is_some_and(|uri| {
                uri.scheme().is_some()
                    && uri.authority().is_some()
                    && uri.path() == "/"
                    && !origin.ends_with('/')
            });
            if !is_origin {
                let error = Error::new(Code::InvalidArgument, format!("{origin} is no origin of a web page"));
                return Err(error.with_remedy(
                    "Give MILLRACE_CORS_ORIGINS as https://HOST[:PORT], several with commas, or *.",
                ));
            }
        }
        Ok(Self { allowed: Arc::new(origins.to_vec()) })
    }

    fn judge(&self, headers: &HeaderMap, target: &Uri) -> Verdict {
        let Some(origin) = headers.get(header::ORIGIN) else { return Verdict::Own };
        let Ok(text) = origin.to_str() else { return Verdict::Foreign };
        // HTTP/2 has it in the target.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or(target.authority().map(Authority::as_str));
        let authority = text.split_once("://").map(|(_, authority)| authority);
        if host.is_some() && authority == host {
            return Verdict::Own;
        }
        match self.allowed.iter().any(|allowed| allowed == "*" || allowed == text) {
            true => Verdict::Allowed(origin.clone()),
            false => Verdict::Foreign,
        }
    }
}

impl<S> Layer<S> for Cors {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { cors: self.clone(), inner }
    }
}

/// A service that answers allowed pages only.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<S> {
    cors: Cors,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Response<R>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asks_before = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        match self.cors.judge(request.headers(), request.uri()) {
            Verdict::Own => Box::pin(self.inner.call(request)),
            Verdict::Foreign => Box::pin(std::future::ready(Ok(empty(StatusCode::FORBIDDEN)))),
            Verdict::Allowed(origin) if asks_before => {
                let mut response = empty(StatusCode::NO_CONTENT);
                allow(response.headers_mut(), origin);
                Box::pin(std::future::ready(Ok(response)))
            }
            Verdict::Allowed(origin) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let mut response = answer.await?;
                    allow(response.headers_mut(), origin);
                    Ok(response)
                })
            }
        }
    }
}

fn empty<R: Default>(status: StatusCode) -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = status;
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    let text = HeaderValue::from_static;
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, text("origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, text(VERBS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, text(SENT));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, text(READ));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, text(MAX_AGE_SECONDS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(allowed: &[&str], origin: Option<&str>) -> Verdict {
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("millrace.example:8113"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        Cors::new(&allowed).unwrap().judge(&headers, &Uri::from_static("/v1/peers"))
    }

    #[test]
    fn only_named_pages_may_ask() {
        let ui = "https://ui.example";
        assert_eq!(judged(&[], None), Verdict::Own);
        assert_eq!(judged(&[], Some("https://millrace.example:8113")), Verdict::Own);
        assert_eq!(judged(&[], Some(ui)), Verdict::Foreign);
        assert_eq!(judged(&[], Some("null")), Verdict::Foreign);
        assert_eq!(judged(&[ui], Some("https://ui.example.evil")), Verdict::Foreign);
        assert_eq!(judged(&[ui], Some(ui)), Verdict::Allowed(HeaderValue::from_static("https://ui.example")));
        assert!(matches!(judged(&["*"], Some(ui)), Verdict::Allowed(_)));
        for bad in ["ui.example", "https://ui.example/", "https://ui.example/app", ""] {
            assert!(Cors::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
