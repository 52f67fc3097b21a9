//! How a source is judged. Pure.

use millrace_terms::check::{Check, Name, Rule, Verdict};
use millrace_terms::{Code, Error, Result, quote_ident};

use super::Purpose;
use super::facts::{OpenTransaction, SourceFacts, Used};

/// Releases that are supported, as `server_version_num / 10000`.
const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;

/// The first minor release of each major that keeps a publication's later changes when a table is
/// added while it is written to.
const MINORS_WITHOUT_GAP: [(u32, u32); 4] = [(14, 18), (15, 13), (16, 9), (17, 5)];

/// Age in seconds from which an open transaction is told of: shorter ones are over before anybody has
/// read their name.
const OPEN_SECONDS: f64 = 5.0;

/// Slots or senders that are recommended at least, when there are too few.
const RECOMMENDED: i32 = 10;

/// The judgements of a source.
pub(super) const RULES: &[Rule<SourceFacts>] = &[
    Rule { name: Name::SourceVersion, judge: version },
    Rule { name: Name::MinorRelease, judge: minor_release },
    Rule { name: Name::Primary, judge: primary },
    Rule { name: Name::WalLevel, judge: wal_level },
    Rule { name: Name::ReplicationSlots, judge: |f| Some(left(f, "max_replication_slots", f.slots, 0)) },
    Rule { name: Name::WalSenders, judge: |f| Some(left(f, "max_wal_senders", f.senders, 1)) },
    Rule { name: Name::SlotRetention, judge: slot_retention },
    Rule { name: Name::IdleSlotTimeout, judge: idle_slot_timeout },
    Rule { name: Name::StandbySlots, judge: standby_slots },
    Rule { name: Name::PublicationPrivilege, judge: publication_privilege },
    Rule { name: Name::OpenTransactions, judge: |facts| Some(open_transactions(&facts.open, &facts.user)) },
    Rule { name: Name::SourceClock, judge: |facts| Some(Verdict::of_clock("the source", facts.clock)) },
];

/// Judges what the attempt to open a replication connection came to.
pub(super) fn may_replicate(user: &str, tried: Result<()>) -> Check {
    let tried = tried.map_err(|error| match error.code() {
        Code::SourcePermission => {
            error.with_remedy(format!("Run `ALTER ROLE {} REPLICATION;` as a superuser.", quote_ident(user)))
        }
        _ => error,
    });
    Check::of(Name::ReplicationPrivilege, &tried, format!("{user} may replicate"))
}

fn version(facts: &SourceFacts) -> Option<Verdict> {
    let (major, minor) = (facts.version / 10_000, facts.version % 10_000);
    Some(match MAJORS.contains(&major) {
        true => Verdict::Pass(format!("PostgreSQL {major}.{minor}")),
        false => Verdict::Fail(Error::new(
            Code::SourceVersion,
            format!("the source is PostgreSQL {major}.{minor}"),
        )),
    })
}

fn minor_release(facts: &SourceFacts) -> Option<Verdict> {
    let (major, minor) = (facts.version / 10_000, facts.version % 10_000);
    let (_, first) = MINORS_WITHOUT_GAP.iter().find(|(of, first)| *of == major && minor < *first)?;
    let why = format!(
        "PostgreSQL {major}.{minor} may lose changes of a table that is added to a publication while it is written to"
    );
    let remedy = format!("Update the source to PostgreSQL {major}.{first} or later.");
    Some(Verdict::Warn(Error::new(Code::SourceVersion, why).with_remedy(remedy)))
}

fn primary(facts: &SourceFacts) -> Option<Verdict> {
    Some(match facts.in_recovery {
        false => Verdict::Pass("the source is a primary".into()),
        true => Verdict::Fail(Error::new(Code::SourceInRecovery, "the source is a standby")),
    })
}

