//! What the workers' checks found: as messages, as a verdict, as the tables of a new mirror.
//!
//! Pure: no I/O.

use std::collections::BTreeMap;

use catalog::drafts::{CheckReport, CheckedTable};
use catalog::mirrors::NewTable;
use catalog::spec::MirrorSpec;
use millrace_catalog as catalog;
use millrace_proto::v1;
use millrace_terms::check::{Check, Status};
use millrace_terms::{Code, Error, TableName};

use crate::fault::{Answer, Details, Fault};

/// Messages of failed checks that stand in the error's own message; the rest are violations.
const TOLD_MAX: usize = 3;

/// Whether no check failed.
pub(crate) fn is_success(report: &CheckReport) -> bool {
    failures(report).next().is_none()
}

fn failures(report: &CheckReport) -> impl Iterator<Item = &Check> {
    report.checks.iter().filter(|check| check.status == Status::Fail)
}

/// The failed checks as one fault: code, remedy and object are those of the first, the others are
/// violations beside it.
pub(crate) fn require_success(report: &CheckReport) -> Answer<()> {
    let failed: Vec<&Check> = failures(report).collect();
    let Some(first) = failed.first() else {
        return Ok(());
    };
    let mut message = failed.iter().take(TOLD_MAX).map(|check| told(check)).collect::<Vec<_>>().join("; ");
    if failed.len() > TOLD_MAX {
        message.push_str(&format!("; and {} more", failed.len() - TOLD_MAX));
    }
    let mut error = Error::new(code(first), message).with("check", first.name.as_str());
    if !first.remedy.is_empty() {
        error = error.with_remedy(first.remedy.clone());
    }
    if !first.subject.is_empty() {
        error = error.with("table", first.subject.clone());
    }
    let violation = |check: &&Check| (code(check), check.subject.clone(), check.message.clone());
    Err(Fault { error, details: Details::Preconditions(failed.iter().map(violation).collect()) })
}

fn code(check: &Check) -> Code {
    check.code.unwrap_or(Code::Internal)
}

/// The message, with the object at fault in front unless it names it itself.
fn told(check: &Check) -> String {
    if check.message.contains(&check.subject) {
        check.message.clone()
    } else {
        format!("{}: {}", check.subject, check.message)
    }
}

/// Every check, as the API has it.
pub(crate) fn messages(checks: &[Check]) -> Vec<v1::Check> {
    checks.iter().map(message).collect()
}

fn message(check: &Check) -> v1::Check {
    use v1::check::Status as Message;
    let status = match check.status {
        Status::Pass => Message::Pass,
        Status::Warn => Message::Warn,
        Status::Fail => Message::Fail,
    };
    v1::Check {
        name: check.name.to_string(),
        status: status.into(),
        code: check.code.map(|code| code.as_str().to_owned()).unwrap_or_default(),
        message: check.message.clone(),
        remedy: check.remedy.clone(),
        subject: check.subject.clone(),
    }
}

/// The tables that were listed, each with its checks.
pub(crate) fn tables(report: &CheckReport) -> Vec<(TableName, v1::SourceTable)> {
    let mut checks: BTreeMap<&str, Vec<&Check>> = BTreeMap::new();
    for check in report.checks.iter().filter(|check| !check.subject.is_empty()) {
        checks.entry(&check.subject).or_default().push(check);
    }
    let listed = |table: &CheckedTable| {
        let source = table.source.to_string();
        let checks = checks.get(source.as_str()).map(Vec::as_slice).unwrap_or_default();
        let message = v1::SourceTable {
            rows_estimated: i64::try_from(table.rows_estimated).unwrap_or(i64::MAX),
            bytes: i64::try_from(table.bytes).unwrap_or(i64::MAX),
            key_columns: table.key.clone(),
            columns: table.columns.iter().map(column).collect(),
            replicable: checks.iter().all(|check| check.status != Status::Fail),
            checks: checks.iter().copied().map(message).collect(),
            source,
        };
        (table.source.clone(), message)
    };
    report.tables.iter().map(listed).collect()
}

fn column(column: &catalog::drafts::CheckedColumn) -> v1::SourceColumn {
    v1::SourceColumn { name: column.name.clone(), r#type: column.kind.clone(), nullable: column.nullable }
}

/// The rows of a new mirror's tables, in the mirror's order, with the plans that the check made.
pub(crate) fn new_tables(mirror: &MirrorSpec, report: &CheckReport) -> Answer<Vec<NewTable>> {
    let checked: BTreeMap<String, &CheckedTable> =
        report.tables.iter().map(|table| (table.source.to_string(), table)).collect();
    let row = |spec: &catalog::spec::TableSpec| {
        let unplanned = || Error::new(Code::Internal, format!("the check made no plan for {}", spec.source));
        let table = checked.get(&spec.source).copied().ok_or_else(unplanned)?;
        Ok(NewTable {
            stream: 0,
            source: table.source.clone(),
            oid: table.oid,
            destination: spec.destination.clone(),
            plan: table.plan.clone().ok_or_else(unplanned)?,
            rows_estimated: table.rows_estimated,
            bytes_total: table.bytes,
        })
    };
    mirror.tables.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Status, code: Option<Code>, subject: &str, message: &str) -> Check {
        Check {
            name: millrace_terms::check::Name::WalLevel,
            status,
            code,
            message: message.into(),
            remedy: "mend it".into(),
            subject: subject.into(),
        }
    }

    #[test]
    fn the_first_failure_gives_the_code_and_all_are_told() {
        let report = CheckReport {
            checks: vec![
                check(Status::Pass, None, "", "connected"),
                check(Status::Warn, Some(Code::SourceError), "", "slow"),
                check(Status::Fail, Some(Code::TableWithoutKey), "public.a", "has no primary key"),
                check(Status::Fail, Some(Code::SourceTableMissing), "public.b", "no table public.b"),
            ],
            ..CheckReport::default()
        };
        assert!(!is_success(&report));
        let fault = require_success(&report).unwrap_err();
        assert_eq!(fault.error.code(), Code::TableWithoutKey);
        assert_eq!(fault.error.message(), "public.a: has no primary key; no table public.b");
        assert_eq!(fault.error.remedy(), "mend it");
        assert!(matches!(&fault.details, Details::Preconditions(failed) if failed.len() == 2));
        assert!(messages(&report.checks).iter().all(|check| check.name == "wal_level"));
        let good = CheckReport { checks: report.checks[..2].to_vec(), ..CheckReport::default() };
        assert_eq!(require_success(&good), Ok(()));
    }
}
