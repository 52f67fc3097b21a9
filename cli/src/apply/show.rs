//! What `apply` did and what `diff` found, one line an object.
//!
//! Pure.

use millrace_proto::v1::applied_object::{Action, Kind};
use millrace_proto::v1::{AppliedObject, ApplyResponse, FieldChange};

use crate::client::style::{Paint, Tone};

/// What stands in place of a value that is not there, in a change.
const ABSENT: &str = "(none)";

/// One line an object; what could not be removed stands below it.
pub(super) fn applied(answer: &ApplyResponse, dry_run: bool) -> String {
    let suffix = if dry_run { " (dry run)" } else { "" };
    let objects: Vec<_> = answer.objects.iter().map(|object| format!("{}{suffix}", line(object))).collect();
    match objects.is_empty() {
        true => "nothing to do".to_owned(),
        false => objects.join("\n"),
    }
}

fn line(object: &AppliedObject) -> String {
    let action = match object.action() {
        Action::Created => "created".to_owned(),
        Action::Unchanged => "unchanged".to_owned(),
        Action::Deleted => "deleted".to_owned(),
        Action::Unspecified => "?".to_owned(),
        Action::Updated => {
            let changes = object.changes.iter();
            let changes = changes.map(|c| format!("{} {} -> {}", c.field, c.old_value, c.new_value));
            format!("updated: {}", changes.collect::<Vec<_>>().join(", "))
        }
    };
    let mut line = format!("{}: {action}", named(object));
    for leftover in &object.leftovers {
        line.push_str(&format!("\n  left over: {leftover}"));
    }
    line
}

/// What differs, and nothing else: `+` is missing, `~` is another, `-` is too many.
pub(super) fn difference(answer: &ApplyResponse, paint: Paint) -> String {
    let mut lines = Vec::new();
    for object in &answer.objects {
        let (tone, sign) = match object.action() {
            Action::Unchanged | Action::Unspecified => continue,
            Action::Created => (Tone::Good, '+'),
            Action::Updated => (Tone::Notable, '~'),
            Action::Deleted => (Tone::Bad, '-'),
        };
        lines.push(paint.paint(tone, &format!("{sign} {}", named(object))));
        let changes = object.changes.iter();
        lines.extend(changes.map(|c| format!("    {}: {} -> {}", c.field, c.old_value, c.new_value)));
    }
    lines.join("\n")
}

/// Whether anything differs.
pub(super) fn differs(answer: &ApplyResponse) -> bool {
    answer.objects.iter().any(|object| object.action() != Action::Unchanged)
}

/// What of a plan removes something, as people are asked about it; empty if nothing does. Tables that
/// leave their mirror count where their destination tables go with them.
pub(super) fn removals(plan: &ApplyResponse, drop_destination: bool) -> Vec<String> {
    let mut removed = Vec::new();
    for object in &plan.objects {
        if object.action() == Action::Deleted {
            let data = match object.kind() == Kind::Mirror && drop_destination {
                true => ", with its destination tables",
                false => "",
            };
            removed.push(format!("{}{data}", named(object)));
        }
        let leaving = object.changes.iter().filter(|change| drop_destination && is_leaving(change));
        removed.extend(leaving.map(|change| {
            let table = change.field.trim_start_matches("tables.");
            format!("the destination of table {table} of {}", named(object))
        }));
    }
    removed
}

/// A whole table that leaves its mirror.
fn is_leaving(change: &FieldChange) -> bool {
    change.field.starts_with("tables.") && change.new_value == ABSENT
}

fn named(object: &AppliedObject) -> String {
    let kind = match object.kind() {
        Kind::Peer => "peer",
        Kind::Mirror => "mirror",
        Kind::Unspecified => "object",
    };
    format!("{kind} {}", object.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> ApplyResponse {
        let object = |kind: Kind, name: &str, action: Action| AppliedObject {
            kind: kind.into(),
            name: name.into(),
            action: action.into(),
            ..Default::default()
        };
        let change = |field: &str, old: &str, new: &str| FieldChange {
            field: field.into(),
            old_value: old.into(),
            new_value: new.into(),
        };
        let mut updated = object(Kind::Mirror, "shop", Action::Updated);
        updated.changes.push(change("settings.flush.min_interval", "50ms", "200ms"));
        updated.changes.push(change("tables.public.old", "(replicated)", "(none)"));
        let mut deleted = object(Kind::Mirror, "old", Action::Deleted);
        deleted.leftovers.push("slot millrace_a1b2c3_old".into());
        ApplyResponse {
            objects: vec![
                object(Kind::Peer, "pg", Action::Created),
                object(Kind::Peer, "ch", Action::Unchanged),
                updated,
                deleted,
            ],
        }
    }

    #[test]
    fn every_action_is_a_line() {
        insta::assert_snapshot!(applied(&answer(), false), @r"
        peer pg: created
        peer ch: unchanged
        mirror shop: updated: settings.flush.min_interval 50ms -> 200ms, tables.public.old (replicated) -> (none)
        mirror old: deleted
          left over: slot millrace_a1b2c3_old
        ");
        assert_eq!(applied(&ApplyResponse::default(), true), "nothing to do");
    }

    #[test]
    fn a_difference_is_what_differs_and_nothing_else() {
        insta::assert_snapshot!(difference(&answer(), Paint::none()), @r"
        + peer pg
        ~ mirror shop
            settings.flush.min_interval: 50ms -> 200ms
            tables.public.old: (replicated) -> (none)
        - mirror old
        ");
        assert!(differs(&answer()));
        let same = ApplyResponse { objects: vec![answer().objects.remove(1)] };
        assert_eq!((difference(&same, Paint::none()).as_str(), differs(&same)), ("", false));
    }

    #[test]
    fn people_are_asked_about_what_goes() {
        assert_eq!(removals(&answer(), false), ["mirror old"]);
        let with_data = removals(&answer(), true);
        assert_eq!(
            with_data,
            ["the destination of table public.old of mirror shop", "mirror old, with its destination tables"]
        );
    }
}
