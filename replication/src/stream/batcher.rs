//! When the rows of which table are sent. Pure: the clock is an argument.
//!
//! Per table: at once when nothing is in flight for it and the least interval has passed; while an
//! insert runs, rows gather, so that the batches grow exactly as much as the destination is slow; a
//! batch that is full, or too old, is sent beside the one in flight. Over all tables: so many inserts
//! at once and a second; among those that are ready the table goes first whose oldest row has waited
//! longest.
//!
//! A stream that is behind its source lets rows gather for longer: a row that is late already may be
//! later by a part of that, and few large inserts cost the destination a fraction of many small ones
//! (of 10,000 rows three times as much as of 50,000, measured), so that it catches up sooner.

use std::time::Duration;

use tokio::time::Instant;

/// How long rows may gather behind an insert in flight before they are sent beside it.
const AGE_MAX: Duration = Duration::from_secs(1);
/// The part of its delay that a stream that is behind adds to it: one in so many.
const BEHIND_PART: u32 = 4;
/// Most that it adds: then nearly every batch is full.
const BEHIND_MAX: Duration = Duration::from_secs(4);
/// How long the first rows of a transaction wait for the rest of it: a transaction comes in one
/// burst, and one insert is cheaper, and nicer to readers, than two.
const TRANSACTION_HOLD: Duration = Duration::from_millis(20);

/// Limits of a stream's inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Least time between the beginnings of two inserts into one table, unless a batch is full.
    pub min_interval: Duration,
    /// Most rows of one insert.
    pub max_rows: usize,
    /// Most bytes of one insert; a single row may be larger.
    pub max_bytes: usize,
    /// Most inserts of one table at once.
    pub max_in_flight: usize,
    /// Most inserts a second, all tables together.
    pub max_inserts_per_second: u32,
    /// Most inserts at once, all tables together.
    pub max_concurrent_inserts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_millis(50),
            max_rows: 100_000,
            max_bytes: 32 << 20,
            max_in_flight: 2,
            max_inserts_per_second: 50,
            max_concurrent_inserts: 4,
        }
    }
}

/// What a table has to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Rows that still gather, since then.
    Gathering(Instant),
    /// A batch to which nothing is added any more.
    Sealed(Instant),
    /// A physical delete: it waits for what is in flight, and what follows waits for it.
    Barrier(Instant),
}

impl Head {
    fn since(self) -> Instant {
        match self {
            Head::Gathering(since) | Head::Sealed(since) | Head::Barrier(since) => since,
        }
    }
}

/// What is to be known of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub head: Option<Head>,
    pub in_flight: usize,
    /// A barrier is being carried out.
    pub barred: bool,
    pub last_start: Option<Instant>,
}

/// What holds for all tables at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    pub now: Instant,
    /// Send whatever there is: memory is short, or the stream ends.
    pub urgent: bool,
    /// Rows of a transaction are arriving.
    pub in_transaction: bool,
    /// How long ago what arrives now was committed.
    pub behind: Duration,
    pub in_flight: usize,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send the head of this table.
    Send(usize),
    /// Nothing before then; `None`: before something else happens.
    Wait(Option<Instant>),
}

/// Inserts a second.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// As many at once as a second allows: a transaction of many small tables arrives together, and over
    /// any longer time it is the same.
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, tokens: per_second, filled: now }
    }

    /// When there is a token.
    fn ready_at(&mut self, now: Instant) -> Instant {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second);
        self.filled = now;
        if self.tokens >= 1.0 {
            return now;
        }
        // Rounded up, so that the token is there when we come back.
        now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_micros(1)
    }
}

/// Decides.
#[derive(Debug)]
pub(super) struct Batcher {
    limits: Limits,
    bucket: Bucket,
}

