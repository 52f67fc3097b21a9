//! How a stream fares: the one place that decides it. What an attempt says of itself is one of the facts,
//! for who is dead says nothing.
//!
//! Pure: no I/O.

use std::time::Duration;

use jiff::Timestamp;
use millrace_terms::{Code, Error};

use crate::failure::Failure;
use crate::mirrors::Mirror;
use crate::state::{MirrorState, Verdict};
use crate::streams::Stream;

/// How long a stream may be without an attempt before that is told. One of a worker that was killed is taken
/// up by another within 15 s, and an attempt may take as long again before it holds a lease.
pub const UNATTENDED_MAX: Duration = Duration::from_secs(30);

/// How long a position may stand still while the source's log grows, and nothing is written.
pub const STUCK_MAX: Duration = Duration::from_secs(60);

/// How a stream fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has not begun, or is being removed.
    NotStarted,
    /// Changes arrive.
    Healthy,
    /// There is nothing to do.
    Idle,
    /// There is something to do and it is not done.
    Stalled(Failure),
}

/// A condition under which a stream has this health; none where it says nothing.
type Rule = fn(&Mirror, &Stream, Timestamp) -> Option<Health>;

/// The first that says something counts: what a person or the mirror decided before what is seen.
const RULES: &[Rule] = &[waiting, not_started, completed, failed, paused, ended, unattended, told, stuck];

/// The health of a stream of a mirror at `now`.
pub fn judge(mirror: &Mirror, stream: &Stream, now: Timestamp) -> Health {
    let said = RULES.iter().find_map(|rule| rule(mirror, stream, now));
    said.unwrap_or(match stream.verdict {
        Verdict::Healthy => Health::Healthy,
        Verdict::Idle | Verdict::Stalled => Health::Idle,
    })
}

/// The health of a mirror: that of the stream which fares worst. A stream that changes arrive in comes before
/// one that has nothing to do.
pub fn worst(streams: impl IntoIterator<Item = Health>) -> Health {
    let badness = |health: &Health| match health {
        Health::NotStarted => 0,
        Health::Idle => 1,
        Health::Healthy => 2,
        Health::Stalled(_) => 3,
    };
    streams.into_iter().max_by_key(badness).unwrap_or(Health::NotStarted)
}

impl Health {
    /// Why it is stalled.
    pub fn reason(&self) -> Option<&Failure> {
        match self {
            Health::Stalled(reason) => Some(reason),
            _ => None,
        }
    }

    /// The word for it, as the API has it; empty if there is none yet.
    pub fn as_str(&self) -> &'static str {
        match self {
            Health::NotStarted => "",
            Health::Healthy => Verdict::Healthy.as_str(),
            Health::Idle => Verdict::Idle.as_str(),
            Health::Stalled(_) => Verdict::Stalled.as_str(),
        }
    }
}

/// Why the attempt says that it is stalled; none if it does not.
fn told_reason(stream: &Stream) -> Option<Failure> {
    stream.reason.clone().filter(|_| stream.verdict == Verdict::Stalled)
}

/// A slot that is being made, and waits for the transactions of others.
fn waiting(mirror: &Mirror, stream: &Stream, _: Timestamp) -> Option<Health> {
    let reason = told_reason(stream)?;
    let has_no_slot = mirror.state == MirrorState::Setup && stream.position.is_none();
    has_no_slot.then_some(Health::Stalled(reason))
}

fn not_started(mirror: &Mirror, _: &Stream, _: Timestamp) -> Option<Health> {
    matches!(mirror.state, MirrorState::Setup | MirrorState::Dropping).then_some(Health::NotStarted)
}

fn completed(mirror: &Mirror, _: &Stream, _: Timestamp) -> Option<Health> {
    (mirror.state == MirrorState::Completed).then_some(Health::Idle)
}

fn failed(mirror: &Mirror, _: &Stream, _: Timestamp) -> Option<Health> {
    let error = mirror.error.clone().filter(|_| mirror.state == MirrorState::Failed)?;
    Some(Health::Stalled(error))
}

fn paused(mirror: &Mirror, stream: &Stream, _: Timestamp) -> Option<Health> {
    if mirror.state != MirrorState::Paused {
        return None;
    }
    let why = "the mirror is paused; its slot keeps the source's log until it is resumed";
    let remedy = format!("Run `millrace mirror resume {}` before the source's disk is full.", mirror.name());
    let error = Error::new(Code::MirrorState, why).with_remedy(remedy);
    let since = stream.attended_at.unwrap_or(mirror.updated_at);
    Some(Health::Stalled(Failure { since, ..Failure::new(&error) }))
}