fn wal_level(facts: &SourceFacts) -> Option<Verdict> {
    Some(match facts.wal_level.as_str() {
        "logical" => Verdict::Pass("wal_level is logical".into()),
        level => {
            Verdict::Fail(Error::new(Code::SourceWalLevel, format!("wal_level is {level}, not logical")))
        }
    })
}

/// Whether what is needed, `least` even where the user made the slot, is left of what a setting allows.
fn left(facts: &SourceFacts, setting: &str, Used { most, used }: Used, least: u32) -> Verdict {
    let wanted = match facts.purpose {
        Purpose::NewMirror { slots, .. } => slots.max(least),
        Purpose::Peer | Purpose::Upkeep => 1,
    };
    let needed = used.saturating_add_unsigned(wanted);
    if needed <= most {
        return Verdict::Pass(format!("{used} of {most} in use ({setting})"));
    }
    let message = match most - used {
        free @ 1.. => format!("{wanted} are needed, and {free} of {most} of {setting} are free"),
        _ => format!("all {most} of {setting} are in use"),
    };
    let error = Error::new(Code::SourceSlotsExhausted, message).with_remedy(format!(
        "Run `ALTER SYSTEM SET {setting} = {};` and restart the source, or drop what nobody uses.",
        needed.max(RECOMMENDED)
    ));
    match facts.purpose {
        Purpose::NewMirror { .. } => Verdict::Fail(error),
        Purpose::Peer | Purpose::Upkeep => Verdict::Warn(error),
    }
}

fn slot_retention(facts: &SourceFacts) -> Option<Verdict> {
    let limit = facts.slot_wal_keep.as_str();
    if limit == "-1" {
        return Some(Verdict::Pass("the source keeps its log as long as a slot needs it".into()));
    }
    let why =
        format!("the source invalidates slots that hold more than {limit} of log (max_slot_wal_keep_size)");
    Some(Verdict::Warn(Error::new(Code::SlotLost, why).with_remedy(
        "Keep it well above what is written while a mirror is paused or the destination is away: a lost slot means a resync.",
    )))
}

fn idle_slot_timeout(facts: &SourceFacts) -> Option<Verdict> {
    let timeout = facts.idle_slot_timeout.as_deref()?;
    if timeout == "0" {
        return Some(Verdict::Pass("slots that nobody streams from are kept".into()));
    }
    let why = format!(
        "the source invalidates slots that nobody streams from for {timeout} (idle_replication_slot_timeout): a mirror paused for so long loses its slot"
    );
    let remedy = "Run `ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();`.";
    Some(Verdict::Warn(Error::new(Code::SlotLost, why).with_remedy(remedy)))
}

fn standby_slots(facts: &SourceFacts) -> Option<Verdict> {
    let missing = facts.standbys_missing.join(", ");
    if missing.is_empty() {
        return Some(Verdict::Pass("no stream waits for a standby that is away".into()));
    }
    let why = format!(
        "streams wait for standbys that do not follow: no standby streams from {missing} (synchronized_standby_slots)"
    );
    let remedy = "Bring the standbys back, or run `ALTER SYSTEM SET synchronized_standby_slots = '';` and `SELECT pg_reload_conf();`.";
    Some(Verdict::Fail(Error::new(Code::SourceBlocked, why).with_remedy(remedy)))
}

fn publication_privilege(facts: &SourceFacts) -> Option<Verdict> {
    if facts.may_create {
        return Some(Verdict::Pass("publications may be made".into()));
    }
    let SourceFacts { database, user, .. } = facts;
    let why = format!("{user} may not make a publication in {database}");
    let remedy =
        format!("Run `GRANT CREATE ON DATABASE {} TO {};`.", quote_ident(database), quote_ident(user));
    let error = Error::new(Code::SourcePermission, why).with_remedy(remedy);
    match facts.purpose {
        Purpose::NewMirror { publishes: true, .. } => Some(Verdict::Fail(error)),
        // Mirrors may be made with publications of the tables' owner.
        Purpose::Peer => Some(Verdict::Warn(error)),
        Purpose::NewMirror { .. } | Purpose::Upkeep => None,
    }
}

