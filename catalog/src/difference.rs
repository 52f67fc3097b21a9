//! How two specs differ, in words for people. Secrets are compared and never shown.
//!
//! Pure: no I/O.

use millrace_terms::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::errors;

/// Keys whose values are secrets ([`crate::spec`]).
const SECRETS: [&str; 2] = ["password", "key"];

/// Differences that a message names; the rest is counted.
const SHOWN_MAX: usize = 8;

/// The fields in which `new` differs from `old`: `tls.mode: "prefer" -> "require"`.
pub fn differences<T: Serialize>(old: &T, new: &T) -> Result<Vec<String>> {
    let value = |spec: &T| serde_json::to_value(spec).map_err(|error| errors::internal(error.to_string()));
    let mut found = Vec::new();
    compare(&mut String::new(), &value(old)?, &value(new)?, &mut found);
    Ok(found)
}

/// The differences in one text.
pub fn summary(differences: &[String]) -> String {
    let shown = differences.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    match differences.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// Adds the differences to the error that tells of them.
pub(crate) fn tell(error: Error, differences: &[String]) -> Error {
    if differences.is_empty() { error } else { error.with("difference", summary(differences)) }
}

fn compare(path: &mut String, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            let value = |object: &Map<String, Value>, key: &str| object.get(key).cloned().unwrap_or_default();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                below(path, &format!("{dot}{key}"), &value(old, key), &value(new, key), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                below(path, &format!("[{i}]"), old, new, found);
            }
        }
        _ if old == new => {}
        _ if SECRETS.iter().any(|key| path.rsplit('.').next() == Some(key)) => {
            found.push(format!("{path} differs"));
        }
        _ => found.push(format!("{path}: {old} -> {new}")),
    }
}

fn below(path: &mut String, step: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let length = path.len();
    path.push_str(step);
    compare(path, old, new, found);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_and_secrets_are_not_shown() {
        let old =
            json!({"name": "a", "config": {"postgres": {"port": 1, "password": "one", "tls": {"key": ""}}}});
        let new =
            json!({"name": "a", "config": {"postgres": {"port": 2, "password": "two", "tls": {"key": "k"}}}});
        let found = differences(&old, &new).unwrap();
        assert_eq!(
            found,
            [
                "config.postgres.password differs",
                "config.postgres.port: 1 -> 2",
                "config.postgres.tls.key differs"
            ]
        );
        assert!(differences(&old, &old).unwrap().is_empty());
    }

    #[test]
    fn lists_are_compared_by_place_and_long_summaries_are_cut() {
        let found = differences(&json!([1, {"a": 2}]), &json!([1, {"a": 3, "b": null}])).unwrap();
        assert_eq!(found, ["[1].a: 2 -> 3"]);
        assert_eq!(differences(&json!({"t": [1]}), &json!({"t": [1, 2]})).unwrap(), ["t: [1] -> [1,2]"]);
        let many: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        assert_eq!(summary(&many), "0; 1; 2; 3; 4; 5; 6; 7; and 2 more");
    }
}
