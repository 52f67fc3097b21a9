use std::fmt;

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// The stable code of an event that is no error. The text form is the name in upper snake case. No
        /// event has the code of an error, so one filter serves both.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl EventCode {
            /// Every code, in the order of the registry.
            pub const ALL: &'static [EventCode] = &[$(EventCode::$variant,)+];

            /// The stable text form, such as `COPY_FINISHED`.
            pub const fn as_str(self) -> &'static str {
                match self { $(EventCode::$variant => $name,)+ }
            }

            /// What happened, in one line: the code's documentation.
            pub const fn summary(self) -> &'static str {
                match self { $(EventCode::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

impl fmt::Display for EventCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

events! {
    // Mirrors.
    /// The mirror stops, because somebody paused it.
    MirrorPaused = "MIRROR_PAUSED";
    /// The mirror goes on, because somebody resumed it.
    MirrorResumed = "MIRROR_RESUMED";
    /// The mirror has copied everything, and was to do no more.
    MirrorCompleted = "MIRROR_COMPLETED";
    /// A workflow of the mirror was ended by force in Temporal, and the mirror goes on with a new one.
    WorkflowReplaced = "WORKFLOW_REPLACED";
    /// The mirror was dropped.
    MirrorDropped = "MIRROR_DROPPED";
    /// A comparison with the source is over.
    VerificationEnded = "VERIFICATION_ENDED";

    // Tables.
    /// A table was added to the mirror, and is going to be copied.
    TableJoined = "TABLE_JOINED";
    /// A table was removed from the mirror.
    TableLeft = "TABLE_LEFT";
    /// Somebody paused a table.
    TablePaused = "TABLE_PAUSED";
    /// A table is copied again.
    ResyncBegun = "RESYNC_BEGUN";
    /// Somebody cancelled the copy of a table, whose changes are streamed on.
    CopyCancelled = "COPY_CANCELLED";
    /// Somebody let a copy go on that was cancelled.
    CopyContinued = "COPY_CONTINUED";
    /// A table was copied whole.
    CopyFinished = "COPY_FINISHED";
    /// Partitions came to a table, and are copied.
    PartitionsAdded = "PARTITIONS_ADDED";
    /// Partitions of a table were truncated, detached or dropped, and their rows stay, as the mirror's settings ask for.
    PartitionsRemoved = "PARTITIONS_REMOVED";

    // Changes of a table that were followed.
    /// A column was added.
    ColumnAdded = "COLUMN_ADDED";
    /// A column was dropped on the source.
    ColumnDropped = "COLUMN_DROPPED";
    /// A column was renamed.
    ColumnRenamed = "COLUMN_RENAMED";
    /// A column has another type.
    ColumnRetyped = "COLUMN_RETYPED";
    /// A column may hold NULL now.
    ColumnNullable = "COLUMN_NULLABLE";
    /// A new column is computed when it is read, and not replicated.
    ColumnLeftOut = "COLUMN_LEFT_OUT";
    /// A table was renamed on the source.
    TableRenamed = "TABLE_RENAMED";
    /// The source wrote a table's rows anew, and they stay as they are in ClickHouse, as the mirror's settings ask for.
    RowsKept = "ROWS_KEPT";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn every_code_is_upper_snake_case_and_means_one_thing() {
        let mut seen: std::collections::BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        for event in EventCode::ALL {
            let name = event.as_str();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert!(event.summary().ends_with('.'), "{name}: {}", event.summary());
        }
    }
}