fn open_transactions(open: &[OpenTransaction], user: &str) -> Verdict {
    let long = |transaction: &&OpenTransaction| transaction.age_s.is_some_and(|age| age >= OPEN_SECONDS);
    let long: Vec<&OpenTransaction> = open.iter().filter(long).collect();
    let Some(oldest) = long.first() else {
        let hidden = open.iter().filter(|transaction| transaction.age_s.is_none()).count();
        return Verdict::Pass(match hidden {
            0 => "no transaction has been writing for long".into(),
            _ => format!(
                "the age of {hidden} transactions of other roles is hidden: `GRANT pg_read_all_stats TO {};` shows it",
                quote_ident(user)
            ),
        });
    };
    let told: Vec<String> = long.iter().map(|transaction| told(transaction)).collect();
    let why = format!("a new slot, and every copy, waits for the end of: {}", told.join("; "));
    let remedy = match oldest.pid {
        Some(pid) => format!("Let it end, or run `SELECT pg_terminate_backend({pid});`."),
        None => format!(
            "Run `COMMIT PREPARED '{0}';` or `ROLLBACK PREPARED '{0}';` in its database.",
            oldest.name.replace('\'', "''")
        ),
    };
    Verdict::Warn(Error::new(Code::SourceBlocked, why).with_remedy(remedy))
}

fn told(transaction: &OpenTransaction) -> String {
    let OpenTransaction { pid, user, name, age_s } = transaction;
    let age = age_s.unwrap_or_default().round();
    match pid {
        Some(pid) if name.is_empty() => format!("process {pid} of {user}, in a transaction for {age} s"),
        Some(pid) => format!("process {pid} of {user} ({name}), in a transaction for {age} s"),
        None => format!("prepared transaction {name:?} of {user}, for {age} s"),
    }
}

#[cfg(test)]
mod tests {
    use millrace_terms::check::{Skew, Status, judge};

    use super::*;

    const NEW: Purpose = Purpose::NewMirror { publishes: true, slots: 1 };

    fn good() -> SourceFacts {
        SourceFacts {
            purpose: NEW,
            version: 18_00_06,
            in_recovery: false,
            wal_level: "logical".into(),
            slots: Used { most: 10, used: 9 },
            senders: Used { most: 10, used: 0 },
            may_create: true,
            database: "shop".into(),
            user: "repl".into(),
            slot_wal_keep: "-1".into(),
            idle_slot_timeout: Some("0".into()),
            standbys_missing: Vec::new(),
            open: Vec::new(),
            clock: Skew::default(),
        }
    }

    fn open(pid: Option<i32>, age_s: Option<f64>) -> OpenTransaction {
        OpenTransaction { pid, user: "app".into(), name: "nightly".into(), age_s }
    }

    /// The checks that did not pass, as `name status remedy`.
    fn told_of(facts: &SourceFacts) -> Vec<String> {
        let told = |check: Check| {
            (check.status != Status::Pass)
                .then(|| format!("{} {:?}: {}", check.name, check.status, check.remedy))
        };
        judge(RULES, facts).into_iter().filter_map(told).collect()
    }

    #[test]
    fn a_good_source_passes_everything() {
        assert_eq!(told_of(&good()), Vec::<String>::new());
        assert_eq!(judge(RULES, &good()).len(), RULES.len() - 1, "no minor release to tell of");
    }

