//! Figures of a running stream: how many rows it writes, and until when its source is caught up with.
//!
//! Pure: the caller says what time it is.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use millrace_terms::Lsn;
use tokio::time::Instant;

/// Time over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(60);

/// Rows are counted by steps of this length, so that a rate changes no oftener while nothing comes.
const STEP: Duration = Duration::from_secs(5);

/// Marks that are kept: with one every 5 s, those of five minutes. Of a stream that lags more only every
/// second one is kept, then every fourth and so on: the longer its lag, the less exactly it is known.
const MARKS_MAX: usize = 64;

/// Counts rows, and says how many were written per second over the last minute.
#[derive(Debug)]
pub(super) struct Meter {
    begun: Instant,
    /// Begin and rows of each step, the oldest first.
    steps: VecDeque<(Instant, u64)>,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, steps: VecDeque::new() }
    }

    /// Counts rows that were written.
    pub(super) fn add(&mut self, now: Instant, rows: u64) {
        match self.steps.back_mut() {
            Some((begun, counted)) if now.duration_since(*begun) < STEP => *counted += rows,
            _ => self.steps.push_back((now, rows)),
        }
    }

    /// Rows per second over the last minute, or since the attempt began.
    pub(super) fn rows_per_s(&mut self, now: Instant) -> f64 {
        while self.steps.front().is_some_and(|(begun, _)| now.duration_since(*begun) >= WINDOW) {
            self.steps.pop_front();
        }
        let rows: u64 = self.steps.iter().map(|(_, rows)| rows).sum();
        // Whole steps, for the same reason.
        let steps = now.duration_since(self.begun).as_secs() / STEP.as_secs() + 1;
        let seconds = (steps * STEP.as_secs()).min(WINDOW.as_secs());
        rows as f64 / seconds as f64
    }
}

/// Where the source's log ended at some times. Once the position has come there, every commit until then
/// is in the destination: that holds for a mirror none of whose tables was written to for days.
#[derive(Debug)]
pub(super) struct Marks {
    /// Ends and times, both growing.
    ahead: VecDeque<(Lsn, Timestamp)>,
    /// One mark of so many is kept.
    spacing: u64,
    /// Marks left out since the last that was kept.
    left_out: u64,
    reached: Option<Timestamp>,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self { ahead: VecDeque::new(), spacing: 1, left_out: 0, reached: None }
    }

    /// Takes note that the log ended at `end` at `at`, by the source's clock.
    pub(super) fn see(&mut self, end: Lsn, at: Timestamp) {
        if self.ahead.back().is_some_and(|(last, _)| *last > end) {
            // Another log.
            self.ahead.clear();
        }
        if self.ahead.is_empty() {
            self.spacing = 1;
        }
        self.left_out += 1;
        if self.left_out < self.spacing {
            return;
        }
        self.left_out = 0;
        if self.ahead.len() >= MARKS_MAX {
            self.spacing *= 2;
            let mut is_kept = false;
            self.ahead.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.ahead.push_back((end, at));
    }

    /// The last time by which everything that was committed lies before `position`.
    pub(super) fn reached(&mut self, position: Lsn) -> Option<Timestamp> {
        while let Some((end, at)) = self.ahead.front()
            && *end <= position
        {
            self.reached = Some(*at);
            self.ahead.pop_front();
        }
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut meter = Meter::new(begun);
        assert_eq!(meter.rows_per_s(at(0)), 0.0);
        meter.add(at(1), 500);
        meter.add(at(2), 500);
        assert_eq!(meter.rows_per_s(at(3)), 200.0, "since it began");
        assert_eq!(meter.rows_per_s(at(4)), 200.0, "it does not change for nothing");
        assert_eq!(meter.rows_per_s(at(19)), 50.0);
        meter.add(at(59), 200);
        assert_eq!(meter.rows_per_s(at(60)), 20.0);
        assert_eq!(meter.rows_per_s(at(61)), 200.0 / 60.0, "what came before is forgotten");
        assert_eq!(meter.rows_per_s(at(119)), 0.0);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_position_is_as_late_as_the_last_end_of_the_log_that_it_has_come_to() {
        let mut marks = Marks::new();
        assert_eq!(marks.reached(Lsn(5)), None);
        marks.see(Lsn(10), at(1));
        marks.see(Lsn(10), at(2));
        marks.see(Lsn(20), at(3));
        assert_eq!(marks.reached(Lsn(9)), None);
        assert_eq!(marks.reached(Lsn(10)), Some(at(2)), "nothing was written in between");
        assert_eq!(marks.reached(Lsn(19)), Some(at(2)));
        assert_eq!(marks.reached(Lsn(25)), Some(at(3)));
        marks.see(Lsn(30), at(4));
        assert_eq!(marks.reached(Lsn(25)), Some(at(3)), "it never goes back");
    }

    #[test]
    fn a_stream_that_lags_for_hours_keeps_few_marks() {
        let mut marks = Marks::new();
        for second in 1..=5_000_i64 {
            marks.see(Lsn(second.unsigned_abs()), at(second));
        }
        assert!(marks.ahead.len() <= MARKS_MAX);
        let reached = marks.reached(Lsn(2_500)).unwrap();
        assert!(reached <= at(2_500) && reached >= at(2_300), "{reached}");
        assert!(marks.reached(Lsn(5_000)) >= Some(at(4_800)));
        marks.see(Lsn(5_001), at(5_001));
        assert_eq!(marks.reached(Lsn(5_001)), Some(at(5_001)), "it is exact again when it has caught up");
    }
}
