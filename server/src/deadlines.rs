//! How long everything may take that somebody waits for, from the inside out. What is outside waits
//! longer than what is inside, so that the one who knows why it took so long is the one who says it:
//!
//! | | waits for | at most |
//! |---|---|---|
//! | a worker | a peer that is cleaned up, checked, planned | `millrace_workflows::options` |
//! | the server, for a worker | that it takes up the work | [`ACCEPT`] |
//! | the server, for a workflow | a check; a change; the end of a drop | [`CHECK`]; [`UPDATE`]; [`DROP`] |
//! | the server's gate | a whole request | [`of_request`] |
//! | the client | the answer | [`of_call`] |
//!
//! Pure.

use std::time::Duration;

/// How long a worker may take to take up a request before the answer is NO_WORKERS. A worker that
/// lives takes milliseconds; one that was just killed is noticed by Temporal within this time.
pub const ACCEPT: Duration = Duration::from_secs(10);
/// How long a check may take in all: its own limit is 30 s, plus the time to report it.
pub const CHECK: Duration = Duration::from_secs(40);
/// How long a pause or a resync may take to be carried out before the caller gets the state as it is:
/// the begin of a resync has 30 s.
pub const UPDATE: Duration = Duration::from_secs(35);
/// How long the end of a drop is waited for before the answer is that it goes on: a minute each for
/// source and destination, and the end of what still runs.
pub const DROP: Duration = Duration::from_secs(170);

/// Time for a request, all its steps together: the longest is a creation with patterns, which runs
/// two checks.
const REQUEST: Duration = Duration::from_secs(120);
/// Time for a drop: it is accepted, and waited for.
const DROP_REQUEST: Duration = Duration::from_secs(190);
/// Time for a whole document: every peer and every table of it is looked at, and mirrors are dropped
/// one after the other.
const APPLY: Duration = Duration::from_secs(600);
/// Time to look at everything: several checks run at once, each with its own limit.
const DOCTOR: Duration = Duration::from_secs(300);
/// Time beyond the server's own limit for its answer to arrive.
const ON_THE_WAY: Duration = Duration::from_secs(10);

/// Time for a request of a method of the API, such as `CreateMirror`. What takes longer goes on, and is
/// answered with REQUEST_TIMEOUT.
pub fn of_request(method: &str) -> Duration {
    match method {
        "Apply" => APPLY,
        "DeleteMirror" => DROP_REQUEST,
        "Doctor" => DOCTOR,
        _ => REQUEST,
    }
}

/// How long a client waits for the answer to a call of a method.
pub fn of_call(method: &str) -> Duration {
    of_request(method) + ON_THE_WAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_waits_longer_than_what_is_inside() {
        assert!(of_request("CreateMirror") > 2 * CHECK);
        assert!(of_request("PauseMirror") > 2 * (ACCEPT + UPDATE), "after a restart it is tried twice");
        assert!(of_request("DeleteMirror") > ACCEPT + DROP);
        assert!(of_request("Apply") > 2 * CHECK + ACCEPT + DROP);
        assert!(of_request("Doctor") > 2 * CHECK);
        for method in ["Apply", "DeleteMirror", "Doctor", "GetMirror"] {
            assert!(of_call(method) > of_request(method), "{method}");
        }
    }
}
