//! What PostgreSQL's errors mean for the catalog: one match, and everything goes through it.
//!
//! Pure: no I/O. A server's DETAIL and a connection string may hold values, so neither is shown.

use std::error::Error as _;

use deadpool_postgres::{PoolError, TimeoutType};
use millrace_terms::{Code, Error};
use tokio_postgres::error::{DbError, SqlState};

use crate::connection::{POOL_SIZE_MAX, POOL_WAIT};

/// An error of a statement or of a connection.
pub(crate) fn database(error: tokio_postgres::Error) -> Error {
    if let Some(answer) = error.as_db_error() {
        return refused(answer);
    }
    // The driver keeps its kinds to itself. What failed while talking has an I/O error or none as
    // its cause, or is named so; the rest is a defect of ours: a wrong type or column.
    let text = error.to_string();
    let talking = error.is_closed()
        || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
        || ["error performing TLS", "timeout", "authentication error", "invalid configuration"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
    let text = match error.source() {
        Some(cause) => format!("{text}: {cause}"),
        None => text,
    };
    if talking { unreachable(text) } else { Error::new(Code::CatalogError, text) }
}

/// An error of the pool.
pub(crate) fn pool(error: PoolError) -> Error {
    match error {
        PoolError::Backend(error) => database(error),
        PoolError::Timeout(TimeoutType::Wait) => Error::new(
            Code::CatalogUnreachable,
            format!("none of {POOL_SIZE_MAX} catalog connections became free in {} s", POOL_WAIT.as_secs()),
        )
        .with_remedy("Look for slow statements in the catalog's PostgreSQL, or start another process."),
        other => unreachable(other.to_string()),
    }
}

/// The catalog cannot be reached.
fn unreachable(text: String) -> Error {
    Error::new(Code::CatalogUnreachable, format!("the catalog cannot be reached: {text}"))
}

/// The server answered with an error.
fn refused(answer: &DbError) -> Error {
    let state = answer.code();
    let text = format!("{} (SQLSTATE {})", answer.message(), state.code());
    let unreachable = |remedy: &str| {
        Error::new(Code::CatalogUnreachable, format!("the catalog refused us: {text}")).with_remedy(remedy)
    };
    match state.code() {
        "28P01" | "28000" => unreachable(
            "Correct user and password in MILLRACE_CATALOG_URL, and pg_hba.conf of the catalog's PostgreSQL.",
        ),
        "3D000" => unreachable("Create the database that MILLRACE_CATALOG_URL names, or correct the name."),
        "53300" => unreachable(
            "Raise max_connections of the catalog's PostgreSQL, or run fewer processes of Millrace.",
        ),
        // Connection exceptions, and a server that is starting, stopping or crashed.
        code if code.starts_with("08") || code.starts_with("57P") => {
            unreachable("Check that the catalog's PostgreSQL runs; it is tried again by itself.")
        }
        // A relation or column that is not there: the schema is older than this release.
        _ if *state == SqlState::UNDEFINED_TABLE || *state == SqlState::UNDEFINED_COLUMN => Error::new(
            Code::CatalogVersion,
            format!("the catalog has not the schema of this release: {text}"),
        ),
        _ => Error::new(Code::CatalogError, format!("the catalog answered: {text}")),
    }
}

/// The write of an attempt that another one has replaced.
pub(crate) fn lease_lost(what: impl std::fmt::Display) -> Error {
    Error::new(Code::LeaseLost, format!("another attempt has taken over {what}"))
}

/// What only a defect of ours can bring about.
pub(crate) fn internal(what: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, what.to_string())
}
