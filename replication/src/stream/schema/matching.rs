//! Which columns of a table a Relation message tells of. Pure.
//!
//! The message names columns, and a name says little: columns are renamed, dropped and added under
//! names that others had. A column *is* its attribute number, which the message does not hold. There are
//! two readings of it: by the names that the plan knows, which is right for a message from before a
//! change, and by the names that the source has now, which is right for one from after it. Where both
//! are possible and differ, it cannot be told which is right.

use super::widening::widening;
use crate::pgoutput::{Column, Relation};
use crate::postgres::present::{Present, PresentColumn};
use crate::table::{ColumnPlan, Filling, TablePlan};

/// What a column of a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// A column of the plan, by its index.
    Planned(usize),
    /// A column that the plan does not have, by its index in the present ones.
    New(usize),
    /// It is not replicated, or does not exist any more.
    Ignored,
}

/// How a column is read: what it is, and its number, where that is known.
type Reading = Option<(Match, Option<i16>)>;

/// For each column of the relation what it is; none if that cannot be told.
pub(super) fn matches(plan: &TablePlan, relation: &Relation, present: &Present) -> Option<Vec<Match>> {
    let columns = &relation.columns;
    // The server describes columns in the order of their numbers; those of a partition are its own.
    let ordered = relation.oid == plan.oid;
    let mut last = 0;
    let mut read = |column: &Column| {
        let reading = by_plan(plan, column, if ordered { last } else { 0 });
        last = reading.and_then(|(_, attnum)| attnum).unwrap_or(last);
        reading
    };
    let before: Vec<Reading> = columns.iter().map(&mut read).collect();
    let now: Vec<Reading> = columns.iter().map(|column| by_present(plan, present, column)).collect();
    let found = |reading: &Reading| reading.map(|(found, _)| found);
    let same: Option<Vec<Match>> =
        before.iter().zip(&now).map(|(a, b)| found(a).filter(|a| found(b) == Some(*a))).collect();
    if same.is_some() {
        return same;
    }
    // The log of before a column was widened tells the narrower type.
    let by_plan = whole(columns, &before, ordered, &|found, told| match found {
        Match::Planned(at) => {
            plan.columns.get(at).is_none_or(|column| widening(told, column.type_oid).is_some())
        }
        _ => true,
    });
    let by_present = whole(columns, &now, ordered, &|found, told| {
        let attnum = match found {
            Match::Planned(at) => plan.columns.get(at).map(|column| column.attnum),
            Match::New(at) => present.columns.get(at).map(|column| column.plan.attnum),
            Match::Ignored => None,
        };
        let column = present.columns.iter().find(|column| Some(column.plan.attnum) == attnum);
        column.is_none_or(|column| column.plan.type_oid == told)
    });
    let matches = match (by_plan, by_present) {
        (Some(_), Some(_)) => None,
        (Some(matches), None) | (None, Some(matches)) => Some(matches),
        (None, None) => mixed(plan, present, columns, &before, &now),
    };
    matches.filter(|matches| is_distinct(matches))
}

/// Whether no column is told twice.
fn is_distinct(matches: &[Match]) -> bool {
    let planned: Vec<_> = matches.iter().filter(|found| matches!(found, Match::Planned(_))).collect();
    planned.iter().enumerate().all(|(nth, found)| !planned[..nth].contains(found))
}

/// A reading of all columns, if each has one and its type is the column's.
fn whole(
    columns: &[Column],
    readings: &[Reading],
    ordered: bool,
    is_typed: &dyn Fn(Match, u32) -> bool,
) -> Option<Vec<Match>> {
    let mut last = 0;
    let mut follows = |attnum: Option<i16>| {
        let follows = attnum.is_none_or(|attnum| attnum > last);
        last = attnum.unwrap_or(last);
        follows || !ordered
    };
    let fits = |(column, reading): (&Column, &Reading)| {
        let (found, attnum) = (*reading)?;
        (follows(attnum) && is_typed(found, column.type_oid)).then_some(found)
    };
    columns.iter().zip(readings).map(fits).collect()
}

