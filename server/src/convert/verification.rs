//! Comparisons as the API shows them.
//!
//! Pure: no I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use millrace_catalog::verifications::{
    DifferencePlace, StoredDifference, Verification, VerificationState, VerifiedTable,
};
use millrace_proto::v1;
use millrace_proto::v1::difference::Kind;
use millrace_proto::v1::verification::{State, Verdict};
use millrace_terms::{Code, Error, Result};
use millrace_workflows::ids;
use serde::Deserialize;

use super::view;

/// A comparison at `now`, without its differences.
pub(crate) fn verification(stored: &Verification, now: Timestamp) -> v1::Verification {
    let tables: Vec<v1::VerifiedTable> = stored.tables.iter().map(|it| table(it, stored.state)).collect();
    let (done, total) = (sum(&tables, |table| table.ranges_done), sum(&tables, |table| table.ranges_total));
    let is_over = stored.state != VerificationState::Running;
    let percent = match (is_over, total) {
        (true, _) => 100.0,
        (false, 0) => 0.0,
        (false, total) => 100.0 * done as f64 / total as f64,
    };
    let elapsed = now.duration_since(stored.created_at).as_secs_f64();
    let id = stored.id.to_string();
    v1::Verification {
        mirror: stored.mirror.clone(),
        workflow_id: ids::verify(&stored.mirror, &id),
        id,
        state: state(stored.state).into(),
        verdict: overall(&tables, stored.state).into(),
        error: stored.error.as_ref().map(view::failure),
        sample: stored.spec.sample,
        repair: stored.spec.repair,
        ranges_done: done,
        ranges_total: total,
        percent,
        eta_seconds: (!is_over && done > 0).then(|| elapsed * (total - done) as f64 / done as f64),
        create_time: Some(view::time(stored.created_at)),
        end_time: stored.finished_at.map(view::time),
        tables,
        differences: Vec::new(),
        next_page_token: String::new(),
    }
}

fn sum(tables: &[v1::VerifiedTable], of: impl Fn(&v1::VerifiedTable) -> i64) -> i64 {
    tables.iter().map(of).sum()
}

fn state(state: VerificationState) -> State {
    match state {
        VerificationState::Running => State::Running,
        VerificationState::Completed => State::Completed,
        VerificationState::Failed => State::Failed,
        VerificationState::Cancelled => State::Cancelled,
    }
}

/// The worst of the tables' verdicts; of one that was not compared only if none was. What was found of a
/// comparison that was ended is no verdict, unless it is that rows differ.
fn overall(tables: &[v1::VerifiedTable], state: VerificationState) -> Verdict {
    let verdicts = tables.iter().map(v1::VerifiedTable::verdict);
    let worst = verdicts.filter(|verdict| *verdict != Verdict::Skipped).max_by_key(|it| i32::from(*it));
    match (state, worst) {
        (VerificationState::Completed, Some(worst)) => worst,
        (VerificationState::Completed, None) => Verdict::Skipped,
        (_, Some(Verdict::Different)) => Verdict::Different,
        _ => Verdict::Unspecified,
    }
}

fn table(table: &VerifiedTable, state: VerificationState) -> v1::VerifiedTable {
    let counts = &table.counts;
    v1::VerifiedTable {
        source: table.source.clone(),
        destination: table.destination.clone(),
        verdict: verdict(table, state).into(),
        skipped: table.skipped.clone().unwrap_or_default(),
        rows_source: number(counts.source_rows),
        rows_destination: number(counts.destination_rows),
        rows_missing: number(counts.missing),
        rows_extra: number(counts.extra),
        rows_different: number(counts.different),
        rows_mended: number(counts.mended),
        rows_unsettled: number(counts.unsettled),
        held_by: counts.held_by.clone().unwrap_or_default(),
        ranges_done: number(counts.done),
        ranges_total: number(counts.ranges),
        ranges_cut: number(table.cut),
        columns_not_compared: table.incomparable.iter().cloned().collect::<BTreeMap<_, _>>(),
        append_only: table.append_only,
    }
}

