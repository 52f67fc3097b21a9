//! Figures, their medians, and the page that shows them. Pure, but for reading and writing the page.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

use crate::meter::Parts;

/// Figures of one measurement, in the order in which they are shown. The name tells the unit.
pub type Figures = Vec<(&'static str, f64)>;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// Medians over the rounds.
    #[serde(serialize_with = "as_map")]
    pub figures: Figures,
}

/// What belongs into one table.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// As on the command line.
    pub name: &'static str,
    /// What the table shows, and how it was measured.
    #[serde(skip)]
    pub about: &'static str,
    /// How often each was measured.
    pub rounds: u32,
    /// The measurements.
    pub lines: Vec<Line>,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The machine and the versions.
    machine: String,
    /// The arguments behind what is measured.
    #[serde(skip)]
    how: String,
    sections: Vec<Section>,
}

fn as_map<S: serde::Serializer>(figures: &Figures, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().copied())
}

/// The rounds of one measurement.
#[derive(Debug, Default)]
pub struct Rounds(Vec<Figures>);

impl Rounds {
    /// Adds a round.
    pub fn add(&mut self, figures: Figures) {
        self.0.push(figures);
    }

    /// The median of each figure.
    pub fn line(&self, what: impl Into<String>) -> Line {
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in self.0.iter().flatten() {
            values.entry(name).or_default().push(*value);
        }
        let names = self.0.first().into_iter().flatten().map(|(name, _)| *name);
        let figures = names.filter_map(|name| Some((name, median(values.get_mut(name)?)))).collect();
        Line { what: what.into(), figures }
    }
}

/// The value in the middle; of an even number, the mean of both.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The value below which this part of the sorted values lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// What every throughput shows: rows a second, and per million rows the CPU seconds of each part.
pub fn throughput(rows: u64, seconds: f64, parts: &Parts) -> Figures {
    let millions = rows as f64 / 1e6;
    vec![
        ("rows/s", rows as f64 / seconds),
        ("worker CPU s/M", parts.worker.cpu / millions),
        ("source CPU s/M", parts.source.cpu / millions),
        ("ClickHouse CPU s/M", parts.clickhouse.cpu / millions),
        ("client CPU s/M", parts.ours.cpu / millions),
        ("worker peak MiB", parts.worker.peak_mib),
    ]
}

impl Report {
    /// An empty report of this machine, of what was measured with these arguments.
    pub fn new(how: String) -> Self {
        Self { machine: machine(), how, sections: Vec::new() }
    }

    /// Adds a section.
    pub fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// As one line of JSON.
    ///
    /// # Errors
    /// None in practice.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// As tables.
    pub fn markdown(&self) -> String {
        self.sections.iter().map(|section| self.section(section)).collect::<Vec<_>>().join("\n")
    }

    fn section(&self, section: &Section) -> String {
        let rounds = if section.rounds == 1 {
            "one round".into()
        } else {
            format!("medians of {} rounds", section.rounds)
        };
        let mut text = format!(
            "{}\n\n`cargo run --release -p millrace-bench -- {}{}`, {rounds}. {}\n",
            section.about, section.name, self.how, self.machine
        );
        let mut lines = section.lines.as_slice();
        while let Some(first) = lines.first() {
            let columns: Vec<&str> = first.figures.iter().map(|(name, _)| *name).collect();
            // What has other figures begins a table of its own.
            let fits = |line: &Line| line.figures.iter().all(|(name, _)| columns.contains(name));
            let count = lines.iter().position(|line| !fits(line)).unwrap_or(lines.len());
            text.push_str(&table(&columns, &lines[..count]));
            lines = &lines[count..];
        }
        text
    }

    /// Replaces the tables that were measured in a page, between the marks of their sections.
    ///
    /// # Errors
    /// If the page cannot be read or written, or lacks a section's marks.
    pub fn write(&self, page: &Path) -> anyhow::Result<()> {
        let mut text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
        for section in &self.sections {
            let (begin, end) =
                (format!("<!-- {} -->\n", section.name), format!("<!-- end {} -->", section.name));
            let marks =
                text.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
            let (head, tail) = marks.with_context(|| format!("{} has no {begin}", page.display()))?;
            text = format!("{head}{begin}{}{end}{tail}", self.section(section));
        }
        std::fs::write(page, text).with_context(|| page.display().to_string())
    }
}

fn table(columns: &[&str], lines: &[Line]) -> String {
    let mut text = "\n| |".to_owned();
    text.extend(columns.iter().map(|name| format!(" {name} |")));
    text.push_str("\n|---|");
    text.extend(columns.iter().map(|_| "---:|"));
    text.push('\n');
    for line in lines {
        text.push_str(&format!("| {} |", line.what));
        for column in columns {
            let value = line.figures.iter().find(|(name, _)| name == column).map(|(_, value)| *value);
            text.push_str(&format!(" {} |", value.map_or_else(String::new, number)));
        }
        text.push('\n');
    }
    text
}

/// A figure with as many digits as matter.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size >= 10_000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// With its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The machine, its load, and the versions of what runs on it.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: String, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let model = after(read("/proc/cpuinfo"), "model name");
    let memory = after(read("/proc/meminfo"), "MemTotal");
    let memory = memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let date =
        date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!(
        "{date}: {cores} cores ({model}), {:.0} GiB, Linux {kernel}, load {load} when it began; Millrace {}, PostgreSQL {}, ClickHouse {}.",
        memory / 1024.0 / 1024.0,
        env!("CARGO_PKG_VERSION"),
        millrace_embedded::postgres::VERSION,
        millrace_embedded::clickhouse::VERSION,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_each_figure() {
        let mut rounds = Rounds::default();
        for value in [3.0, 1.0, 2.0] {
            rounds.add(vec![("a", value), ("b", -value)]);
        }
        assert_eq!(rounds.line("x").figures, [("a", 2.0), ("b", -2.0)]);
        assert_eq!(median(&mut [1.0, 2.0]), 1.5);
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.95, 1.0].map(|part| percentile(&sorted, part)), [50.0, 95.0, 100.0]);
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let texts = [0.123, 12.34, 123.4, 1_234_567.8, f64::NAN].map(number);
        assert_eq!(texts, ["0.12", "12.3", "123", "1,234,568", "-"]);
    }

    #[test]
    fn only_what_was_measured_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        std::fs::write(&page, "head\n<!-- a -->\nold\n<!-- end a -->\n<!-- b -->\nkept\n<!-- end b -->\n")
            .unwrap();
        let line = |what: &str, figures| Line { what: what.into(), figures };
        let lines = vec![
            line("x", vec![("rows/s", 5.0), ("s", 1.0)]),
            line("y", vec![("s", 2.0)]),
            line("z", vec![("ms", 3.0)]),
        ];
        let section = Section { name: "a", about: "About.", rounds: 1, lines };
        let report = Report { machine: "here".into(), how: " --rounds 1".into(), sections: vec![section] };
        report.write(&page).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("head\n<!-- a -->\nAbout.") && text.contains("| x | 5.00 |"), "{text}");
        assert!(!text.contains("old") && text.contains("kept"), "{text}");
    }
}