/// A message from between two changes: column by column. Where the readings disagree the type decides,
/// if it fits only one. What neither knows is a column that came and went, if no other can be it.
fn mixed(
    plan: &TablePlan,
    present: &Present,
    columns: &[Column],
    before: &[Reading],
    now: &[Reading],
) -> Option<Vec<Match>> {
    let fits = |reading: &Reading, column: &Column| {
        let (found, _) = (*reading)?;
        let type_oid = match found {
            Match::Planned(at) => plan.columns.get(at)?.type_oid,
            Match::New(at) => present.columns.get(at)?.plan.type_oid,
            Match::Ignored => column.type_oid,
        };
        (type_oid == column.type_oid).then_some(found)
    };
    let mut agreed: Vec<Option<Match>> = Vec::new();
    for ((column, before), now) in columns.iter().zip(before).zip(now) {
        let found = match (before.map(|(found, _)| found), now.map(|(found, _)| found)) {
            (Some(a), Some(b)) if a != b => match (fits(before, column), fits(now, column)) {
                (Some(only), None) | (None, Some(only)) => Some(only),
                _ => return None,
            },
            (one, other) => one.or(other),
        };
        agreed.push(found);
    }
    if agreed.contains(&None) && may_be_unknown(plan, present, &agreed) {
        return None;
    }
    Some(agreed.into_iter().map(|found| found.unwrap_or(Match::Ignored)).collect())
}

/// Whether a column that exists may be one whose name nobody knows.
fn may_be_unknown(plan: &TablePlan, present: &Present, agreed: &[Option<Match>]) -> bool {
    let exists = |attnum: i16| present.columns.iter().any(|now| now.plan.attnum == attnum);
    let is_missed = |(at, column): (usize, &ColumnPlan)| {
        !agreed.contains(&Some(Match::Planned(at)))
            && !column.generated
            && column.past.added.is_none()
            && exists(column.attnum)
    };
    let is_new = |(at, now): (usize, &PresentColumn)| {
        let attnum = now.plan.attnum;
        !agreed.contains(&Some(Match::New(at)))
            && !plan.columns.iter().any(|column| column.attnum == attnum)
            && !plan.seen.omitted.iter().any(|(omitted, _)| *omitted == attnum)
    };
    plan.columns.iter().enumerate().any(is_missed) || present.columns.iter().enumerate().any(is_new)
}

/// By the names that the plan knows. A name may have been that of two columns: then it is the one that
/// stands behind the last, where columns are told in the order of their numbers.
fn by_plan(plan: &TablePlan, column: &Column, last: i16) -> Reading {
    let name = &column.name;
    let planned = |at: usize| (Match::Planned(at), Some(plan.columns[at].attnum));
    let named = plan.columns.iter().position(|planned| planned.name == *name);
    let formerly = plan.columns.iter().position(|planned| planned.past.names.contains(name));
    let dropped = plan.seen.dropped.iter().rev();
    let dropped = dropped.filter(|dropped| dropped.name == *name && dropped.type_oid == column.type_oid);
    let dropped: Vec<_> = dropped.map(|dropped| (Match::Ignored, Some(dropped.attnum))).collect();
    let is_typed = |at: &usize| plan.columns[*at].type_oid == column.type_oid || dropped.is_empty();
    let known =
        named.into_iter().chain(formerly).filter(is_typed).map(planned).chain(dropped.iter().copied());
    let known: Vec<_> = known.collect();
    let follows = known.iter().find(|(_, attnum)| attnum.is_some_and(|attnum| attnum > last));
    follows.or(known.first()).copied().or_else(|| {
        let omitted = plan.seen.omitted.iter().find(|(_, omitted)| omitted == name);
        let omitted = omitted.map(|(attnum, _)| (Match::Ignored, Some(*attnum)));
        omitted.or_else(|| plan.excluded.contains(name).then_some((Match::Ignored, None)))
    })
}

/// By the names that the source has now.
fn by_present(plan: &TablePlan, present: &Present, column: &Column) -> Reading {
    let at = present.columns.iter().position(|now| now.plan.name == column.name)?;
    let attnum = present.columns[at].plan.attnum;
    let found = match plan.columns.iter().position(|planned| planned.attnum == attnum) {
        Some(planned) => Match::Planned(planned),
        None if plan.seen.omitted.iter().any(|(omitted, _)| *omitted == attnum) => Match::Ignored,
        None if plan.excluded.contains(&column.name) => Match::Ignored,
        None => Match::New(at),
    };
    Some((found, Some(attnum)))
}

/// Whether rows that lack a column can be filled.
pub(super) fn filling(column: &ColumnPlan) -> Option<&Filling> {
    column.past.added.as_ref()
}
