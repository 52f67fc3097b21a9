//! What a person sees while the demo runs: on stderr, redrawn on a terminal, else as lines.
//!
//! I/O rim.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_proto::v1 as api;
use millrace_proto::v1::table::State;

use super::report::Latency;
use crate::client::figures;

/// Pause between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(2);

/// Figures of the stream, as the demo measures them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stream {
    /// Rows changed on the source so far.
    pub changed: u64,
    /// Rows changed a second.
    pub per_s: f64,
    /// Commit to visible.
    pub latency: Latency,
}

/// The display.
#[derive(Debug)]
pub struct Display {
    bars: Option<Bars>,
    last_line: Option<Instant>,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    tables: Vec<ProgressBar>,
    stream: ProgressBar,
}

impl Display {
    /// A display with one line for each of `tables` tables and one for the stream.
    ///
    /// # Errors
    /// Never: the templates are constants.
    pub fn new(tables: usize) -> anyhow::Result<Self> {
        let bars = if std::io::stderr().is_terminal() { Some(Bars::new(tables)?) } else { None };
        Ok(Self { bars, last_line: None })
    }

    /// Says something above the bars.
    pub fn say(&self, text: &str) {
        match &self.bars {
            // A closed stderr is no reason to stop.
            Some(bars) => drop(bars.all.println(text)),
            None => line(text),
        }
    }

    /// Shows the mirror as it is now.
    pub fn show(&mut self, mirror: &api::Mirror, stream: Stream) {
        let flow = stream_line(mirror, stream);
        if let Some(bars) = &self.bars {
            for (bar, table) in bars.tables.iter().zip(&mirror.tables) {
                let total = table.rows_estimated.max(table.rows_copied).max(1);
                bar.set_length(total.unsigned_abs());
                bar.set_position(table.rows_copied.unsigned_abs());
                bar.set_prefix(table.source.clone());
                bar.set_message(state_word(table.state()));
            }
            bars.stream.set_message(flow);
            return;
        }
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_PAUSE) {
            self.last_line = Some(Instant::now());
            let copied: i64 = mirror.tables.iter().map(|table| table.rows_copied).sum();
            let streaming = mirror.tables.iter().filter(|table| table.state() == State::Streaming).count();
            let tables = mirror.tables.len();
            line(&format!(
                "{} rows copied, {streaming} of {tables} tables stream; {flow}",
                figures::count(copied)
            ));
        }
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        if let Some(bars) = &self.bars {
            drop(bars.all.clear());
        }
    }
}

impl Bars {
    fn new(tables: usize) -> anyhow::Result<Self> {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{prefix:20} [{bar:24}] {pos:>9} rows  {per_sec:>16}  {msg}")?
                .progress_chars("=> ");
        let bar = |_| all.add(ProgressBar::new(1).with_style(style.clone()));
        let tables = (0..tables).map(bar).collect();
        let stream = all.add(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{msg}")?));
        Ok(Self { all, tables, stream })
    }
}

fn stream_line(mirror: &api::Mirror, stream: Stream) -> String {
    let lag = mirror.streams.iter().filter_map(|stream| stream.lag_bytes).sum();
    let Stream { changed, per_s, latency } = stream;
    let changed = figures::count(i64::try_from(changed).unwrap_or(i64::MAX));
    let mut text = format!(
        "stream: {changed} changes on the source, {}, lag {}",
        figures::rate(per_s),
        figures::bytes(lag)
    );
    if latency.p50 > 0.0 {
        text.push_str(&format!(", commit to visible {} ms (p95 {} ms)", latency.p50, latency.p95));
    }
    text
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Pending | State::Unspecified => "pending",
        State::Copying => "copying",
        State::Streaming => "streaming",
        State::Resyncing => "resyncing",
        State::Paused => "paused",
        State::Error => "error",
        State::Dropped => "dropped",
    }
}

fn line(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}
