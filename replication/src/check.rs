//! One verdict of a validation: of a peer, of a mirror, of a table. Pure.

use millrace_terms::{Code, Error};
use serde::{Deserialize, Serialize};

/// What was looked at, and what was found. All checks are run, also after one that failed, so that a
/// user sees everything at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, in a few words, such as `server version`. The same in every release.
    pub name: String,
    /// The verdict.
    pub status: CheckStatus,
    /// The code of a failure or warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was seen, without secrets and values.
    pub message: String,
    /// What to do; empty if nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// The object at fault, such as a table; empty for the peer itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
}

/// The verdict of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// It works, but a person should know.
    Warn,
    /// It cannot work.
    Fail,
}

impl Check {
    /// As it should be.
    pub fn pass(name: &str, message: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status: CheckStatus::Pass,
            code: None,
            message: message.into(),
            remedy: String::new(),
            subject: String::new(),
        }
    }

    /// It works, but a person should know.
    pub fn warn(name: &str, error: &Error) -> Self {
        Self { status: CheckStatus::Warn, ..Self::fail(name, error) }
    }

    /// It cannot work: the error is what anything that needs it would answer.
    pub fn fail(name: &str, error: &Error) -> Self {
        Self {
            name: name.to_owned(),
            status: CheckStatus::Fail,
            code: Some(error.code()),
            message: error.message().to_owned(),
            remedy: error.remedy().to_owned(),
            subject: error.metadata().get("table").cloned().unwrap_or_default(),
        }
    }

    /// Passes with `message`, or fails with the error of `result`.
    pub fn of<T>(name: &str, result: &Result<T, Error>, message: impl Into<String>) -> Self {
        match result {
            Ok(_) => Self::pass(name, message),
            Err(error) => Self::fail(name, error),
        }
    }

    /// A failure that only some uses meet becomes a warning.
    pub fn soften(&mut self) {
        if self.status == CheckStatus::Fail {
            self.status = CheckStatus::Warn;
        }
    }

    /// Names the object that was looked at.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }
}
