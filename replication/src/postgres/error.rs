//! What the server's and the libraries' errors mean to us, in one match. Pure.
//!
//! Texts of the server are shown, but never its DETAIL, and not the texts of the classes 22 and 23,
//! because those quote row values.

use std::error::Error as _;
use std::io;

use millrace_terms::{Code, Error};

/// The meaning of an error of a session.
pub fn from_sql(doing: &str, error: &tokio_postgres::Error) -> Error {
    if let Some(db) = error.as_db_error() {
        return from_state(doing, db.code().code(), db.message());
    }
    let text = chain(error);
    let code = if is_tls(error) {
        Code::SourceTls
    } else if text.starts_with("authentication error") || text.starts_with("invalid configuration: password")
    {
        Code::SourceAuth
    } else if error.is_closed()
        || caused_by::<io::Error>(error).is_some()
        || text.starts_with("timeout waiting")
        || text.starts_with("error connecting")
    {
        Code::SourceUnreachable
    } else if text.starts_with("error deserializing") || text.starts_with("invalid column") {
        Code::Internal
    } else {
        Code::SourceError
    };
    Error::new(code, format!("{doing}: {text}"))
}

/// The meaning of an error of a connection of our own.
pub(super) fn from_io(doing: &str, error: &io::Error) -> Error {
    let code = if is_tls_io(error) { Code::SourceTls } else { Code::SourceUnreachable };
    Error::new(code, format!("{doing}: {error}"))
}

/// The one match of SQLSTATEs (PostgreSQL documentation, appendix A).
pub(super) fn from_state(doing: &str, state: &str, message: &str) -> Error {
    let code = match state {
        "28P01" | "28000" | "3D000" => Code::SourceAuth,
        "42501" => Code::SourcePermission,
        "53400" => Code::SourceSlotsExhausted,
        // Too many connections, or walsenders of sessions that are about to end: it passes.
        "53300" => Code::SourceUnreachable,
        "55006" => Code::SlotInUse,
        "55P03" => Code::SourceBlocked,
        "42704" if message.contains("replication slot") => Code::SlotLost,
        "42704" if message.contains("publication") => Code::PublicationMissing,
        "42710" => Code::SlotExists,
        "42P01" | "3F000" => Code::SourceTableMissing,
        "55000" if message.contains("wal_level") => Code::SourceWalLevel,
        "55000" if is_slot_lost(message) => Code::SlotLost,
        "58P01" if message.contains("WAL segment") => Code::SlotLost,
        "55000" if message.contains("recovery is in progress") => Code::SourceInRecovery,
        "25006" if message.contains("recovery") => Code::SourceInRecovery,
        "0A000" if message.contains("logical decoding") && message.contains("recovery") => {
            Code::SourceInRecovery
        }
        // Characters that the server cannot give as UTF-8: they will not be others the next time.
        "22021" | "22P05" => Code::ValueUnrepresentable,
        "57P01" | "57P02" | "57P03" | "57P05" => Code::SourceUnreachable,
        _ if state.starts_with("08") => Code::SourceUnreachable,
        _ => Code::SourceError,
    };
    let shown = match state.get(..2) {
        Some("22" | "23") => "the server refused a value",
        _ => message,
    };
    let error = Error::new(code, format!("{doing}: {shown} (SQLSTATE {state})")).with("sqlstate", state);
    if state == "3D000" {
        return error.with_remedy("Correct the peer's database: the server has none of that name.");
    }
    error
}

/// What the server says of a slot that it has invalidated, in the words of 14 to 18.
fn is_slot_lost(message: &str) -> bool {
    [
        "invalidated",
        "can no longer get changes",
        "can no longer access replication slot",
        "cannot read from logical replication slot",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Display texts of an error and its causes.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn caused_by<T: std::error::Error + 'static>(error: &tokio_postgres::Error) -> Option<&T> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
        || caused_by::<io::Error>(error).is_some_and(is_tls_io)
}

fn is_tls_io(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_their_codes() {
        for (state, text, code) in [
            ("28P01", "password authentication failed", Code::SourceAuth),
            ("28000", "no pg_hba.conf entry", Code::SourceAuth),
            ("42501", "permission denied for table t", Code::SourcePermission),
            ("53400", "all replication slots are in use", Code::SourceSlotsExhausted),
            ("55006", "replication slot \"s\" is active for PID 7", Code::SlotInUse),
            ("42704", "replication slot \"s\" does not exist", Code::SlotLost),
            ("42704", "publication \"p\" does not exist", Code::PublicationMissing),
            ("55000", "logical decoding requires wal_level >= logical", Code::SourceWalLevel),
            ("55000", "can no longer get changes from replication slot \"s\"", Code::SlotLost),
            ("55000", "can no longer access replication slot \"s\"", Code::SlotLost),
            ("58P01", "requested WAL segment 01 has already been removed", Code::SlotLost),
            ("57P03", "the database system is starting up", Code::SourceUnreachable),
            ("08006", "connection lost", Code::SourceUnreachable),
            ("XX000", "something new", Code::SourceError),
            ("", "no state at all", Code::SourceError),
        ] {
            assert_eq!(from_state("streaming", state, text).code(), code, "{state} {text}");
        }
    }

    #[test]
    fn row_values_are_not_shown() {
        let error = from_state("reselecting", "22P02", "invalid input syntax for type integer: \"secret\"");
        assert!(!error.message().contains("secret"));
        assert!(error.message().contains("22P02"));
    }
}