/// An attempt that no other follows until the mirror has made up for its end.
fn ended(_: &Mirror, stream: &Stream, _: Timestamp) -> Option<Health> {
    let reason = told_reason(stream)?;
    let is_final = reason.code.parse().is_ok_and(|code: Code| !code.is_retryable());
    is_final.then_some(Health::Stalled(reason))
}

/// Whoever streams renews its lease every second, also when it only waits for a peer.
fn unattended(mirror: &Mirror, stream: &Stream, now: Timestamp) -> Option<Health> {
    // A mirror that a person has just resumed or changed is taken up again first.
    let since = stream.attended_at.max(Some(mirror.updated_at))?;
    if !is_longer(since, now, UNATTENDED_MAX) {
        return None;
    }
    let error = Error::new(Code::NoWorkers, format!("no worker has streamed since {since}"));
    Some(Health::Stalled(Failure { since, ..Failure::new(&error) }))
}

/// What the attempt says of itself.
fn told(_: &Mirror, stream: &Stream, _: Timestamp) -> Option<Health> {
    told_reason(stream).map(Health::Stalled)
}

/// An attempt that hears nothing ends by itself. This is one that hears only that the source lives.
fn stuck(_: &Mirror, stream: &Stream, now: Timestamp) -> Option<Health> {
    let since = stream.moved_at.filter(|_| stream.verdict == Verdict::Idle)?;
    let behind = stream.lag_bytes().filter(|bytes| *bytes > 0)?;
    let is_known = stream.lag_time(now)?.unsigned_abs() > STUCK_MAX;
    if !is_known || !is_longer(since, now, STUCK_MAX) {
        return None;
    }
    let message = format!("the source has sent nothing since {since}, and its log has {behind} bytes more");
    let error = Error::new(Code::SourceBlocked, message).with_remedy(
        "See on the source what the walsender waits for: `SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE backend_type = 'walsender';`. It may wait for a standby of `synchronized_standby_slots`, or decode one very large transaction.",
    );
    Some(Health::Stalled(Failure { since, ..Failure::new(&error) }))
}

fn is_longer(since: Timestamp, now: Timestamp, limit: Duration) -> bool {
    u64::try_from(now.duration_since(since).as_millis()).is_ok_and(|ms| u128::from(ms) > limit.as_millis())
}

#[cfg(test)]
pub(crate) mod tests {
    use millrace_terms::Lsn;

