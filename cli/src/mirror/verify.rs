//! `millrace mirror verify`: compares tables with their sources, and waits for the result.
//!
//! I/O rim; what is shown is pure.

mod screen;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use millrace_proto::v1::verification::{State, Verdict};
use millrace_proto::v1::{
    CancelVerificationRequest, Difference, GetVerificationRequest, Verification, VerifyMirrorRequest,
    difference,
};
use millrace_terms::{Class, Code, Error};

use crate::client::output::{self, Column, Output};
use crate::client::{Client, LinkArguments, call, figures, request_id};
use crate::failure::{EXIT_DIFFERENT, Failure};

use self::screen::Screen;

/// Time between two looks.
const POLL: Duration = Duration::from_millis(300);
/// Time for which a server that went away is waited for: a restart takes less.
const RECONNECT_MAX: Duration = Duration::from_secs(60);
/// Rows that differ, per call.
const PAGE_SIZE: i32 = 1_000;

/// Arguments of `millrace mirror verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 everything compared is equal, or was mended; 4 rows differ, or of some nothing is certain.

Examples:
  millrace mirror verify shop
  millrace mirror verify shop --tables public.orders,public.customers --sample 5%
  millrace mirror verify shop --repair")]
pub(super) struct VerifyArguments {
    /// Name of the mirror
    name: String,
    /// Only these tables, by their names on the source
    #[arg(long, value_name = "SCHEMA.TABLE", value_delimiter = ',')]
    tables: Vec<String>,
    /// Compare a part of each table's ranges, chosen at random: `0.05` or `5%`
    #[arg(long, value_name = "PART", value_parser = part)]
    sample: Option<f64>,
    /// Write what the source holds and delete by key what it does not, while the tables stream on
    #[arg(long)]
    repair: bool,
    /// Show the values of rows that differ, and not only their keys
    #[arg(long)]
    values: bool,
    /// Read so many rows of the source per second at most
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    rows_per_second: i64,
    /// Return at once, and print the id
    #[arg(long, conflicts_with = "id")]
    no_wait: bool,
    /// Wait for a verification that was begun before
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
}

/// A part: `0.05`, or `5%`.
fn part(text: &str) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let part: f64 = number.trim().parse().map_err(|_| "is no number".to_owned())?;
    let part = part / of;
    if part > 0.0 && part <= 1.0 { Ok(part) } else { Err("must be above 0 and up to 1, or 100%".to_owned()) }
}

