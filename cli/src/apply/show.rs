//! What `apply` did, one line an object.
//!
//! Pure.

use millrace_proto::v1::applied_object::{Action, Kind};
use millrace_proto::v1::{AppliedObject, ApplyResponse};

/// One line an object; what differed and what could not be removed stands below it.
pub(super) fn applied(answer: &ApplyResponse, dry_run: bool) -> String {
    let suffix = if dry_run { " (dry run)" } else { "" };
    let objects: Vec<_> = answer.objects.iter().map(|object| format!("{}{suffix}", line(object))).collect();
    match objects.is_empty() {
        true => "nothing to do".to_owned(),
        false => objects.join("\n"),
    }
}

fn line(object: &AppliedObject) -> String {
    let kind = match object.kind() {
        Kind::Peer => "peer",
        Kind::Mirror => "mirror",
        Kind::Unspecified => "object",
    };
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
    let mut line = format!("{kind} {}: {action}", object.name);
    for leftover in &object.leftovers {
        line.push_str(&format!("\n  left over: {leftover}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_proto::v1::FieldChange;

    #[test]
    fn every_action_is_a_line() {
        let object = |kind: Kind, name: &str, action: Action| AppliedObject {
            kind: kind.into(),
            name: name.into(),
            action: action.into(),
            ..Default::default()
        };
        let mut updated = object(Kind::Mirror, "shop", Action::Updated);
        updated.changes.push(FieldChange {
            field: "settings.flush.min_interval".into(),
            old_value: "50ms".into(),
            new_value: "200ms".into(),
        });
        let mut deleted = object(Kind::Mirror, "old", Action::Deleted);
        deleted.leftovers.push("slot millrace_a1b2c3_old".into());
        let answer = ApplyResponse {
            objects: vec![
                object(Kind::Peer, "pg", Action::Created),
                object(Kind::Peer, "ch", Action::Unchanged),
                updated,
                deleted,
            ],
        };
        insta::assert_snapshot!(applied(&answer, false), @r"
        peer pg: created
        peer ch: unchanged
        mirror shop: updated: settings.flush.min_interval 50ms -> 200ms
        mirror old: deleted
          left over: slot millrace_a1b2c3_old
        ");
        assert_eq!(applied(&ApplyResponse::default(), true), "nothing to do");
    }
}
