//! What a command writes to stdout: a table for people, JSON or YAML for programs.
//!
//! Pure, but for [`write`].

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use millrace_proto::v1::{Check, check};
use serde::Serialize;

/// Form of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// As the API returns it.
    Json,
    /// The same in YAML.
    Yaml,
}

impl Output {
    /// The text of a result.
    ///
    /// # Errors
    /// If the value cannot be serialised.
    pub fn render<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<String> {
        Ok(match self {
            Output::Table => table(value),
            Output::Json => serde_json::to_string_pretty(value)?,
            Output::Yaml => serde_saphyr::to_string(value)?,
        })
    }

    /// Writes a result to stdout.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        write(&self.render(value, table)?)
    }
}

/// Writes text and a line end to stdout. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// If stdout fails in another way.
pub fn write(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Columns of a table; numbers stand on the right.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Words.
    Text(&'static str),
    /// A number, perhaps with its unit.
    Number(&'static str),
}

/// A table without lines, so that `grep` and `awk` find the words, too. No row is ever wrapped.
pub fn grid(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    }));
    table.add_rows(rows);
    for (index, column) in columns.iter().enumerate() {
        if let Some(shown) = table.column_mut(index) {
            shown.set_padding((0, 2));
            if matches!(column, Column::Number(_)) {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

/// What was looked at on a peer, with the remedy under what needs one.
pub fn checks(checks: &[Check]) -> String {
    let mut lines = Vec::new();
    for check in checks {
        let status = match check.status() {
            check::Status::Pass => "ok  ",
            check::Status::Warn => "WARN",
            check::Status::Fail => "FAIL",
            check::Status::Unspecified => "?   ",
        };
        let subject = if check.subject.is_empty() { String::new() } else { format!(" {}", check.subject) };
        lines.push(format!("{status}  {}{subject}: {}", check.name, check.message));
        if !check.remedy.is_empty() {
            lines.push(format!("      remedy: {}", check.remedy));
        }
        if !check.code.is_empty() {
            lines.push(format!("      code: {}", check.code));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_no_lines_and_numbers_on_the_right() {
        let rows = vec![vec!["orders".into(), "1,000".into()], vec!["x".into(), "7".into()]];
        insta::assert_snapshot!(grid(&[Column::Text("TABLE"), Column::Number("ROWS")], rows), @r"
        TABLE    ROWS
        orders  1,000
        x           7
        ");
    }
}
