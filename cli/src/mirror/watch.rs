//! `millrace mirror watch`: bars in a terminal, lines elsewhere, one JSON object an update on demand.
//!
//! I/O rim; what a line says is pure.

use std::cmp::Reverse;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_proto::v1::{Mirror, Table, table};

use super::progress;
use super::show;
use super::wait::Watch;
use crate::client::Client;
use crate::client::figures;
use crate::client::output::{self, Output};

/// Tables shown at once: what fits on a screen. Those that need attention come first.
const TABLES_SHOWN_MAX: usize = 16;

/// Least time between two lines of a mirror whose states did not change.
const LINE_PAUSE: Duration = Duration::from_secs(1);

/// Steps of a bar: finer than any terminal is wide.
const BAR_STEPS: u64 = 1_000;

/// Follows the mirror until it is gone.
pub(super) async fn run(client: &mut Client, name: &str, output: Output) -> anyhow::Result<()> {
    let mut screen = match output {
        Output::Table if std::io::stdout().is_terminal() => {
            Screen::Bars(Bars::new(ProgressDrawTarget::stdout())?)
        }
        Output::Table => Screen::Lines(Lines::default()),
        Output::Json | Output::Yaml => Screen::Objects(output),
    };
    let mut watch = Watch::new(client, name);
    while let Some(mirror) = watch.next().await? {
        match &mut screen {
            Screen::Bars(bars) => bars.draw(&mirror),
            Screen::Lines(lines) => {
                for line in lines.update(&mirror, Instant::now()) {
                    output::write(&line)?;
                }
            }
            Screen::Objects(Output::Yaml) => {
                output::write(&format!("---\n{}", serde_saphyr::to_string(&mirror)?))?
            }
            Screen::Objects(_) => output::write(&serde_json::to_string(&mirror)?)?,
        }
    }
    if let Screen::Bars(bars) = screen {
        bars.clear();
    }
    if output == Output::Table {
        output::write(&format!("mirror {name} is gone"))?;
    }
    Ok(())
}

/// What a command shows on stderr while it waits for a mirror.
pub(super) struct Progress {
    bars: Option<Bars>,
    lines: Lines,
}

impl Progress {
    pub(super) fn new() -> anyhow::Result<Self> {
        let bars = match std::io::stderr().is_terminal() {
            true => Some(Bars::new(ProgressDrawTarget::stderr())?),
            false => None,
        };
        Ok(Self { bars, lines: Lines::default() })
    }

    pub(super) fn show(&mut self, mirror: &Mirror) {
        match &mut self.bars {
            Some(bars) => bars.draw(mirror),
            None => {
                for line in self.lines.update(mirror, Instant::now()) {
                    eprintln!("{line}");
                }
            }
        }
    }

    pub(super) fn clear(self) {
        if let Some(bars) = self.bars {
            bars.clear();
        }
    }
}

enum Screen {
    Bars(Bars),
    Lines(Lines),
    Objects(Output),
}

