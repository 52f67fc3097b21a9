//! A failure as it is stored with the object that it stopped.
//!
//! Pure: no I/O.

use jiff::Timestamp;
use millrace_terms::Error;
use serde::{Deserialize, Serialize};

/// Why a mirror, a table or a stream stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code. Text, because a newer release may have stored one that this one lacks.
    pub code: String,
    /// What was seen.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// When it was stored.
    pub since: Timestamp,
}

impl Failure {
    /// The failure, seen now.
    pub fn new(error: &Error) -> Self {
        Self {
            code: error.code().as_str().to_owned(),
            message: error.message().to_owned(),
            remedy: error.remedy().to_owned(),
            since: Timestamp::now(),
        }
    }
}
