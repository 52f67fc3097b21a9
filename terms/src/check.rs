//! Checks: what is looked at before something is replicated, and while it is. Facts are read in one
//! place and judged here or beside it by tables of [`Rule`]s, so every verdict can be had without a
//! server. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Code, Error};

/// Difference between two clocks above which a person is told: lags in seconds are wrong by as much.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

macro_rules! names {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $scope:ident;)+) => {
        /// What was looked at. The text form is stable: names are never changed and never used anew.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Name {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Name {
            /// Every name, in the order in which they are documented.
            pub const ALL: &'static [Name] = &[$(Name::$variant,)+];

            /// The stable text form, such as `wal_level`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Name::$variant => $name,)+ }
            }

            /// Of what it is a check.
            pub const fn scope(self) -> Scope {
                match self { $(Name::$variant => Scope::$scope,)+ }
            }

            /// What has to be so, and why: the check's documentation.
            pub const fn summary(self) -> &'static str {
                match self { $(Name::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

/// Of what something is a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The parts of Millrace itself.
    Installation,
    /// A PostgreSQL server.
    Source,
    /// A table on it.
    SourceTable,
    /// A ClickHouse server.
    Destination,
    /// A table on it.
    DestinationTable,
    /// A mirror that exists.
    Mirror,
}

names! {
    // The installation.
    /// The catalog's schema is what this release needs.
    CatalogVersion = "catalog_version", Installation;
    /// The clocks of the server and of the catalog agree: leases do not rest on them, times that people see do.
    CatalogClock = "catalog_clock", Installation;
    /// Every stored peer can be opened with the server's secret keys.
    SecretKeys = "secret_keys", Installation;
    /// Temporal answers, and has the namespace.
    Temporal = "temporal", Installation;
    /// The search attributes of the workflows are registered, so that Temporal's UI can filter by mirror.
    SearchAttributes = "search_attributes", Installation;
    /// The schedule of the housekeeping is there and not paused: it keeps slots of quiet databases moving.
    Housekeeping = "housekeeping", Installation;
    /// Workers poll the task queue, for workflows and for activities.
    Workers = "workers", Installation;

    // A source.
    /// The source accepts the connection.
    SourceConnection = "source_connection", Source;
    /// The source can be asked for its settings.
    SourceSettings = "source_settings", Source;
    /// The release is PostgreSQL 14 to 18.
    SourceVersion = "source_version", Source;
    /// The minor release does not lose changes of a table that is added to a publication while it is written to.
    MinorRelease = "minor_release", Source;
    /// The source is a primary.
    Primary = "primary", Source;
    /// `wal_level` is `logical`.
    WalLevel = "wal_level", Source;
    /// `max_replication_slots` leaves one for a new mirror.
    ReplicationSlots = "replication_slots", Source;
    /// `max_wal_senders` leaves one for a new mirror.
    WalSenders = "wal_senders", Source;
    /// `max_slot_wal_keep_size` is told where it is set: a slot that holds more of the log is lost.
    SlotRetention = "slot_retention", Source;
    /// `idle_replication_slot_timeout` is not set: the slot of a paused mirror is lost by it.
    IdleSlotTimeout = "idle_slot_timeout", Source;
    /// The standbys of `synchronized_standby_slots` follow: streams wait for them.
    StandbySlots = "standby_slots", Source;
    /// The role may replicate.
    ReplicationPrivilege = "replication_privilege", Source;
    /// The role may make a publication in the database.
    PublicationPrivilege = "publication_privilege", Source;
    /// No transaction has been writing for long: a new slot, and every copy, waits for its end.
    OpenTransactions = "open_transactions", Source;
    /// The clocks of the worker and of the source agree: the lag in seconds compares them.
    SourceClock = "source_clock", Source;

    /// What mirrors that are gone left behind: a slot that nobody streams from keeps the source's log.
    Orphan = "orphan", Source;

    // A table of a source.
    /// The table exists, and is of a kind that can be replicated.
    Table = "table", SourceTable;
    /// Rows can be told apart: a primary key, or a usable replica identity.
    Key = "key", SourceTable;
    /// The role may use the table's schema.
    SchemaPrivilege = "schema_privilege", SourceTable;
    /// The role may read the table, or every column that is not excluded.
    ReadPrivilege = "read_privilege", SourceTable;
    /// No row security hides rows from the role: the copy would lack them.
    RowSecurity = "row_security", SourceTable;
    /// The role owns the table, as PostgreSQL asks of who publishes it.
    PublishPrivilege = "publish_privilege", SourceTable;
    /// Tables that inherit from it are told: their rows are not its own, or are by `with_children`.
    Inheritance = "inheritance", SourceTable;
    /// What is asked for of the table fits it: columns, types, ORDER BY.
    Plan = "plan", SourceTable;
    /// The columns' types are told that lose something, or that ClickHouse holds as text.
    Columns = "columns", SourceTable;

    // A destination.
    /// The destination accepts the connection.
    DestinationConnection = "destination_connection", Destination;
    /// The release is ClickHouse 24.8 or later.
    DestinationVersion = "destination_version", Destination;
    /// The database exists or can be made, and its engine is one that keeps tables.
    DestinationDatabase = "destination_database", Destination;
    /// The user may make, write, read and drop tables.
    DestinationPrivilege = "destination_privilege", Destination;
    /// The user may alter columns, so that schema changes can be followed.
    AlterPrivilege = "alter_privilege", Destination;
    /// The user's profile is not read-only.
    ReadOnly = "read_only", Destination;
    /// The clocks of the worker and of the destination agree: rows bear the time when they were written.
    DestinationClock = "destination_clock", Destination;

    // A table of a destination.
    /// The destination table can be made, or is there and takes the rows.
    DestinationTable = "destination_table", DestinationTable;
    /// ClickHouse understands the table's PARTITION BY.
    PartitionBy = "partition_by", DestinationTable;
    /// Tables that share one destination are alike.
    SharedDestination = "shared_destination", DestinationTable;

    // A mirror.
    /// The mirror's workflow runs.
    Workflow = "workflow", Mirror;
    /// The mirror has not failed, and none of its tables is in ERROR.
    State = "state", Mirror;
    /// The publication exists and holds every table.
    Publication = "publication", Mirror;
    /// The replication slot exists, and the source keeps its log.
    Slot = "slot", Mirror;
    /// Every stream has a table: one without reads the source's log for nothing.
    Streams = "streams", Mirror;
    /// The stream is not stalled.
    Stream = "stream", Mirror;
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was looked at, and what came out. All are looked at, also after one that failed, so
/// that a person sees everything at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: Name,
    /// What came out.
    pub status: Status,
    /// The code of a failure or warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was seen, without secrets and values.
    pub message: String,
    /// What to do, the very statement where there is one; empty if nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// The object looked at, such as a table or a task queue; empty for the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
}

/// What came out of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it has to be.
    Pass,
    /// It works, but a person should know.
    Warn,
    /// It cannot work.
    Fail,
}

