//! Errors as ClickHouse's HTTP interface tells them: a number, a text, an HTTP status.
//!
//! Pure.

/// AUTHENTICATION_FAILED.
pub(super) const AUTHENTICATION_FAILED: u32 = 516;
/// REQUIRED_PASSWORD: no credentials at all.
pub(super) const REQUIRED_PASSWORD: u32 = 194;
/// SYNTAX_ERROR.
pub(super) const SYNTAX_ERROR: u32 = 62;
/// READONLY.
pub(super) const READONLY: u32 = 164;
/// QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING.
pub(super) const SAME_ID: u32 = 216;
/// CANNOT_READ_ALL_DATA: the client went away, or its data are cut.
pub(super) const CUT: u32 = 33;
/// CANNOT_DECOMPRESS.
pub(super) const CANNOT_DECOMPRESS: u32 = 271;
/// UNKNOWN_COMPRESSION_METHOD.
pub(super) const UNKNOWN_COMPRESSION: u32 = 89;
/// QUERY_IS_TOO_LARGE.
pub(super) const TOO_LARGE: u32 = 552;
/// UNKNOWN_EXCEPTION, for texts that bear no number.
const UNKNOWN: u32 = 1002;

/// An error of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// ClickHouse's number.
    pub code: u32,
    /// `Code: N. DB::Exception: ... (NAME)`.
    pub text: String,
}

impl Failure {
    /// An error of this front.
    pub fn new(code: u32, name: &str, message: &str) -> Self {
        Self { code, text: format!("Code: {code}. DB::Exception: {message}. ({name})") }
    }

    /// Something that cannot be.
    pub fn internal(message: &str) -> Self {
        Self::new(UNKNOWN, "UNKNOWN_EXCEPTION", message)
    }

    /// An error of the engine, by its text.
    pub fn of_engine(text: &str) -> Self {
        let text = text.strip_prefix("Error: ").unwrap_or(text).trim_end();
        let number = text.strip_prefix("Code: ").and_then(|rest| rest.split_once('.'));
        match number.and_then(|(digits, _)| digits.parse().ok()) {
            Some(code) => Self { code, text: text.to_owned() },
            None => Self::internal(text),
        }
    }

    /// The status of the answer (ClickHouse, `HTTPHandler.cpp`, `exceptionCodeToHTTPStatus`).
    pub fn status(&self) -> u16 {
        match self.code {
            REQUIRED_PASSWORD => 401,
            AUTHENTICATION_FAILED | 497 => 403,
            // Syntax, and values that do not parse.
            6 | 26 | 27 | 38 | 41 | 42 | 53 | 62 | 72 | 73 | 117 | 321 | 386 | 441 => 400,
            // Unknown tables, functions, columns, types, databases, settings, users, roles.
            46 | 47 | 50 | 56 | 60 | 63 | 81 | 115 | 192 | 511 => 404,
            159 => 408,
            TOO_LARGE => 413,
            48 => 501,
            209 => 503,
            _ => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_from_the_engines_text() {
        let failure = Failure::of_engine("Error: Code: 60. DB::Exception: Unknown table. (UNKNOWN_TABLE)\n");
        assert_eq!((failure.code, failure.status()), (60, 404));
        assert!(failure.text.starts_with("Code: 60. DB"));
        assert_eq!(Failure::of_engine("odd").text, "Code: 1002. DB::Exception: odd. (UNKNOWN_EXCEPTION)");
        assert_eq!(Failure::new(516, "AUTHENTICATION_FAILED", "no").status(), 403);
    }
}
