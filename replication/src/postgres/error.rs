//! What the server's and the libraries' errors mean to us, in one match. Pure.
//!
//! Texts of the server are shown, but never its DETAIL, and not the texts of the classes 22 and 23,
//! because those quote row values.

use std::error::Error as _;
use std::io;

use millrace_terms::{Code, Error};
use pgwire_replication::PgWireError;

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

/// The meaning of an error of a replication connection, whose library folds the server's answer
/// into one text that ends in `(SQLSTATE xxxxx)`.
pub fn from_replication(doing: &str, error: &PgWireError) -> Error {
    let code = match error {
        PgWireError::Server(text) => {
            let (message, state) = split_state(text);
            return from_state(doing, state, message);
        }
        PgWireError::Io(_) | PgWireError::Task(_) => Code::SourceUnreachable,
        PgWireError::Auth(_) => Code::SourceAuth,
        PgWireError::Tls(_) => Code::SourceTls,
        PgWireError::Protocol(_) => Code::ProtocolViolation,
        PgWireError::MessageTooLarge { .. } => Code::TableUnsupported,
        // The library's word for a connection whose end was already told.
        PgWireError::Internal(text) if text.contains("already joined") => Code::SourceUnreachable,
        _ => Code::SourceError,
    };
    Error::new(code, format!("{doing}: {error}"))
}

/// The one match of SQLSTATEs (PostgreSQL documentation, appendix A).
fn from_state(doing: &str, state: &str, message: &str) -> Error {
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

/// Splits `text (SQLSTATE xxxxx)...` into text and state; the state is empty if there is none.
fn split_state(text: &str) -> (&str, &str) {
    const MARK: &str = " (SQLSTATE ";
    let Some(at) = text.rfind(MARK) else { return (text, "") };
    let state = text.get(at + MARK.len()..at + MARK.len() + 5).unwrap_or("");
    (&text[..at], state)
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
        || caused_by::<io::Error>(error)
            .and_then(io::Error::get_ref)
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Code {
        from_replication("streaming", &PgWireError::Server(text.into())).code()
    }

    #[test]
    fn states_have_their_codes() {
        for (text, code) in [
            ("password authentication failed (SQLSTATE 28P01)", Code::SourceAuth),
            ("no pg_hba.conf entry (SQLSTATE 28000)", Code::SourceAuth),
            ("permission denied for table t (SQLSTATE 42501)", Code::SourcePermission),
            ("all replication slots are in use (SQLSTATE 53400)", Code::SourceSlotsExhausted),
            ("replication slot \"s\" is active for PID 7 (SQLSTATE 55006)", Code::SlotInUse),
            ("replication slot \"s\" does not exist (SQLSTATE 42704)", Code::SlotLost),
            ("publication \"p\" does not exist (SQLSTATE 42704)", Code::PublicationMissing),
            ("logical decoding requires wal_level >= logical (SQLSTATE 55000)", Code::SourceWalLevel),
            ("can no longer get changes from replication slot \"s\" (SQLSTATE 55000)", Code::SlotLost),
            ("can no longer access replication slot \"s\" (SQLSTATE 55000)", Code::SlotLost),
            ("requested WAL segment 01 has already been removed (SQLSTATE 58P01)", Code::SlotLost),
            ("the database system is starting up (SQLSTATE 57P03)", Code::SourceUnreachable),
            ("connection lost (SQLSTATE 08006)", Code::SourceUnreachable),
            ("something new (SQLSTATE XX000)", Code::SourceError),
            ("no state at all", Code::SourceError),
        ] {
            assert_eq!(server(text), code, "{text}");
        }
    }

    #[test]
    fn row_values_are_not_shown() {
        let error = from_state("reselecting", "22P02", "invalid input syntax for type integer: \"secret\"");
        assert!(!error.message().contains("secret"));
        assert!(error.message().contains("22P02"));
    }
}