impl Batcher {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        let bucket = Bucket::new(limits.max_inserts_per_second, now);
        Self { limits, bucket }
    }

    /// Whether a batch of so many rows and bytes is full.
    pub(super) fn is_full(&self, rows: usize, bytes: usize) -> bool {
        rows >= self.limits.max_rows || bytes >= self.limits.max_bytes
    }

    /// The next thing to do. After `Send` the lane's numbers are to be brought up to date.
    pub(super) fn next(
        &mut self,
        lanes: impl Iterator<Item = (usize, Lane)>,
        situation: Situation,
    ) -> Decision {
        let now = situation.now;
        let mut soonest: Option<Instant> = None;
        let mut chosen: Option<(Instant, usize)> = None;
        for (at, lane) in lanes {
            let Some((since, ready)) = self.ready_at(&lane, situation) else { continue };
            if ready > now {
                soonest = Some(soonest.map_or(ready, |other| other.min(ready)));
            } else if chosen.is_none_or(|(oldest, _)| since < oldest) {
                chosen = Some((since, at));
            }
        }
        let Some((_, at)) = chosen else { return Decision::Wait(soonest) };
        if situation.in_flight >= self.limits.max_concurrent_inserts.max(1) {
            return Decision::Wait(None);
        }
        let token = self.bucket.ready_at(now);
        if token > now {
            return Decision::Wait(Some(token));
        }
        self.bucket.tokens -= 1.0;
        Decision::Send(at)
    }

    /// Since when the lane's head waits, and when it may go; `None` while something must end first.
    fn ready_at(&self, lane: &Lane, situation: Situation) -> Option<(Instant, Instant)> {
        let head = lane.head?;
        let since = head.since();
        if lane.barred || lane.in_flight >= self.limits.max_in_flight.max(1) {
            return None;
        }
        let gathering = (situation.behind / BEHIND_PART).min(BEHIND_MAX);
        let ready = match head {
            Head::Barrier(_) => (lane.in_flight == 0).then_some(situation.now)?,
            Head::Sealed(_) => situation.now,
            Head::Gathering(_) if situation.urgent => situation.now,
            Head::Gathering(_) if lane.in_flight > 0 => since + AGE_MAX.max(gathering),
            Head::Gathering(_) => {
                let interval = lane.last_start.map_or(since, |start| start + self.limits.min_interval);
                let hold = if situation.in_transaction { since + TRANSACTION_HOLD } else { since };
                interval.max(hold).max(since + gathering)
            }
        };
        Some((since, ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Clock(Instant);

    impl Clock {
        fn situation(&self) -> Situation {
            Situation {
                now: self.0,
                urgent: false,
                in_transaction: false,
                behind: Duration::ZERO,
                in_flight: 0,
            }
        }
    }

    fn lane(head: Head) -> Lane {
        Lane { head: Some(head), in_flight: 0, barred: false, last_start: None }
    }

    fn decide(batcher: &mut Batcher, lanes: &[Lane], situation: Situation) -> Decision {
        batcher.next(lanes.iter().copied().enumerate(), situation)
    }

    fn start() -> (Clock, Batcher) {
        let now = Instant::now();
        (Clock(now), Batcher::new(Limits::default(), now))
    }

    #[test]
    fn rows_go_at_once_when_nothing_is_in_flight_and_the_interval_has_passed() {
        let (clock, mut batcher) = start();
        let now = clock.0;
        let mut lane = lane(Head::Gathering(now));
        assert_eq!(decide(&mut batcher, &[lane], clock.situation()), Decision::Send(0));
        lane.last_start = Some(now);
        assert_eq!(decide(&mut batcher, &[lane], clock.situation()), Decision::Wait(Some(now + 50 * MS)));
        let later = Clock(now + 50 * MS);
        assert_eq!(decide(&mut batcher, &[lane], later.situation()), Decision::Send(0));
    }

    #[test]
    fn rows_gather_behind_an_insert_until_they_are_full_or_old() {
        let (clock, mut batcher) = start();
        let now = clock.0;
        let behind = |head| Lane { in_flight: 1, ..lane(head) };
        let gathering = behind(Head::Gathering(now));
        assert_eq!(
            decide(&mut batcher, &[gathering], clock.situation()),
            Decision::Wait(Some(now + AGE_MAX))
        );
        assert_eq!(decide(&mut batcher, &[gathering], Clock(now + AGE_MAX).situation()), Decision::Send(0));
        assert_eq!(decide(&mut batcher, &[behind(Head::Sealed(now))], clock.situation()), Decision::Send(0));
        let urgent = Situation { urgent: true, ..clock.situation() };
        assert_eq!(decide(&mut batcher, &[gathering], urgent), Decision::Send(0));
        let busy = Lane { in_flight: 2, ..gathering };
        assert_eq!(decide(&mut batcher, &[busy], urgent), Decision::Wait(None));
    }

    #[test]
    fn a_barrier_waits_for_what_is_before_it_and_holds_what_is_behind_it() {
        let (clock, mut batcher) = start();
        let barrier = lane(Head::Barrier(clock.0));
        assert_eq!(
            decide(&mut batcher, &[Lane { in_flight: 1, ..barrier }], clock.situation()),
            Decision::Wait(None)
        );
        assert_eq!(decide(&mut batcher, &[barrier], clock.situation()), Decision::Send(0));
        let behind = Lane { barred: true, in_flight: 1, ..lane(Head::Sealed(clock.0)) };
        assert_eq!(decide(&mut batcher, &[behind], clock.situation()), Decision::Wait(None));
    }

    #[test]
    fn the_rest_of_a_transaction_is_waited_for_but_not_long() {
        let (clock, mut batcher) = start();
        let gathering = lane(Head::Gathering(clock.0));
        let inside = Situation { in_transaction: true, ..clock.situation() };
        assert_eq!(
            decide(&mut batcher, &[gathering], inside),
            Decision::Wait(Some(clock.0 + TRANSACTION_HOLD))
        );
    }

    #[test]
    fn rows_gather_for_longer_while_the_stream_is_behind() {
        let (clock, mut batcher) = start();
        let gathering = lane(Head::Gathering(clock.0));
        for (behind, wait) in [(200 * MS, 50 * MS), (Duration::from_secs(3_600), BEHIND_MAX)] {
            let late = Situation { behind, ..clock.situation() };
            assert_eq!(decide(&mut batcher, &[gathering], late), Decision::Wait(Some(clock.0 + wait)));
            let sealed = lane(Head::Sealed(clock.0));
            assert_eq!(decide(&mut batcher, &[sealed], late), Decision::Send(0));
            let urgent = Situation { urgent: true, ..late };
            assert_eq!(decide(&mut batcher, &[gathering], urgent), Decision::Send(0));
        }
    }

    #[test]
    fn the_table_that_waits_longest_goes_first_within_the_destinations_budget() {
        let (clock, mut batcher) = start();
        let now = clock.0;
        let lanes = [lane(Head::Sealed(now)), lane(Head::Sealed(now - 2 * MS)), lane(Head::Sealed(now - MS))];
        assert_eq!(decide(&mut batcher, &lanes, clock.situation()), Decision::Send(1));
        let crowded = Situation { in_flight: 4, ..clock.situation() };
        assert_eq!(decide(&mut batcher, &lanes, crowded), Decision::Wait(None));
        for _ in 1..50 {
            assert_eq!(decide(&mut batcher, &lanes, clock.situation()), Decision::Send(1));
        }
        // 50 a second: as many at once, and then one every 20 ms.
        let Decision::Wait(Some(token)) = decide(&mut batcher, &lanes, clock.situation()) else { panic!() };
        assert!(token > now + 19 * MS && token < now + 21 * MS);
        assert_eq!(decide(&mut batcher, &lanes, Clock(token).situation()), Decision::Send(1));
    }

    #[test]
    fn limits_are_by_rows_or_bytes() {
        let (_, batcher) = start();
        assert!(!batcher.is_full(99_999, 1) && batcher.is_full(100_000, 1) && batcher.is_full(1, 32 << 20));
    }
}
