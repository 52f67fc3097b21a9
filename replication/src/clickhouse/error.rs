//! From the server's error codes to ours: the one place. Pure.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use ::clickhouse::error::Error as ClientError;
use millrace_terms::{Code, Error};

/// What of a server's message is kept: its first words tell the cause, stack and query follow.
const MESSAGE_CHARS_MAX: usize = 400;

/// The error for a failure of the client or the server.
pub(super) fn classify(error: &ClientError) -> Error {
    match error {
        ClientError::BadResponse(text) => from_server(text),
        ClientError::Network(source) => {
            let message = format!("the connection failed: {}", chain(source.as_ref()));
            let code =
                if is_tls(source.as_ref()) { Code::DestinationTls } else { Code::DestinationUnreachable };
            Error::new(code, message)
        }
        ClientError::TimedOut => silent(Duration::ZERO),
        ClientError::InvalidParams(source) => {
            Error::new(Code::InvalidArgument, format!("the URL cannot be used: {source}"))
                .with("field", "url")
        }
        // What is left are answers that the client cannot read.
        other => Error::new(Code::DestinationError, format!("the answer cannot be read: {}", variant(other))),
    }
}

/// No answer came in time.
pub(super) fn silent(limit: Duration) -> Error {
    let message = match limit.as_secs() {
        0 => "the server neither took data nor answered for too long".to_owned(),
        seconds => format!("the server did not answer within {seconds} s"),
    };
    Error::new(Code::DestinationUnreachable, message)
}

/// An error that the server answered: `Code: 60. DB::Exception: Table ... (UNKNOWN_TABLE) (version ..)`.
fn from_server(text: &str) -> Error {
    let Some(number) = server_code(text) else {
        // Not ClickHouse's own words: a proxy's, or those of something else on that port.
        let message = format!("the server answered: {}", shortened(text));
        return Error::new(Code::DestinationUnreachable, message);
    };
    let code = code_of(number);
    let message = if code == Code::ValueUnrepresentable {
        // The server's words would show the value.
        format!("ClickHouse refused a value (code {number}{})", name_of(text))
    } else {
        shortened(text)
    };
    Error::new(code, message).with("clickhouse_code", number.to_string())
}

/// By ClickHouse's codes (its source, `ErrorCodes.cpp`; they are never reused).
fn code_of(number: u32) -> Code {
    match number {
        // UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED
        192 | 193 | 194 | 516 => Code::DestinationAuth,
        // READONLY, DATABASE_ACCESS_DENIED, ACCESS_DENIED
        164 | 291 | 497 => Code::DestinationPermission,
        // TIMEOUT_EXCEEDED, TOO_SLOW, QUOTA_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, NO_FREE_CONNECTION,
        // ABORTED, MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE, TOO_MANY_PARTS,
        // TOO_FEW_LIVE_REPLICAS, UNSATISFIED_QUORUM, UNKNOWN_STATUS_OF_INSERT, QUERY_WAS_CANCELLED,
        // CANNOT_SCHEDULE_TASK, SERVER_OVERLOADED
        159 | 160 | 201 | 202 | 203 | 236 | 241 | 242 | 243 | 252 | 285 | 286 | 319 | 394 | 439 | 745 => {
            Code::DestinationOverloaded
        }
        // SOCKET_TIMEOUT, NETWORK_ERROR, ALL_CONNECTION_TRIES_FAILED, KEEPER_EXCEPTION: a part of the
        // destination is away, which is not the table's fault.
        209 | 210 | 279 | 999 => Code::DestinationUnreachable,
        // THERE_IS_NO_COLUMN, NOT_FOUND_COLUMN_IN_BLOCK, NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_IDENTIFIER,
        // UNKNOWN_TABLE, UNKNOWN_DATABASE, TABLE_IS_DROPPED
        8 | 10 | 16 | 47 | 60 | 81 | 218 => Code::DestinationTableChanged,
        // TABLE_ALREADY_EXISTS
        57 => Code::DestinationTableExists,
        // CANNOT_PARSE_TEXT, CANNOT_PARSE_QUOTED_STRING, CANNOT_PARSE_INPUT_ASSERTION_FAILED,
        // CANNOT_READ_ALL_DATA, INCORRECT_DATA (JSON that is no object), CANNOT_PARSE_DATE,
        // CANNOT_PARSE_DATETIME, TYPE_MISMATCH, ARGUMENT_OUT_OF_BOUND, CANNOT_CONVERT_TYPE,
        // CANNOT_PARSE_NUMBER, TOO_LARGE_STRING_SIZE, VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE,
        // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN, CANNOT_PARSE_UUID, DECIMAL_OVERFLOW, CANNOT_PARSE_BOOL,
        // UNKNOWN_ELEMENT_OF_ENUM
        6 | 26 | 27 | 33 | 38 | 41 | 53 | 69 | 70 | 72 | 117 | 131 | 321 | 349 | 376 | 407 | 467 | 691 => {
            Code::ValueUnrepresentable
        }
        _ => Code::DestinationError,
    }
}

