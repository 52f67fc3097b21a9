//! The states of tables, mirrors and streams.
//!
//! Pure: no I/O.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use TableState::{Copying, Dropped, Error, Paused, Pending, Resyncing, Streaming};

/// What may follow what. A state may always be set again: an activity may be run twice.
///
/// A copy that is begun anew while one runs (`Copying → Resyncing`) is that of a lost slot or of a
/// recreated source table. A paused table is resynced when it resumes, and so is one in error: its
/// changes were left out meanwhile. `Pending → Streaming` is for mirrors that copy nothing.
const TRANSITIONS: [(TableState, &[TableState]); 7] = [
    (Pending, &[Copying, Streaming, Resyncing, Paused, Error, Dropped]),
    (Copying, &[Streaming, Resyncing, Paused, Error, Dropped]),
    (Streaming, &[Resyncing, Paused, Error, Dropped]),
    (Resyncing, &[Streaming, Paused, Error, Dropped]),
    (Paused, &[Resyncing, Error, Dropped]),
    (Error, &[Resyncing, Paused, Dropped]),
    (Dropped, &[]),
];

/// Declares an enum whose text form is the variant's name in upper case.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The text form, as the API and the catalog have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

pub(crate) use words;

words! {
    /// The state of one table of a mirror.
    TableState {
        /// Not copied yet.
        Pending = "PENDING",
        /// Copied for the first time; its changes are streamed already.
        Copying = "COPYING",
        /// Copied, and following.
        Streaming = "STREAMING",
        /// Copied again, or waiting to be; it goes on streaming.
        Resyncing = "RESYNCING",
        /// Left out until it is resumed.
        Paused = "PAUSED",
        /// Left out because of its error, until it is resynced.
        Error = "ERROR",
        /// No longer part of the mirror.
        Dropped = "DROPPED",
    }
}

words! {
    /// What a person wants of a mirror.
    Desired {
        /// Run.
        Running = "RUNNING",
        /// Stand still; the slot stays and holds WAL.
        Paused = "PAUSED",
        /// Go away.
        Dropping = "DROPPING",
    }
}

words! {
    /// The state of a mirror, derived from the rest: see [`derive`].
    MirrorState {
        /// Source and destination are being prepared.
        Setup = "SETUP",
        /// Tables are being copied, or wait to be.
        Snapshot = "SNAPSHOT",
        /// All tables follow.
        Running = "RUNNING",
        /// Paused by a person.
        Paused = "PAUSED",
        /// A table is in error; the others go on.
        Degraded = "DEGRADED",
        /// Stands still because of its error, until it is resumed.
        Failed = "FAILED",
        /// Being dropped.
        Dropping = "DROPPING",
        /// Copied everything, and was to do no more.
        Completed = "COMPLETED",
    }
}

words! {
    /// The health of a stream.
    Verdict {
        /// Changes arrive and are written.
        Healthy = "HEALTHY",
        /// There is nothing to write.
        Idle = "IDLE",
        /// There is something to write, and it is not written; there is a reason.
        Stalled = "STALLED",
    }
}

impl TableState {
    /// Whether a table of this state may come into that one.
    pub fn may_become(self, next: TableState) -> bool {
        self == next || TRANSITIONS.iter().any(|(from, to)| *from == self && to.contains(&next))
    }

    /// The states from which a table may come into this one, itself included.
    pub fn predecessors(self) -> impl Iterator<Item = TableState> {
        Self::ALL.iter().copied().filter(move |from| from.may_become(self))
    }

    /// Whether changes of a table of this state are written to the destination.
    pub fn is_streamed(self) -> bool {
        matches!(self, Pending | Copying | Streaming | Resyncing)
    }

    /// Whether a table of this state is copied, or waits for its turn.
    pub fn wants_copy(self) -> bool {
        matches!(self, Pending | Copying | Resyncing)
    }
}

/// What a mirror's state is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorFacts {
    /// What a person wants.
    pub desired: Desired,
    /// Whether source and destination are ready.
    pub prepared: bool,
    /// Whether it stopped with an error of its own.
    pub failed: bool,
    /// Whether it copied everything and was to do no more.
    pub completed: bool,
    /// Whether a table is in error.
    pub table_in_error: bool,
    /// Whether a table was never copied to its end.
    pub table_uncopied: bool,
}

/// The state of a mirror: the first of these that applies, what stops it before what it does.
pub fn derive(facts: MirrorFacts) -> MirrorState {
    match facts {
        MirrorFacts { desired: Desired::Dropping, .. } => MirrorState::Dropping,
        MirrorFacts { failed: true, .. } => MirrorState::Failed,
        MirrorFacts { completed: true, .. } => MirrorState::Completed,
        MirrorFacts { desired: Desired::Paused, .. } => MirrorState::Paused,
        MirrorFacts { prepared: false, .. } => MirrorState::Setup,
        MirrorFacts { table_in_error: true, .. } => MirrorState::Degraded,
        MirrorFacts { table_uncopied: true, .. } => MirrorState::Snapshot,
        _ => MirrorState::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_are_those_of_the_design() {
        let arrows = |from: TableState| -> Vec<&str> {
            TableState::ALL
                .iter()
                .filter(|to| **to != from && from.may_become(**to))
                .map(|s| s.as_str())
                .collect()
        };
        let expected = [
            (Pending, vec!["COPYING", "STREAMING", "RESYNCING", "PAUSED", "ERROR", "DROPPED"]),
            (Copying, vec!["STREAMING", "RESYNCING", "PAUSED", "ERROR", "DROPPED"]),
            (Streaming, vec!["RESYNCING", "PAUSED", "ERROR", "DROPPED"]),
            (Resyncing, vec!["STREAMING", "PAUSED", "ERROR", "DROPPED"]),
            (Paused, vec!["RESYNCING", "ERROR", "DROPPED"]),
            (Error, vec!["RESYNCING", "PAUSED", "DROPPED"]),
            (Dropped, vec![]),
        ];
        assert_eq!(TRANSITIONS.map(|(from, _)| (from, arrows(from))), expected);
        // Every state has its row, may be set again, and is left by an error and a drop.
        for state in TableState::ALL.iter().copied() {
            assert!(TRANSITIONS.iter().any(|(from, _)| *from == state));
            assert!(state.may_become(state));
            assert_eq!(state.may_become(Error), state != Dropped);
            assert!(state.may_become(Dropped));
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }

    #[test]
    fn what_stops_a_mirror_comes_before_what_it_does() {
        let running = MirrorFacts {
            desired: Desired::Running,
            prepared: true,
            failed: false,
            completed: false,
            table_in_error: false,
            table_uncopied: false,
        };
        assert_eq!(derive(running), MirrorState::Running);
        let copying = MirrorFacts { table_uncopied: true, ..running };
        assert_eq!(derive(copying), MirrorState::Snapshot);
        let degraded = MirrorFacts { table_in_error: true, ..copying };
        assert_eq!(derive(degraded), MirrorState::Degraded);
        let setup = MirrorFacts { prepared: false, ..degraded };
        assert_eq!(derive(setup), MirrorState::Setup);
        let paused = MirrorFacts { desired: Desired::Paused, ..setup };
        assert_eq!(derive(paused), MirrorState::Paused);
        let completed = MirrorFacts { completed: true, ..paused };
        assert_eq!(derive(completed), MirrorState::Completed);
        let failed = MirrorFacts { failed: true, ..completed };
        assert_eq!(derive(failed), MirrorState::Failed);
        assert_eq!(derive(MirrorFacts { desired: Desired::Dropping, ..failed }), MirrorState::Dropping);
    }
}