    #[test]
    fn each_fault_is_told_with_what_mends_it() {
        let cases: Vec<(SourceFacts, &str, &str)> = vec![
            (SourceFacts { version: 13_00_20, ..good() }, "source_version Fail", "PostgreSQL 14 to 18"),
            (SourceFacts { version: 19_00_00, ..good() }, "source_version Fail", "PostgreSQL 14 to 18"),
            (SourceFacts { version: 14_00_17, ..good() }, "minor_release Warn", "PostgreSQL 14.18"),
            (SourceFacts { version: 17_00_04, ..good() }, "minor_release Warn", "PostgreSQL 17.5"),
            (SourceFacts { in_recovery: true, ..good() }, "primary Fail", "primary"),
            (
                SourceFacts { wal_level: "replica".into(), ..good() },
                "wal_level Fail",
                "ALTER SYSTEM SET wal_level = logical;",
            ),
            (
                SourceFacts { slots: Used { most: 10, used: 10 }, ..good() },
                "replication_slots Fail",
                "ALTER SYSTEM SET max_replication_slots = 11;",
            ),
            (
                SourceFacts { senders: Used { most: 4, used: 4 }, purpose: Purpose::Upkeep, ..good() },
                "wal_senders Warn",
                "ALTER SYSTEM SET max_wal_senders = 10;",
            ),
            (SourceFacts { slot_wal_keep: "1GB".into(), ..good() }, "slot_retention Warn", "resync"),
            (
                SourceFacts { idle_slot_timeout: Some("1d".into()), ..good() },
                "idle_slot_timeout Warn",
                "idle_replication_slot_timeout = 0",
            ),
            (
                SourceFacts { standbys_missing: vec!["sb1".into()], ..good() },
                "standby_slots Fail",
                "synchronized_standby_slots = ''",
            ),
            (
                SourceFacts { may_create: false, ..good() },
                "publication_privilege Fail",
                "GRANT CREATE ON DATABASE \"shop\" TO \"repl\";",
            ),
            (
                SourceFacts { open: vec![open(Some(7), Some(60.0))], ..good() },
                "open_transactions Warn",
                "SELECT pg_terminate_backend(7);",
            ),
            (
                SourceFacts { open: vec![open(None, Some(60.0))], ..good() },
                "open_transactions Warn",
                "ROLLBACK PREPARED 'nightly';",
            ),
            (
                SourceFacts { clock: Skew::new(60_000_000, 0, 0), ..good() },
                "source_clock Warn",
                "Synchronise the clocks",
            ),
        ];
        for (facts, what, remedy) in cases {
            let told = told_of(&facts);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(what) && told[0].contains(remedy), "{told:?}");
        }
    }

    #[test]
    fn what_is_not_to_be_made_need_not_be_possible() {
        let poor = |purpose| SourceFacts {
            purpose,
            may_create: false,
            slots: Used { most: 10, used: 10 },
            ..good()
        };
        let told = |purpose| told_of(&poor(purpose)).join("\n");
        assert_eq!(told(NEW).matches("Fail").count(), 2);
        let peer = told(Purpose::Peer);
        assert_eq!((peer.matches("Fail").count(), peer.matches("Warn").count()), (0, 2));
        let owned = told(Purpose::NewMirror { publishes: false, slots: 0 });
        assert!(!owned.contains("replication_slots") && !owned.contains("publication"), "{owned}");
        assert!(!told(Purpose::Upkeep).contains("publication"));
    }

    #[test]
    fn short_and_hidden_transactions_are_no_warning() {
        let facts = SourceFacts { open: vec![open(Some(7), Some(0.1)), open(Some(8), None)], ..good() };
        assert_eq!(told_of(&facts), Vec::<String>::new());
        let Verdict::Pass(told) = open_transactions(&facts.open, "repl") else { panic!() };
        assert!(told.contains("GRANT pg_read_all_stats TO \"repl\";"), "{told}");
    }

    #[test]
    fn a_role_that_may_not_replicate_is_told_the_statement() {
        let refused = Error::new(Code::SourcePermission, "permission denied to start WAL sender");
        let check = may_replicate("repl", Err(refused));
        assert_eq!((check.status, check.name), (Status::Fail, Name::ReplicationPrivilege));
        assert!(check.remedy.contains("ALTER ROLE \"repl\" REPLICATION;"), "{}", check.remedy);
    }
}