pub(super) async fn run(
    link: &LinkArguments,
    arguments: VerifyArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(link).await?;
    let (name, no_wait) = (arguments.name.clone(), arguments.no_wait);
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => begin(&mut client, arguments).await?,
    };
    if no_wait {
        let begun = get(&mut client, &name, &id, String::new(), 1).await?;
        output.print(&begun, |begun| {
            format!("verification {} of mirror {} has begun", begun.id, begun.mirror)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        ended = wait(&mut client, &name, &id) => ended?,
        _ = interrupted => {
            let mut client = Client::connect(link).await?;
            let request = CancelVerificationRequest { name: name.clone(), id: id.clone() };
            client.mirrors.cancel_verification(call(request)).await?;
        }
    }
    let result = whole(&mut client, &name, &id).await?;
    output.print(&result, show)?;
    exit_code(&result).map_err(Into::into)
}

async fn begin(client: &mut Client, arguments: VerifyArguments) -> anyhow::Result<String> {
    let request = VerifyMirrorRequest {
        name: arguments.name,
        tables: arguments.tables,
        sample: arguments.sample.unwrap_or(0.0),
        repair: arguments.repair,
        with_values: arguments.values,
        rows_per_second: arguments.rows_per_second,
        request_id: request_id(),
    };
    Ok(client.mirrors.verify_mirror(call(request)).await?.into_inner().id)
}

async fn get(
    client: &mut Client,
    name: &str,
    id: &str,
    page_token: String,
    page_size: i32,
) -> Result<Verification, tonic::Status> {
    let request = GetVerificationRequest { name: name.to_owned(), id: id.to_owned(), page_size, page_token };
    Ok(client.mirrors.get_verification(call(request)).await?.into_inner())
}

/// Waits for the end, and shows how far it is. A server that goes away is waited for.
async fn wait(client: &mut Client, name: &str, id: &str) -> anyhow::Result<()> {
    let mut screen = Screen::new()?;
    let mut answered = Instant::now();
    loop {
        match get(client, name, id, String::new(), 1).await {
            Ok(verification) => {
                answered = Instant::now();
                screen.show(&verification, answered);
                if verification.state() != State::Running {
                    screen.clear();
                    return Ok(());
                }
            }
            Err(status) => {
                let failure = Failure::from(status);
                if failure.class != Class::Unavailable || answered.elapsed() >= RECONNECT_MAX {
                    return Err(failure.into());
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The verification with all rows that differ.
async fn whole(client: &mut Client, name: &str, id: &str) -> anyhow::Result<Verification> {
    let mut whole = get(client, name, id, String::new(), PAGE_SIZE).await?;
    while !whole.next_page_token.is_empty() {
        let token = std::mem::take(&mut whole.next_page_token);
        let page = get(client, name, id, token, PAGE_SIZE).await?;
        whole.differences.extend(page.differences);
        whole.next_page_token = page.next_page_token;
    }
    Ok(whole)
}

/// Rows that differ, and then the tables.
fn show(verification: &Verification) -> String {
    let mut parts = Vec::new();
    if !verification.differences.is_empty() {
        parts.push(differences(&verification.differences));
    }
    parts.push(tables(verification));
    let not_told: i64 = verification.tables.iter().filter(|table| !table.append_only).map(found).sum::<i64>()
        - i64::try_from(verification.differences.len()).unwrap_or(i64::MAX);
    if not_told > 0 {
        parts.push(format!("{} more rows differ that are not shown", figures::count(not_told)));
    }
    parts.extend(notes(verification));
    parts.join("\n\n")
}

fn found(table: &millrace_proto::v1::VerifiedTable) -> i64 {
    table.rows_missing + table.rows_extra + table.rows_different
}

fn differences(rows: &[Difference]) -> String {
    let columns =
        [Column::Text("DIFFERENCE"), Column::Text("TABLE"), Column::Text("KEY"), Column::Text("COLUMNS")];
    let line = |row: &Difference| {
        let kind = match row.kind() {
            difference::Kind::MissingInDestination => "missing",
            difference::Kind::ExtraInDestination => "extra",
            difference::Kind::Different => "different",
            difference::Kind::Unspecified => "?",
        };
        let mended = if row.mended { ", mended" } else { "" };
        vec![format!("{kind}{mended}"), row.table.clone(), cells(&row.key), described(row)]
    };
    output::grid(&columns, rows.iter().map(line))
}

/// The columns that differ, with their values if these were asked for.
fn described(row: &Difference) -> String {
    let value = |cells: &[millrace_proto::v1::Cell], name: &str| {
        cells.iter().find(|cell| cell.column == name).map(|cell| shown(cell.value.as_deref()))
    };
    let of = |name: &String| match (value(&row.source, name), value(&row.destination, name)) {
        (Some(source), Some(destination)) => format!("{name}: {source} on the source, {destination} here"),
        _ => name.clone(),
    };
    let named: Vec<String> = match row.columns.as_slice() {
        [] => vec![cells(if row.source.is_empty() { &row.destination } else { &row.source })],
        columns => columns.iter().map(of).collect(),
    };
    named.join(", ")
}

fn cells(cells: &[millrace_proto::v1::Cell]) -> String {
    let named = cells.iter().map(|cell| format!("{}={}", cell.column, shown(cell.value.as_deref())));
    named.collect::<Vec<_>>().join(", ")
}

/// A value on one line.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.chars().all(|c| !c.is_control() && c != ' ' && c != ',') && !text.is_empty() => {
            text.to_owned()
        }
        Some(text) => format!("{text:?}"),
    }
}

fn tables(verification: &Verification) -> String {
    let columns = [
        Column::Text("TABLE"),
        Column::Text("VERDICT"),
        Column::Number("ROWS"),
        Column::Number("THERE"),
        Column::Number("MISSING"),
        Column::Number("EXTRA"),
        Column::Number("DIFFERENT"),
        Column::Number("MENDED"),
        Column::Number("UNSETTLED"),
        Column::Number("RANGES"),
    ];
    let line = |table: &millrace_proto::v1::VerifiedTable| {
        let verdict = match table.verdict() {
            Verdict::Unspecified => "-",
            verdict => verdict.as_str_name(),
        };
        let numbers = [
            table.rows_source,
            table.rows_destination,
            table.rows_missing,
            table.rows_extra,
            table.rows_different,
            table.rows_mended,
            table.rows_unsettled,
        ];
        let mut cells = vec![table.source.clone(), verdict.to_owned()];
        cells.extend(numbers.map(figures::count));
        cells.push(format!("{}/{}", figures::count(table.ranges_done), figures::count(table.ranges_cut)));
        cells
    };
    output::grid(&columns, verification.tables.iter().map(line))
}

/// What the tables' numbers do not say.
fn notes(verification: &Verification) -> Vec<String> {
    let mut notes = Vec::new();
    for table in &verification.tables {
        let source = &table.source;
        if !table.skipped.is_empty() {
            notes.push(format!("{source} was not compared: {}", table.skipped));
        }
        for (column, why) in &table.columns_not_compared {
            notes.push(format!("{source}: column {column} cannot be compared: {why}"));
        }
        if table.append_only && table.skipped.is_empty() {
            notes.push(format!(
                "{source} has no key: its rows are counted, and rows that differ have no name"
            ));
        }
        if table.rows_unsettled > 0 {
            let why = match table.held_by.as_str() {
                "" => "they were changed between all looks at them".to_owned(),
                who => format!("{who} keeps it from being certain"),
            };
            notes.push(format!("{source}: of {} rows nothing is certain: {why}", table.rows_unsettled));
        }
    }
    if verification.state() == State::Cancelled {
        notes.push("the verification was ended before it was over".to_owned());
    }
    if notes.is_empty() { notes } else { vec![notes.join("\n")] }
}

fn exit_code(verification: &Verification) -> Result<ExitCode, Failure> {
    match (verification.state(), verification.verdict()) {
        (State::Failed, _) => {
            let failure = verification.error.clone().unwrap_or_default();
            let code: Code = failure.code.parse().unwrap_or(Code::Internal);
            Err(Failure::from(&Error::new(code, failure.message)))
        }
        (_, Verdict::Different | Verdict::Unsettled) => Ok(ExitCode::from(EXIT_DIFFERENT)),
        (State::Cancelled, _) => {
            Err(Failure::from(&Error::new(Code::Cancelled, "the verification was ended before it was over")))
        }
        (_, Verdict::Skipped) => {
            let text = "no table could be compared: the reasons are above";
            Err(Failure::from(&Error::new(Code::MirrorState, text)))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1::{Cell, VerifiedTable};

    use super::*;

    fn cell(column: &str, value: Option<&str>) -> Cell {
        Cell { column: column.into(), value: value.map(str::to_owned) }
    }

    #[test]
    fn parts_are_fractions_or_percent() {
        assert_eq!((part("0.05"), part("5%"), part("100 %")), (Ok(0.05), Ok(0.05), Ok(1.0)));
        for wrong in ["0", "1.5", "101%", "-1%", "many"] {
            assert!(part(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_that_differ_are_shown_by_key() {
        let row = |kind: difference::Kind, key: Vec<Cell>, columns: &[&str]| Difference {
            table: "public.t".into(),
            kind: kind.into(),
            key,
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            ..Difference::default()
        };
        let result = Verification {
            state: State::Completed.into(),
            verdict: Verdict::Different.into(),
            tables: vec![
                VerifiedTable {
                    source: "public.t".into(),
                    verdict: Verdict::Different.into(),
                    rows_source: 1_000,
                    rows_destination: 1_000,
                    rows_missing: 1,
                    rows_extra: 1,
                    rows_different: 2,
                    ranges_done: 1,
                    ranges_cut: 4,
                    ..VerifiedTable::default()
                },
                VerifiedTable {
                    source: "public.u".into(),
                    verdict: Verdict::Skipped.into(),
                    skipped: "the table is PAUSED".into(),
                    ..VerifiedTable::default()
                },
            ],
            differences: vec![
                row(difference::Kind::MissingInDestination, vec![cell("id", Some("7"))], &[]),
                row(
                    difference::Kind::ExtraInDestination,
                    vec![cell("a", Some("two words")), cell("b", None)],
                    &[],
                ),
                Difference {
                    mended: true,
                    source: vec![cell("v", Some("x"))],
                    destination: vec![cell("v", None)],
                    ..row(difference::Kind::Different, vec![cell("id", Some("9"))], &["v"])
                },
            ],
            ..Verification::default()
        };
        insta::assert_snapshot!(show(&result), @r#"
        DIFFERENCE         TABLE     KEY                    COLUMNS
        missing            public.t  id=7
        extra              public.t  a="two words", b=NULL
        different, mended  public.t  id=9                   v: x on the source, NULL here

        TABLE     VERDICT     ROWS  THERE  MISSING  EXTRA  DIFFERENT  MENDED  UNSETTLED  RANGES
        public.t  DIFFERENT  1,000  1,000        1      1          2       0          0     1/4
        public.u  SKIPPED        0      0        0      0          0       0          0     0/0

        1 more rows differ that are not shown

        public.u was not compared: the table is PAUSED
        "#);
        assert_eq!(exit_code(&result).unwrap(), ExitCode::from(EXIT_DIFFERENT));
    }

    #[test]
    fn what_is_not_proven_equal_is_no_success() {
        let code = |state: State, verdict: Verdict| {
            let result =
                Verification { state: state.into(), verdict: verdict.into(), ..Verification::default() };
            exit_code(&result).map(|code| format!("{code:?}")).map_err(|failure| failure.exit_code())
        };
        let success = Ok(format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(State::Completed, Verdict::Equal), success);
        assert_eq!(code(State::Completed, Verdict::Mended), success);
        assert_eq!(code(State::Completed, Verdict::Unsettled), Ok(format!("{:?}", ExitCode::from(4))));
        assert_eq!(code(State::Completed, Verdict::Skipped), Err(2));
        assert!(code(State::Cancelled, Verdict::Unspecified).is_err());
    }
}