fn verdict(table: &VerifiedTable, state: VerificationState) -> Verdict {
    let counts = &table.counts;
    if counts.differences() > counts.mended {
        return Verdict::Different;
    }
    if table.skipped.is_some() {
        return Verdict::Skipped;
    }
    if state == VerificationState::Running || counts.done < counts.ranges {
        return Verdict::Unspecified;
    }
    match (counts.unsettled, counts.mended) {
        (0, 0) => Verdict::Equal,
        (0, _) => Verdict::Mended,
        _ => Verdict::Unsettled,
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the data plane tells of a row that differs.
#[derive(Debug, Deserialize)]
struct Told {
    kind: String,
    key: Vec<ToldCell>,
    columns: Vec<String>,
    source: Vec<ToldCell>,
    destination: Vec<ToldCell>,
}

#[derive(Debug, Deserialize)]
struct ToldCell {
    column: String,
    value: Option<String>,
}

/// A row that differs.
///
/// # Errors
/// CATALOG_VERSION for one that this release cannot read.
pub(crate) fn difference(stored: StoredDifference) -> Result<v1::Difference> {
    let unreadable = |error| Error::new(Code::CatalogVersion, format!("a row that differs: {error}"));
    let told: Told = serde_json::from_value(stored.told).map_err(unreadable)?;
    let kind = match told.kind.as_str() {
        "missing" => Kind::MissingInDestination,
        "extra" => Kind::ExtraInDestination,
        _ => Kind::Different,
    };
    let cells = |cells: Vec<ToldCell>| {
        cells.into_iter().map(|cell| v1::Cell { column: cell.column, value: cell.value }).collect()
    };
    Ok(v1::Difference {
        table: stored.source,
        kind: kind.into(),
        key: cells(told.key),
        columns: told.columns,
        mended: stored.mended,
        source: cells(told.source),
        destination: cells(told.destination),
    })
}

/// A place as a page's token.
pub(crate) fn token(place: DifferencePlace) -> String {
    format!("{}.{}.{}", place.0, place.1, place.2)
}

/// The place that a page's token names; none for what is none of ours.
pub(crate) fn place(token: &str) -> Option<DifferencePlace> {
    if token.is_empty() {
        return Some(DifferencePlace::default());
    }
    let mut parts = token.split('.');
    let place = DifferencePlace(
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(place)
}

#[cfg(test)]
mod tests {
    use millrace_catalog::verifications::Counts;

    use super::*;

    fn with(counts: Counts, skipped: Option<&str>) -> VerifiedTable {
        VerifiedTable { counts, skipped: skipped.map(str::to_owned), ..VerifiedTable::default() }
    }

    #[test]
    fn nothing_is_called_equal_that_was_not_compared_to_its_end() {
        use VerificationState::{Cancelled, Completed, Running};
        let counts = |done, missing, mended, unsettled| Counts {
            ranges: 2,
            done,
            missing,
            mended,
            unsettled,
            ..Counts::default()
        };
        for (counts, skipped, state, expected) in [
            (counts(2, 0, 0, 0), None, Completed, Verdict::Equal),
            (counts(1, 0, 0, 0), None, Cancelled, Verdict::Unspecified),
            (counts(2, 0, 0, 0), None, Running, Verdict::Unspecified),
            (counts(1, 0, 0, 0), Some("PAUSED"), Completed, Verdict::Skipped),
            (counts(1, 1, 0, 0), Some("PAUSED"), Completed, Verdict::Different),
            (counts(2, 3, 3, 0), None, Completed, Verdict::Mended),
            (counts(2, 3, 2, 0), None, Completed, Verdict::Different),
            (counts(2, 0, 0, 1), None, Completed, Verdict::Unsettled),
        ] {
            assert_eq!(verdict(&with(counts, skipped), state), expected);
        }
    }

    #[test]
    fn the_worst_table_decides() {
        let table = |verdict: Verdict| v1::VerifiedTable { verdict: verdict.into(), ..Default::default() };
        let of = |verdicts: &[Verdict]| {
            let tables: Vec<_> = verdicts.iter().copied().map(table).collect();
            overall(&tables, VerificationState::Completed)
        };
        assert_eq!(of(&[Verdict::Equal, Verdict::Different, Verdict::Skipped]), Verdict::Different);
        assert_eq!(of(&[Verdict::Equal, Verdict::Skipped]), Verdict::Equal);
        assert_eq!(of(&[Verdict::Skipped]), Verdict::Skipped);
    }

    #[test]
    fn places_are_read_back() {
        let here = DifferencePlace(7, 3, 1);
        assert_eq!(place(&token(here)), Some(here));
        assert_eq!(place(""), Some(DifferencePlace::default()));
        assert_eq!(place("7.3"), None);
    }
}