/// What a rule says of facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it has to be; what was seen.
    Pass(String),
    /// It works, but a person should know.
    Warn(Error),
    /// It cannot work: the error is what anything that needs it would answer.
    Fail(Error),
}

/// One line of a table of judgements.
pub struct Rule<F: ?Sized> {
    /// What is judged.
    pub name: Name,
    /// The judgement; none where it does not apply to such facts.
    pub judge: fn(&F) -> Option<Verdict>,
}

/// Judges facts by every rule, in their order.
pub fn judge<F: ?Sized>(rules: &[Rule<F>], facts: &F) -> Vec<Check> {
    rules.iter().filter_map(|rule| Some(Check::new(rule.name, (rule.judge)(facts)?))).collect()
}

impl Verdict {
    /// Passes with `message`, or fails with the error of `result`.
    pub fn of<T>(result: &Result<T, Error>, message: impl Into<String>) -> Self {
        match result {
            Ok(_) => Verdict::Pass(message.into()),
            Err(error) => Verdict::Fail(error.clone()),
        }
    }

    /// Judges how far the clock of `whose` is from ours.
    pub fn of_clock(whose: &str, skew: Skew) -> Self {
        let apart = skew.ahead_micros.unsigned_abs().saturating_sub(skew.uncertain_micros);
        let seconds = skew.ahead_micros.unsigned_abs() as f64 / 1e6;
        if Duration::from_micros(apart) <= CLOCK_SKEW_MAX {
            return Verdict::Pass(format!("the clock of {whose} differs by {seconds:.1} s at most"));
        }
        let direction = if skew.ahead_micros > 0 { "ahead of" } else { "behind" };
        let message = format!("the clock of {whose} is {seconds:.1} s {direction} ours");
        Verdict::Warn(Error::new(Code::ClockSkew, message))
    }
}

