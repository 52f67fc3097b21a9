//! A change of a mirror that runs: what a request means, and what of it may change.
//!
//! Pure: no I/O.

use std::collections::BTreeSet;

use millrace_catalog::spec::{MirrorSpec, TableSpec};
use millrace_proto::v1;
use millrace_terms::{Code, Error, TableName};
use pbjson_types::FieldMask;

use crate::diff::{self, Change};
use crate::fault::{Answer, Fault, invalid};
use crate::{convert, tables};

/// Settings that may change while a mirror runs, with everything below them.
const LIVE: [&str; 4] =
    ["settings.flush", "settings.snapshot", "settings.on_slot_lost", "settings.on_partition_removed"];

/// Settings that the stream reads when an attempt begins.
const READ_BY_STREAM: &str = "settings.flush";

/// Why the rest may not.
const FIXED: [(&str, &str); 9] = [
    ("source", "a mirror belongs to its source"),
    ("destination", "a mirror belongs to its destination"),
    ("mode", "what a mirror does is decided when it is made"),
    ("tables", "the definition of a table is frozen when it is added; remove the table, then add it again"),
    ("settings.publication", "the stream is made with it"),
    ("settings.slot", "the stream is made with it"),
    ("settings.streams", "the slots are made with it"),
    ("settings.on_unrepresentable", "the types of the destination's columns are decided by it"),
    ("settings", "the destination tables are made with it"),
];

/// What stands for an unknown pattern's tables before the change.
const ABSENT: &str = "(none)";

/// A change that may be carried out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edit {
    /// What differs, field by field; empty if nothing does.
    pub(crate) changes: Vec<Change>,
    /// Tables that join.
    pub(crate) added: Vec<TableSpec>,
    /// Sources of the tables that leave.
    pub(crate) removed: BTreeSet<String>,
    /// Whether the stream's attempt has to begin anew, to take notice of settings.
    pub(crate) restart: bool,
}

/// The mirror that is asked for: the stored one with the fields of the mask replaced. Patterns and
/// default names may be in it.
pub(crate) fn masked(
    stored: &MirrorSpec,
    asked: &v1::Mirror,
    mask: Option<&FieldMask>,
) -> Answer<MirrorSpec> {
    let paths = match mask {
        Some(mask) if !mask.paths.is_empty() => mask.paths.clone(),
        _ => set_fields(asked),
    };
    let is_whole = paths.iter().any(|path| path == "*");
    let covers = |field: &str| is_whole || paths.iter().any(|path| path == field);
    // What the mask leaves out need not be valid, or there.
    let (mut message, full) = (asked.clone(), convert::mirror::from_spec(stored));
    if !covers("source") {
        message.source = full.source;
    }
    if !covers("destination") {
        message.destination = full.destination;
    }
    if !covers("mode") {
        message.mode = full.mode;
    }
    if !covers("tables") {
        message.tables = full.tables;
    }
    let asked = convert::mirror::to_spec(Some(&message))?;
    if is_whole {
        return Ok(asked);
    }
    let (mut merged, asked) = (diff::json(stored)?, diff::json(&asked)?);
    for path in paths.iter().filter(|path| !matches!(path.as_str(), "name" | "etag")) {
        let pointer = format!("/{}", path.replace('.', "/"));
        match (merged.pointer_mut(&pointer), asked.pointer(&pointer)) {
            (Some(to), Some(from)) if !path.starts_with("tables.") => *to = from.clone(),
            _ => return Err(invalid("update_mask", format!("{path} is no field that a request can set"))),
        }
    }
    serde_json::from_value(merged)
        .map_err(|error| Error::new(Code::Internal, format!("a spec was not merged: {error}")).into())
}

