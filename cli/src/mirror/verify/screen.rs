//! Progress of a verification on stderr: a bar for a person, a line now and then for a log.
//!
//! I/O rim; what is shown when is pure.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_proto::v1::Verification;

use crate::client::figures;

/// Least time between two lines where nobody sees a bar.
const LINE_PAUSE: Duration = Duration::from_secs(5);
/// Time without progress after which it is said where to look: a worker takes up a range within a second, and a
/// range of 100,000 rows takes some seconds.
const STILL_MAX: Duration = Duration::from_secs(30);
/// What is said then.
const STILL_HINT: &str = "; no progress for a while: `millrace doctor` says whether workers run";
/// Steps of the bar: hundredths of a percent.
const BAR_STEPS: u64 = 10_000;

/// Where progress is shown.
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    pace: Pace,
}

impl Screen {
    pub(super) fn new() -> anyhow::Result<Self> {
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(BAR_STEPS), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{bar:30} {msg}")?);
            Some(bar)
        } else {
            None
        };
        Ok(Self { bar, pace: Pace::default() })
    }

    pub(super) fn show(&mut self, verification: &Verification, now: Instant) {
        let text = progress(verification);
        match &self.bar {
            Some(bar) => {
                bar.set_position((verification.percent * BAR_STEPS as f64 / 100.0) as u64);
                bar.set_message(self.pace.hinted(text, now));
            }
            None => {
                if let Some(line) = self.pace.line(text, now) {
                    eprintln!("{line}");
                }
            }
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// When progress was last seen, and a line last written.
#[derive(Debug, Default)]
struct Pace {
    text: String,
    moved: Option<Instant>,
    written: Option<Instant>,
}

impl Pace {
    /// The text, and where to look if it has stayed the same for long.
    fn hinted(&mut self, text: String, now: Instant) -> String {
        if self.text != text || self.moved.is_none() {
            self.moved = Some(now);
            self.text.clone_from(&text);
        }
        let still = self.moved.is_some_and(|moved| now.duration_since(moved) >= STILL_MAX);
        if still { text + STILL_HINT } else { text }
    }

    /// A line, if it is time for one: there is news, or nothing has moved for long.
    fn line(&mut self, text: String, now: Instant) -> Option<String> {
        let is_news = self.written.is_none() || self.text != text;
        let line = self.hinted(text, now);
        let pause = if is_news { LINE_PAUSE } else { STILL_MAX };
        let due = self.written.is_none_or(|written| now.duration_since(written) >= pause);
        if due {
            self.written = Some(now);
            return Some(line);
        }
        if is_news {
            // Not written yet: it is still news at the next look.
            self.text.clear();
        }
        None
    }
}

fn progress(verification: &Verification) -> String {
    let eta = match verification.eta_seconds {
        Some(seconds) => format!(", {} left", figures::duration(seconds)),
        None => String::new(),
    };
    let rows: i64 = verification.tables.iter().map(|table| table.rows_source).sum();
    format!(
        "{:.0}%, {} of {} ranges, {} rows{eta}",
        verification.percent,
        figures::count(verification.ranges_done),
        figures::count(verification.ranges_total),
        figures::count(rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_news_at_a_pace_and_a_hint_when_nothing_moves() {
        let began = Instant::now();
        let mut pace = Pace::default();
        let mut at =
            |seconds: u64, text: &str| pace.line(text.to_owned(), began + Duration::from_secs(seconds));
        assert_eq!(at(0, "0%").as_deref(), Some("0%"));
        assert_eq!(at(3, "0%"), None);
        assert_eq!(at(4, "1%"), None, "too early");
        assert_eq!(at(5, "1%").as_deref(), Some("1%"), "the news is not forgotten");
        assert_eq!(at(20, "1%"), None, "no news");
        assert_eq!(at(36, "1%"), Some(format!("1%{STILL_HINT}")));
        assert_eq!(at(50, "1%"), None);
        assert_eq!(at(51, "2%").as_deref(), Some("2%"));
    }
}