/// How far another clock is from ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skew {
    /// Microseconds by which it is ahead; negative if it is behind.
    pub ahead_micros: i64,
    /// Microseconds by which that may be wrong: half the time that the question took.
    pub uncertain_micros: u64,
}

impl Skew {
    /// From their time, which was asked for between two moments of ours; all in microseconds since 1970.
    pub fn new(theirs: i64, asked: i64, answered: i64) -> Self {
        let half = answered.saturating_sub(asked).max(0) / 2;
        Self {
            ahead_micros: theirs.saturating_sub(asked.saturating_add(half)),
            uncertain_micros: half.unsigned_abs(),
        }
    }
}

impl Check {
    /// A check with its verdict. A failure that names a table is that table's.
    pub fn new(name: Name, verdict: Verdict) -> Self {
        let (status, error) = match verdict {
            Verdict::Pass(message) => return Self::pass(name, message),
            Verdict::Warn(error) => (Status::Warn, error),
            Verdict::Fail(error) => (Status::Fail, error),
        };
        Self {
            name,
            status,
            code: Some(error.code()),
            message: error.message().to_owned(),
            remedy: error.remedy().to_owned(),
            subject: error.metadata().get("table").cloned().unwrap_or_default(),
        }
    }

    /// As it has to be.
    pub fn pass(name: Name, message: impl Into<String>) -> Self {
        let (message, status) = (message.into(), Status::Pass);
        Self { name, status, code: None, message, remedy: String::new(), subject: String::new() }
    }

    /// It cannot work.
    pub fn fail(name: Name, error: &Error) -> Self {
        Self::new(name, Verdict::Fail(error.clone()))
    }

    /// Passes with `message`, or fails with the error of `result`.
    pub fn of<T>(name: Name, result: &Result<T, Error>, message: impl Into<String>) -> Self {
        Self::new(name, Verdict::of(result, message))
    }

    /// Names the object that was looked at.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_snake_case_and_unique_and_their_summaries_are_sentences() {
        let mut seen = std::collections::BTreeSet::new();
        for name in Name::ALL {
            let text = name.as_str();
            assert!(seen.insert(text), "{text} twice");
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
            assert!(name.summary().ends_with('.'), "{text}: {}", name.summary());
        }
    }

    #[test]
    fn clocks_are_judged_by_what_is_certain() {
        let second = 1_000_000;
        let passes = |skew| matches!(Verdict::of_clock("the source", skew), Verdict::Pass(_));
        assert!(passes(Skew::new(10 * second, 10 * second, 10 * second)));
        // The answer came 6 s later: their clock may be as right as ours.
        assert!(passes(Skew::new(15 * second, 10 * second, 16 * second)));
        for theirs in [5, 15] {
            let skew = Skew::new(theirs * second, 10 * second, 10 * second + 2_000);
            let Verdict::Warn(error) = Verdict::of_clock("the source", skew) else { panic!("{skew:?}") };
            assert_eq!(error.code(), Code::ClockSkew);
            assert_eq!(error.message().contains("behind"), theirs == 5, "{error}");
        }
    }

    #[test]
    fn a_rule_that_does_not_apply_makes_no_check() {
        let rules: &[Rule<u32>] = &[
            Rule { name: Name::WalLevel, judge: |n| (*n > 1).then(|| Verdict::Pass("more".into())) },
            Rule {
                name: Name::Key,
                judge: |_| {
                    let error = Error::new(Code::TableWithoutKey, "none").with("table", "public.t");
                    Some(Verdict::Warn(error))
                },
            },
        ];
        let checks = judge(rules, &1);
        assert_eq!(checks.len(), 1);
        assert_eq!((checks[0].status, checks[0].subject.as_str()), (Status::Warn, "public.t"));
        assert_eq!(judge(rules, &2).len(), 2);
    }
}
