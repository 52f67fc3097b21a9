//! Who calls, and whether they may: the one place that decides it, for gRPC and REST alike.
//!
//! - `roles`: which method needs which role, and what it changes (pure).
//! - `limits`: how much one caller may ask for.
//! - `audit`: what of a call is written into the audit log.
//!
//! Open to everybody are health (`/healthz`, `/readyz`, `grpc.health.v1`), gRPC reflection and the API's own
//! description: they tell nothing of the installation.

pub(crate) mod audit;
mod limits;
pub(crate) mod roles;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use millrace_catalog::Catalog;
use millrace_catalog::tokens::{Presented, Role, Token};
use millrace_terms::{Code, Error, Result};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::limits::Limits;

/// How long what the catalog says of a token is believed: a token that was revoked through another server is
/// good for this long at most.
const BELIEVED: Duration = Duration::from_secs(5);
/// Tokens remembered at most. Beyond it all are forgotten, and read and verified again.
const REMEMBERED_MAX: usize = 10_000;
/// Tokens verified at once: each takes a core and 4 MiB for some milliseconds. Whoever shows wrong secrets
/// waits for others who do.
const VERIFYING_MAX: usize = 2;
/// Name of a caller where none is asked for.
const ANYBODY: &str = "anybody";

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The token's name.
    pub(crate) name: String,
    /// What the token allows.
    pub(crate) role: Role,
}

/// Whether callers must show a token.
#[derive(Debug)]
pub(crate) enum Door {
    /// Everybody is an admin: on loopback only.
    Open,
    /// One of the tokens of this catalog is needed.
    Guarded(Catalog),
}

/// See the module.
pub(crate) struct Access {
    door: Door,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    verifying: Semaphore,
    limits: Limits,
}

/// A token that was verified. It is found by the hash of its whole text, so that no secret is kept.
#[derive(Clone)]
struct Remembered {
    token: Token,
    hash: Arc<str>,
    read_at: Instant,
}

impl Access {
    /// Nobody is known yet. Each caller may ask `requests_per_second`, 0 for any number.
    pub(crate) fn new(door: Door, requests_per_second: u32) -> Self {
        Self {
            door,
            remembered: Mutex::default(),
            verifying: Semaphore::new(VERIFYING_MAX),
            limits: Limits::new(requests_per_second),
        }
    }

    /// Who calls. `headers` are those of the HTTP request, gRPC's metadata among them.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a token that is good.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Result<Caller> {
        let catalog = match &self.door {
            Door::Open => return Ok(Caller { name: ANYBODY.to_owned(), role: Role::Admin }),
            Door::Guarded(catalog) => catalog,
        };
        let token = self.token(catalog, bearer(headers)?).await?;
        if token.expires_at.is_some_and(|end| end <= Timestamp::now()) {
            return Err(refused(format!("the token {} has expired", token.name)).with("token", token.name));
        }
        Ok(Caller { name: token.name, role: token.role })
    }

    /// Lets a request of a caller through; it is at work until the permit is dropped.
    ///
    /// # Errors
    /// RATE_LIMITED.
    pub(crate) fn admit(&self, caller: &Caller) -> Result<Option<OwnedSemaphorePermit>> {
        match self.door {
            Door::Open => Ok(None),
            Door::Guarded(_) => self.limits.admit(&caller.name).map(Some),
        }
    }

    /// Forgets what is known of a token: it was revoked through this server.
    pub(crate) fn forget(&self, id: &str) {
        self.lock().retain(|_, known| known.token.id != id);
    }

    async fn token(&self, catalog: &Catalog, text: &str) -> Result<Token> {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let known = self.lock().get(&digest).cloned();
        if let Some(known) = &known
            && known.read_at.elapsed() < BELIEVED
        {
            return Ok(known.token.clone());
        }
        let presented = Presented::parse(text).ok_or_else(unknown)?;
        let Some((token, hash)) = catalog.find_token(&presented.id).await? else {
            self.forget(&presented.id);
            return Err(unknown());
        };
        // The same text and the same hash: what was proven once stays proven.
        if known.is_none_or(|known| *known.hash != *hash) {
            self.verify(presented, hash.clone()).await?;
        }
        catalog.note_token_use(&token.id).await?;
        let remembered = Remembered { token: token.clone(), hash: hash.into(), read_at: Instant::now() };
        let mut all = self.lock();
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(digest, remembered);
        Ok(token)
    }

    async fn verify(&self, presented: Presented, hash: String) -> Result<()> {
        let _place = self.verifying.acquire().await;
        let matches = tokio::task::spawn_blocking(move || presented.matches(&hash)).await;
        match matches {
            Ok(true) => Ok(()),
            Ok(false) => Err(unknown()),
            Err(error) => Err(Error::new(Code::Internal, format!("verifying a token: {error}"))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Remembered>> {
        // Every change of it is whole, so a panic elsewhere leaves nothing half done.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a caller may call a method, such as `CreateMirror` or `/millrace.v1.MirrorService/CreateMirror`.
///
/// # Errors
/// PERMISSION_DENIED, naming the role that is needed.
pub(crate) fn permit(caller: &Caller, method: &str) -> Result<()> {
    let method = method.rsplit_once('/').map_or(method, |(_, name)| name);
    let needed = roles::needed(method);
    if caller.role >= needed {
        return Ok(());
    }
    let message = format!("{method} needs the role {needed}; the token {} has {}", caller.name, caller.role);
    Err(Error::new(Code::PermissionDenied, message)
        .with("method", method)
        .with("role_needed", needed.as_str())
        .with("token", &caller.name))
}

/// The token of `authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let value = headers.get(header::AUTHORIZATION).ok_or_else(|| refused("the request shows no token"))?;
    let malformed = || refused("the authorization header is not `Bearer TOKEN`");
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    // RFC 9110, section 11.1: schemes are told apart without case.
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(malformed()) }
}

fn unknown() -> Error {
    refused("the token is not known: it was revoked, or is another installation's")
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Code::Unauthenticated, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn the_token_is_read_off_the_authorization_header() {
        assert_eq!(bearer(&headers("Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer(&headers("bearer  abc ")).unwrap(), "abc");
        for wrong in [headers("Basic abc"), headers("abc"), headers(""), HeaderMap::new()] {
            assert_eq!(bearer(&wrong).unwrap_err().code(), Code::Unauthenticated);
        }
    }

    #[test]
    fn a_role_allows_what_the_lower_ones_do_and_no_more() {
        let caller = |role| Caller { name: "ci".into(), role };
        assert_eq!(permit(&caller(Role::Viewer), "/millrace.v1.MirrorService/GetMirror"), Ok(()));
        assert_eq!(permit(&caller(Role::Admin), "GetMirror"), Ok(()));
        let refused = permit(&caller(Role::Viewer), "/millrace.v1.MirrorService/PauseMirror").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(refused.message(), "PauseMirror needs the role OPERATOR; the token ci has VIEWER");
    }
}