/// Bars that are redrawn in place.
struct Bars {
    all: MultiProgress,
    tables: Vec<ProgressBar>,
    footer: ProgressBar,
    style: ProgressStyle,
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> anyhow::Result<Self> {
        let all = MultiProgress::with_draw_target(target);
        let footer = all.add(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{msg}")?));
        let style = ProgressStyle::with_template("{prefix:28!} {bar:24} {msg}")?.progress_chars("=> ");
        Ok(Self { all, tables: Vec::new(), footer, style })
    }

    fn draw(&mut self, mirror: &Mirror) {
        let shown = most_interesting(&mirror.tables);
        while self.tables.len() < shown.len() {
            let bar = ProgressBar::new(BAR_STEPS).with_style(self.style.clone());
            self.tables.push(self.all.insert_before(&self.footer, bar));
        }
        for bar in self.tables.drain(shown.len()..) {
            self.all.remove(&bar);
        }
        for (bar, table) in self.tables.iter().zip(&shown) {
            bar.set_prefix(table.source.clone());
            bar.set_position((progress::fraction(table) * BAR_STEPS as f64) as u64);
            bar.set_message(table_line(table));
        }
        let hidden = mirror.tables.len() - shown.len();
        let more = if hidden > 0 { format!("and {hidden} more tables\n") } else { String::new() };
        self.footer.set_message(format!("{more}{}", mirror_line(mirror)));
    }

    fn clear(self) {
        // A terminal that is gone needs no clearing.
        let _gone = self.all.clear();
    }
}

/// The tables that need attention: in error, then being copied, then the rest in their order.
fn most_interesting(tables: &[Table]) -> Vec<&Table> {
    let mut shown: Vec<_> = tables.iter().collect();
    shown.sort_by_key(|table| {
        Reverse(match table.state() {
            table::State::Error => 3,
            table::State::Copying | table::State::Resyncing => 2,
            table::State::Pending => 1,
            _ => 0,
        })
    });
    shown.truncate(TABLES_SHOWN_MAX);
    // Within what fits, tables stay where they are: bars that change places cannot be read.
    shown.sort_by_key(|table| tables.iter().position(|other| std::ptr::eq(other, *table)));
    shown
}

/// A table's state and figures.
fn table_line(table: &Table) -> String {
    let state = table.state().as_str_name();
    let note = show::note(table);
    let note = if note.is_empty() { String::new() } else { format!("  {note}") };
    if progress::is_copying(table) {
        let estimate =
            if table.rows_estimated > 0 { figures::count(table.rows_estimated) } else { "?".to_owned() };
        let percent = progress::fraction(table) * 100.0;
        let copied = figures::count(table.rows_copied);
        return format!("{state} {percent:.0}%  {copied} of ~{estimate}{note}");
    }
    let [copied, inserts, updates, deletes] =
        [table.rows_copied, table.inserts, table.updates, table.deletes].map(figures::count);
    let truncates = match table.truncates {
        0 => String::new(),
        truncates => format!("  {} truncates", figures::count(truncates)),
    };
    format!(
        "{state}  {copied} copied  {inserts} inserts  {updates} updates  {deletes} deletes{truncates}{note}"
    )
}

/// A mirror's state, how far its copies are, and how its streams fare.
fn mirror_line(mirror: &Mirror) -> String {
    let mut line = format!("{}: {}", mirror.name, mirror.state().as_str_name());
    if let Some(copies) = show::copies(mirror) {
        line.push_str(&format!("  {copies}"));
    }
    for stream in &mirror.streams {
        let number =
            if mirror.streams.len() > 1 { format!("stream {}: ", stream.number) } else { String::new() };
        line.push_str(&format!("  {number}{}, lag {}", show::verdict(stream), show::lag(stream)));
        if stream.rows_per_second > 0.0 {
            line.push_str(&format!(", {}", figures::rate(stream.rows_per_second)));
        }
        if let Some(seconds) = stream.replication_slot.as_ref().and_then(|slot| slot.seconds_to_limit) {
            line.push_str(&format!(", its slot is full in {}", figures::duration(seconds)));
        }
    }
    if let Some(error) = &mirror.error {
        line.push_str(&format!("  {}: {}", error.code, error.message));
    }
    line
}

/// Lines for logs and pipes: at once when a state changes, otherwise once a second while it moves.
#[derive(Default)]
struct Lines {
    written: Option<(Instant, String)>,
    states: Vec<(String, i32)>,
}

impl Lines {
    fn update(&mut self, mirror: &Mirror, now: Instant) -> Vec<String> {
        let states: Vec<_> = mirror.tables.iter().map(|table| (table.source.clone(), table.state)).collect();
        let summary = mirror_line(mirror);
        let changed: Vec<_> = mirror
            .tables
            .iter()
            .filter(|table| !self.states.contains(&(table.source.clone(), table.state)))
            .collect();
        let is_due = self.written.as_ref().is_none_or(|(at, old)| {
            now.duration_since(*at) >= LINE_PAUSE
                && (*old != summary || mirror.tables.iter().any(progress::is_copying))
        });
        if changed.is_empty() && !is_due {
            return Vec::new();
        }
        let told = mirror.tables.iter().filter(|table| {
            changed.iter().any(|other| std::ptr::eq(*other, *table))
                || (is_due && progress::is_copying(table))
        });
        let mut lines: Vec<_> =
            told.map(|table| format!("  {}: {}", table.source, table_line(table))).collect();
        lines.insert(0, summary.clone());
        self.states = states;
        self.written = Some((now, summary));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::shop;
    use super::*;

    #[test]
    fn lines_come_when_a_state_changes_and_once_a_second() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let mut mirror = shop();
        insta::assert_snapshot!(lines.update(&mirror, start).join("\n"), @r"
        shop: DEGRADED  0 of 2 tables copied, 40,000 rows/s, 2.0 s left  HEALTHY, lag 2.0 KiB, 0.2 s, 12 rows/s, its slot is full in 119 min
          public.orders: COPYING 60%  120,000 of ~200,000  40,000 rows/s, 2.0 s left
          public.log: ERROR  0 copied  0 inserts  0 updates  0 deletes  TABLE_SCHEMA_CHANGED
        ");
        mirror.tables[0].rows_copied += 1;
        assert!(lines.update(&mirror, start + LINE_PAUSE / 2).is_empty());
        assert_eq!(lines.update(&mirror, start + LINE_PAUSE).len(), 2);
        mirror.tables[0].set_state(table::State::Streaming);
        (mirror.tables[0].rows_per_second, mirror.tables[0].eta_seconds) = (None, None);
        insta::assert_snapshot!(lines.update(&mirror, start + LINE_PAUSE).join("\n"), @r"
        shop: DEGRADED  0 of 2 tables copied, 40,000 rows/s, 2.0 s left  HEALTHY, lag 2.0 KiB, 0.2 s, 12 rows/s, its slot is full in 119 min
          public.orders: STREAMING  120,001 copied  0 inserts  0 updates  0 deletes
        ");
        assert!(lines.update(&mirror, start + 3 * LINE_PAUSE).is_empty());
    }

    #[test]
    fn tables_in_error_are_always_shown() {
        let mut tables = vec![Table::default(); 40];
        tables[39].set_state(table::State::Error);
        tables[20].set_state(table::State::Copying);
        let shown = most_interesting(&tables);
        assert_eq!(shown.len(), TABLES_SHOWN_MAX);
        assert_eq!(shown.iter().filter(|table| table.state() != table::State::Unspecified).count(), 2);
        assert_eq!(shown.last().unwrap().state(), table::State::Error);
    }
}