/// The fields that a message sets, as paths of a mask.
fn set_fields(mirror: &v1::Mirror) -> Vec<String> {
    let none = v1::Settings::default();
    let settings = mirror.settings.as_ref().unwrap_or(&none);
    let (flush, snapshot) = (settings.flush.unwrap_or_default(), settings.snapshot.unwrap_or_default());
    let fields = [
        ("source", !mirror.source.is_empty()),
        ("destination", !mirror.destination.is_empty()),
        ("mode", mirror.mode != 0),
        ("tables", !mirror.tables.is_empty()),
        ("settings.publication", !settings.publication.is_empty()),
        ("settings.slot", !settings.slot.is_empty()),
        ("settings.snapshot.parallel_tables", snapshot.parallel_tables.is_some()),
        ("settings.snapshot.parallel_partitions", snapshot.parallel_partitions.is_some()),
        ("settings.snapshot.partition_bytes", snapshot.partition_bytes.is_some()),
        ("settings.flush.min_interval", flush.min_interval.is_some()),
        ("settings.flush.max_rows", flush.max_rows.is_some()),
        ("settings.flush.max_bytes", flush.max_bytes.is_some()),
        ("settings.flush.max_in_flight", flush.max_in_flight.is_some()),
        ("settings.streams", settings.streams.is_some()),
        ("settings.on_unrepresentable", settings.on_unrepresentable != 0),
        ("settings.on_slot_lost", settings.on_slot_lost != 0),
        ("settings.on_partition_removed", settings.on_partition_removed != 0),
        ("settings.columns", settings.columns.is_some()),
        ("settings.audit_columns", settings.audit_columns),
    ];
    fields.into_iter().filter(|(_, is_set)| *is_set).map(|(path, _)| path.to_owned()).collect()
}

/// The schemas of patterns of which the stored mirror has no table: what they mean is to be asked.
pub(crate) fn unknown_schemas(stored: &MirrorSpec, asked: &MirrorSpec) -> BTreeSet<String> {
    let known: BTreeSet<String> = sources(stored).into_iter().map(|table| table.schema).collect();
    tables::pattern_schemas(asked).into_iter().filter(|schema| !known.contains(schema)).collect()
}

/// The tables that the stored mirror has.
pub(crate) fn sources(stored: &MirrorSpec) -> Vec<TableName> {
    stored.tables.iter().filter_map(|table| table.source.parse().ok()).collect()
}

/// Decides about a change as far as that is possible without asking the source: a pattern stands for
/// the tables of its schema that the mirror has.
///
/// # Errors
/// As [`decide`].
pub(crate) fn preview(stored: &MirrorSpec, asked: &MirrorSpec) -> Answer<Vec<Change>> {
    let unknown = unknown_schemas(stored, asked);
    let is_unknown =
        |table: &TableSpec| table.pattern_schema().is_some_and(|schema| unknown.contains(&schema));
    let (patterns, tables): (Vec<TableSpec>, Vec<TableSpec>) =
        asked.tables.iter().cloned().partition(is_unknown);
    let known = MirrorSpec { tables, ..asked.clone() };
    let known = tables::resolve_again(&known, &sources(stored), &stored.tables)?;
    let mut changes = decide(stored, &known)?.changes;
    changes.extend(patterns.into_iter().map(|pattern| Change {
        field: "tables".to_owned(),
        old: ABSENT.to_owned(),
        new: pattern.source,
    }));
    Ok(changes)
}

/// Decides about a change; tables and destinations of both are named.
///
/// # Errors
/// INVALID_ARGUMENT, naming the field, for one that may not change.
pub(crate) fn decide(before: &MirrorSpec, after: &MirrorSpec) -> Answer<Edit> {
    let names = |mirror: &MirrorSpec| -> BTreeSet<String> {
        mirror.tables.iter().map(|table| table.source.clone()).collect()
    };
    let (old, new) = (names(before), names(after));
    let with_both = |mirror: &MirrorSpec| {
        let stays = |table: &&TableSpec| old.contains(&table.source) && new.contains(&table.source);
        MirrorSpec { tables: mirror.tables.iter().filter(stays).cloned().collect(), ..mirror.clone() }
    };
    let edited = diff::mirrors(&with_both(before), &with_both(after))?;
    if let Some(change) = edited.iter().find(|change| !LIVE.iter().any(|live| is_below(&change.field, live)))
    {
        return Err(fixed(&after.name, change));
    }
    Ok(Edit {
        changes: diff::mirrors(before, after)?,
        added: after.tables.iter().filter(|table| !old.contains(&table.source)).cloned().collect(),
        removed: old.difference(&new).cloned().collect(),
        restart: edited.iter().any(|change| is_below(&change.field, READ_BY_STREAM)),
    })
}

fn is_below(field: &str, parent: &str) -> bool {
    field.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn fixed(mirror: &str, change: &Change) -> Fault {
    let why = FIXED.iter().find(|(field, _)| is_below(&change.field, field)).map_or("", |(_, why)| *why);
    let fault = invalid(&format!("mirror.{}", change.field), format!("cannot change: {why}"));
    let error = fault
        .error
        .with("mirror", mirror)
        .with("difference", change.to_string())
        .with_remedy("Undo this change, or delete the mirror and create it again.");
    Fault { error, details: fault.details }
}

#[cfg(test)]
mod tests;