/// The number in `Code: 60.`
fn server_code(text: &str) -> Option<u32> {
    let digits = &text[text.find("Code: ")? + "Code: ".len()..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The name of the code, which stands in brackets near the end.
fn name_of(text: &str) -> String {
    let name = |part: &str| {
        let name = part.split(')').next()?;
        let upper = |b: u8| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit();
        (name.len() > 3 && name.bytes().all(upper)).then(|| format!(" {name}"))
    };
    text.rsplit('(').find_map(name).unwrap_or_default()
}

/// The first words of a message, without the version behind it.
fn shortened(text: &str) -> String {
    let text = text.split(" (version ").next().unwrap_or(text).trim();
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The causes of an error; "client error (Connect)" alone tells nobody anything.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        source = error.source();
    }
    parts.join(": ")
}

/// Whether TLS is among the causes.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // The source of an I/O error is that of what it wraps, so what it wraps is looked at by itself.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => is_tls(wrapped),
        None => error.source().is_some_and(is_tls),
    }
}

/// The kind of a client's error, without its text, which may show a value.
fn variant(error: &ClientError) -> String {
    let debug = format!("{error:?}");
    debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Error {
        classify(&ClientError::BadResponse(text.to_owned()))
    }

    #[test]
    fn the_servers_codes_become_ours() {
        let table = "Code: 60. DB::Exception: Table d.t does not exist. (UNKNOWN_TABLE) (version 26.7.2.1 (official build))";
        assert_eq!(of(table).code(), Code::DestinationTableChanged);
        assert_eq!(of(table).message(), "Code: 60. DB::Exception: Table d.t does not exist. (UNKNOWN_TABLE)");
        assert_eq!(of("Code: 516. DB::Exception: default: x").code(), Code::DestinationAuth);
        assert_eq!(of("Code: 252. DB::Exception: Too many parts").code(), Code::DestinationOverloaded);
        assert_eq!(of("502 Bad Gateway").code(), Code::DestinationUnreachable);
        assert_eq!(of("Code: 999. DB::Exception: Session expired").code(), Code::DestinationUnreachable);
        assert_eq!(of("Code: 999999999999999999999").code(), Code::DestinationUnreachable);
    }

    #[test]
    fn tls_is_told_apart_however_deep_it_is() {
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::HandshakeNotComplete);
        assert!(is_tls(&tls) && is_tls(&io::Error::other(tls)));
        assert!(!is_tls(&io::Error::other("no such host")));
    }

    #[test]
    fn a_refused_value_is_not_shown() {
        let error = of(
            "Code: 6. DB::Exception: Cannot parse string 'my secret (X)' as Decimal: While executing (CANNOT_PARSE_TEXT) (version 26.7.2.1 (official build))",
        );
        assert_eq!(error.code(), Code::ValueUnrepresentable);
        assert_eq!(error.message(), "ClickHouse refused a value (code 6 CANNOT_PARSE_TEXT)");
    }

    #[test]
    fn messages_have_a_limit_in_characters() {
        let text = of(&format!("Code: 1. {}", "ä".repeat(1000)));
        assert_eq!(text.message().chars().count(), MESSAGE_CHARS_MAX + 3);
    }
}