    use super::*;
    use crate::spec::{MirrorSpec, Mode, RULES, Settings};
    use crate::state::Desired;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) const NOW: i64 = 10_000;

    pub(crate) fn mirror(state: MirrorState) -> Mirror {
        Mirror {
            spec: MirrorSpec {
                name: "shop".into(),
                source: "pg".into(),
                destination: "ch".into(),
                mode: Mode::default(),
                tables: Vec::new(),
                settings: Settings::default(),
            },
            rules: RULES,
            desired: Desired::Running,
            state,
            workflow_started: true,
            prepared_at: Some(at(10)),
            completed_at: None,
            error: None,
            request_id: String::new(),
            created_at: at(0),
            updated_at: at(10),
            etag: String::new(),
            streams: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Held by an attempt, with nothing to do.
    pub(crate) fn idle() -> Stream {
        Stream {
            mirror: "shop".into(),
            n: 0,
            slot: "slot".into(),
            publication: "publication".into(),
            system_id: None,
            timeline: None,
            position: Some(Lsn(100)),
            hold: None,
            position_at: None,
            lease: 1,
            lease_until: Some(at(NOW + 9)),
            base: 0,
            written_below: Lsn(0),
            verdict: Verdict::Idle,
            reason: None,
            verdict_since: at(10),
            last_commit_at: Some(at(20)),
            source_wal: Some(Lsn(100)),
            source_wal_at: Some(at(NOW)),
            attended_at: Some(at(NOW - 1)),
            caught_up_at: Some(at(NOW - 5)),
            moved_at: Some(at(30)),
            rows_per_s: 0.0,
            slot_seen: None,
        }
    }

    fn failure(code: Code) -> Failure {
        Failure { since: at(50), ..Failure::new(&Error::new(code, "why")) }
    }

    #[test]
    fn every_row_of_the_table() {
        use MirrorState::{Completed, Degraded, Dropping, Failed, Paused, Running, Setup, Snapshot};
        let healthy = || Stream { verdict: Verdict::Healthy, ..idle() };
        let told = || Stream { verdict: Verdict::Stalled, reason: Some(failure(Code::SlotInUse)), ..idle() };
        let unattended = || Stream { attended_at: Some(at(NOW - 31)), ..healthy() };
        let never = || Stream { attended_at: None, lease: 0, lease_until: None, moved_at: None, ..idle() };
        let behind = || Stream { source_wal: Some(Lsn(900)), caught_up_at: Some(at(NOW - 61)), ..idle() };
        let rows: [(&str, Mirror, Stream, &str); 22] = [
            ("being prepared", mirror(Setup), never(), ""),
            ("being dropped", mirror(Dropping), unattended(), ""),
            ("over", mirror(Completed), unattended(), "IDLE"),
            ("nothing to do", mirror(Running), idle(), "IDLE"),
            ("changes arrive", mirror(Running), healthy(), "HEALTHY"),
            ("while copies run", mirror(Snapshot), healthy(), "HEALTHY"),
            ("beside a table in error", mirror(Degraded), healthy(), "HEALTHY"),
            ("an insert fails", mirror(Running), told(), "SLOT_IN_USE"),
            (
                "a new slot is being made",
                mirror(Running),
                Stream { reason: Some(failure(Code::SlotLost)), attended_at: Some(at(100)), ..told() },
                "SLOT_LOST",
            ),
            ("no worker", mirror(Running), unattended(), "NO_WORKERS"),
            (
                "no worker, told of something before",
                mirror(Running),
                Stream { attended_at: Some(at(100)), ..told() },
                "NO_WORKERS",
            ),
            (
                "a worker was just killed",
                mirror(Running),
                Stream { attended_at: Some(at(NOW - 29)), ..healthy() },
                "HEALTHY",
            ),
            ("never begun", mirror(Running), never(), "NO_WORKERS"),
            ("just prepared", Mirror { updated_at: at(NOW - 3), ..mirror(Snapshot) }, never(), "IDLE"),
            ("just resumed", Mirror { updated_at: at(NOW - 3), ..mirror(Running) }, unattended(), "HEALTHY"),
            (
                "a clock ahead of ours",
                mirror(Running),
                Stream { attended_at: Some(at(NOW + 60)), ..idle() },
                "IDLE",
            ),
            ("paused", mirror(Paused), healthy(), "MIRROR_STATE"),
            (
                "failed",
                Mirror { error: Some(failure(Code::SlotLost)), ..mirror(Failed) },
                told(),
                "SLOT_LOST",
            ),
            ("the source sends nothing", mirror(Running), behind(), "SOURCE_BLOCKED"),
            (
                "it has just moved",
                mirror(Running),
                Stream { moved_at: Some(at(NOW - 59)), ..behind() },
                "IDLE",
            ),
            (
                "it was complete a moment ago",
                mirror(Running),
                Stream { caught_up_at: Some(at(NOW - 9)), ..behind() },
                "IDLE",
            ),
            (
                "rows of a large transaction arrive",
                mirror(Running),
                Stream { verdict: Verdict::Healthy, ..behind() },
                "HEALTHY",
            ),
        ];
        for (what, mirror, stream, expected) in rows {
            let health = judge(&mirror, &stream, at(NOW));
            let seen = health.reason().map_or(health.as_str(), |reason| reason.code.as_str());
            assert_eq!(seen, expected, "{what}: {health:?}");
            let has_remedy = health.reason().is_none_or(|reason| !reason.remedy.is_empty());
            assert!(has_remedy, "{what}: {health:?}");
        }
    }

    #[test]
    fn the_time_is_that_since_which_nobody_streams() {
        let stream = Stream { attended_at: Some(at(NOW - 100)), ..idle() };
        let health = judge(&mirror(MirrorState::Running), &stream, at(NOW));
        assert_eq!(health.reason().map(|reason| reason.since), Some(at(NOW - 100)));
    }

    #[test]
    fn a_mirror_fares_as_its_worst_stream() {
        let stalled = Health::Stalled(failure(Code::SlotInUse));
        assert_eq!(worst([Health::Idle, stalled.clone(), Health::Healthy]), stalled);
        assert_eq!(worst([Health::Idle, Health::Healthy]), Health::Healthy);
        assert_eq!(worst([Health::Idle, Health::NotStarted]), Health::Idle);
        assert_eq!(worst([]), Health::NotStarted);
    }
}
