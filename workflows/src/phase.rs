//! The phases of a mirror's workflow, and what leads from one to the next.
//!
//! Pure: no I/O.

use std::fmt;

use millrace_terms::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// Where a mirror's workflow stands. The state that users see is derived from it and from the
/// states of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Source and destination are being prepared.
    Setup,
    /// Tables are copied, changes are streamed.
    Running,
    /// Told to pause. The slot stays and holds the source's log.
    Paused,
    /// Stopped by an error that a person must mend.
    Failed,
    /// Being dropped.
    Dropping,
    /// Everything that was asked for is done.
    Completed,
}

/// What happens to a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Source and destination are ready.
    Prepared,
    /// A user asks for a pause.
    Pause,
    /// A user asks to go on.
    Resume,
    /// A user asks to copy tables again.
    Resync,
    /// A user changed the mirror or one of its tables.
    Edit,
    /// A user asks to drop it.
    Drop,
    /// The source, the destination or a stream failed for good.
    Fail,
    /// A stream cannot go on from where it is: the source is to be prepared again.
    Recover,
    /// Nothing is left to do.
    Complete,
}

use Event::{Complete, Drop, Edit, Fail, Pause, Prepared, Recover, Resume, Resync};
use Phase::{Completed, Dropping, Failed, Paused, Running, Setup};

/// Every transition there is.
const TRANSITIONS: &[(Phase, Event, Phase)] = &[
    (Setup, Prepared, Running),
    (Setup, Fail, Failed),
    (Setup, Drop, Dropping),
    (Running, Pause, Paused),
    (Running, Fail, Failed),
    // What is left of the stream is found out where the source is prepared.
    (Running, Recover, Setup),
    // Streams of one source are lost one after the other.
    (Setup, Recover, Setup),
    (Running, Complete, Completed),
    (Running, Drop, Dropping),
    // It was about to end.
    (Completed, Drop, Dropping),
    // Tables are copied again while the others go on.
    (Running, Resync, Running),
    // What was changed is in the catalog: it is done at once, or when the mirror is as far.
    (Setup, Edit, Setup),
    (Running, Edit, Running),
    (Paused, Edit, Paused),
    (Failed, Edit, Failed),
    (Paused, Resume, Running),
    (Paused, Drop, Dropping),
    // Prepared again: what made it fail may be a slot or a table that is gone.
    (Failed, Resume, Setup),
    (Failed, Drop, Dropping),
    // A second request changes nothing.
    (Paused, Pause, Paused),
    (Running, Resume, Running),
    (Setup, Resume, Setup),
    (Dropping, Drop, Dropping),
    // A stream that fails while it is being paused: the pause stands, and resume shows the error.
    (Paused, Fail, Paused),
];

impl Phase {
    /// Where the event leads.
    ///
    /// # Errors
    /// MIRROR_STATE, naming phase and event, if it leads nowhere.
    pub fn after(self, event: Event) -> Result<Phase> {
        TRANSITIONS
            .iter()
            .find(|(from, on, _)| (*from, *on) == (self, event))
            .map(|(_, _, to)| *to)
            .ok_or_else(|| self.refusal(event))
    }

    fn refusal(self, event: Event) -> Error {
        Error::new(Code::MirrorState, format!("the mirror is {self}: {event} is not possible"))
            .with("state", self.to_string())
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setup => "SETUP",
            Running => "RUNNING",
            Paused => "PAUSED",
            Failed => "FAILED",
            Dropping => "DROPPING",
            Completed => "COMPLETED",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Prepared => "prepared",
            Pause => "pause",
            Resume => "resume",
            Resync => "resync",
            Edit => "edit",
            Drop => "drop",
            Fail => "fail",
            Recover => "recover",
            Complete => "complete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_leads_to_two_phases() {
        for (at, (from, on, _)) in TRANSITIONS.iter().enumerate() {
            assert!(TRANSITIONS[..at].iter().all(|(f, o, _)| (f, o) != (from, on)), "{from} {on}");
        }
    }

    #[test]
    fn a_mirror_can_be_dropped_in_every_phase() {
        for phase in [Setup, Running, Paused, Failed, Completed, Dropping] {
            assert_eq!(phase.after(Drop), Ok(Dropping), "{phase}");
        }
    }

    #[test]
    fn a_mirror_can_be_edited_until_it_goes_away() {
        for phase in [Setup, Running, Paused, Failed] {
            assert_eq!(phase.after(Edit), Ok(phase));
        }
        for phase in [Dropping, Completed] {
            assert_eq!(phase.after(Edit).unwrap_err().code(), Code::MirrorState);
        }
    }

    #[test]
    fn a_refusal_names_state_and_event() {
        let error = Setup.after(Pause).unwrap_err();
        assert_eq!(error.code(), Code::MirrorState);
        assert!(error.message().contains("SETUP") && error.message().contains("pause"), "{error}");
    }
}
