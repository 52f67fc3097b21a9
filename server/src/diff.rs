//! What differs between two specs, field by field, without showing a secret.
//!
//! Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};

use catalog::spec::{MirrorSpec, PeerSpec};
use millrace_catalog as catalog;
use millrace_terms::{Code, Error, TableName};
use serde_json::Value;

use crate::fault::Answer;
use crate::tables;

/// What stands in place of a secret.
const SECRET: &str = "(secret)";
/// What stands in place of a value that is not there.
const ABSENT: &str = "(none)";
/// What stands in place of a whole table.
const PRESENT: &str = "(replicated)";
/// Differences named in an error at most: it has to stay readable.
const NAMED_MAX: usize = 5;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Path of the field, such as `postgres.host` or `tables.public.orders.exclude`.
    pub(crate) field: String,
    /// The value before, as JSON writes it; text without quotes.
    pub(crate) old: String,
    /// The value after.
    pub(crate) new: String,
}

/// What differs between two peers of one name.
pub(crate) fn peers(old: &PeerSpec, new: &PeerSpec) -> Result<Vec<Change>, Error> {
    compare(&json(&old.config)?, &json(&new.config)?)
}

/// What differs between two mirrors of one name. Tables are told apart by their source; their
/// order means nothing.
pub(crate) fn mirrors(old: &MirrorSpec, new: &MirrorSpec) -> Result<Vec<Change>, Error> {
    let (mut old, mut new) = (by_source(json(old)?), by_source(json(new)?));
    only_named(&mut old, &new);
    only_named(&mut new, &old);
    compare(&old, &new)
}

/// A table that the other mirror does not have is one difference, not one for each of its fields.
fn only_named(mirror: &mut Value, other: &Value) {
    if let Some(Value::Object(tables)) = mirror.get_mut("tables") {
        for (source, table) in tables.iter_mut() {
            if other["tables"].get(source).is_none() {
                *table = Value::from(PRESENT);
            }
        }
    }
}

/// What differs between a stored mirror and one that is asked for, in which patterns and default
/// names still stand: a pattern means the tables of its schema that the mirror was made with.
pub(crate) fn with_stored(stored: &MirrorSpec, asked: &MirrorSpec) -> Answer<Vec<Change>> {
    let listing =
        stored.tables.iter().filter_map(|table| table.source.parse().ok()).collect::<Vec<TableName>>();
    match tables::resolve(asked, &listing) {
        Ok(resolved) => Ok(mirrors(stored, &resolved)?),
        // A pattern of which the mirror has no table.
        Err(fault) if fault.error.code() == Code::SourceTableMissing => Ok(vec![Change {
            field: "tables".to_owned(),
            old: ABSENT.to_owned(),
            new: fault.error.metadata().get("table").cloned().unwrap_or_default(),
        }]),
        Err(fault) => Err(fault),
    }
}

/// The error for an object that exists with another content.
pub(crate) fn exists(code: Code, kind: &str, name: &str, changes: &[Change]) -> Error {
    let mut error = match changes {
        [] => Error::new(code, format!("{kind} {name} exists already")),
        [..] => {
            let named: Vec<String> = changes.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let more = match changes.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Error::new(code, format!("{kind} {name} exists and differs: {}{more}", named.join("; ")))
        }
    };
    error = error.with(kind, name);
    for change in changes.iter().take(NAMED_MAX) {
        error =
            error.with(&format!("difference.{}", change.field), format!("{} -> {}", change.old, change.new));
    }
    error
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} -> {}", self.field, self.old, self.new)
    }
}

/// A spec as it is compared.
pub(crate) fn json(spec: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(spec)
        .map_err(|error| Error::new(Code::Internal, format!("a spec has no JSON: {error}")))
}

fn by_source(mut mirror: Value) -> Value {
    if let Some(Value::Array(tables)) = mirror.get_mut("tables").map(Value::take) {
        let named = tables.into_iter().filter_map(|mut table| {
            let source = table.as_object_mut()?.remove("source")?;
            Some((source.as_str()?.to_owned(), table))
        });
        mirror["tables"] = Value::Object(named.collect());
    }
    mirror
}

fn compare(old: &Value, new: &Value) -> Result<Vec<Change>, Error> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten("", old, &mut before);
    flatten("", new, &mut after);
    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let show = |field: &str, value: Option<&Value>| match value {
        None => ABSENT.to_owned(),
        Some(_) if is_secret(field) => SECRET.to_owned(),
        // A certificate, say: the change has to stay on its line.
        Some(Value::String(text)) if text.contains('\n') => format!("({} lines)", text.lines().count()),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    Ok(fields
        .into_iter()
        .filter(|field| before.get(*field) != after.get(*field))
        .map(|field| Change {
            field: field.clone(),
            old: show(field, before.get(field)),
            new: show(field, after.get(field)),
        })
        .collect())
}

/// Leaves by their paths; a list and an empty object are leaves.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, leaves);
            }
        }
        leaf => {
            leaves.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// By the field's name: `catalog::spec::Secret` is serialised in clear, and a new secret field has
/// to be added here. The test finds it.
fn is_secret(field: &str) -> bool {
    matches!(field.rsplit('.').next(), Some("password" | "key"))
}

#[cfg(test)]
mod tests {
    use catalog::spec::{Mode, PeerConfig, PostgresPeer, Secret, Settings, TableSpec, Tls};

    use super::*;

    fn peer(host: &str, password: &str) -> PeerSpec {
        let config = PostgresPeer {
            host: host.into(),
            port: 5432,
            user: "u".into(),
            password: Secret::new(password),
            database: "d".into(),
            tls: Tls { key: Secret::new(password), ..Tls::default() },
        };
        PeerSpec { name: "pg".into(), config: PeerConfig::Postgres(config) }
    }

    fn mirror(tables: &[&str]) -> MirrorSpec {
        MirrorSpec {
            name: "shop".into(),
            source: "pg".into(),
            destination: "ch".into(),
            mode: Mode::default(),
            tables: tables.iter().map(|table| TableSpec::new(*table)).collect(),
            settings: Settings::default(),
        }
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        assert_eq!(peers(&peer("a", "x"), &peer("a", "x")), Ok(vec![]));
        let changes = peers(&peer("a", "hunter2"), &peer("b", "hunter3")).unwrap();
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "postgres.host a -> b",
                "postgres.password (secret) -> (secret)",
                "postgres.tls.key (secret) -> (secret)"
            ]
        );
        assert!(!exists(Code::PeerExists, "peer", "pg", &changes).message().contains("hunter"));
    }

    #[test]
    fn tables_are_told_apart_by_their_source() {
        assert_eq!(mirrors(&mirror(&["a.x", "a.y"]), &mirror(&["a.y", "a.x"])), Ok(vec![]));
        let mut other = mirror(&["a.x"]);
        other.tables[0].exclude = vec!["note".into()];
        other.settings.flush.max_rows = 5;
        let changes = mirrors(&mirror(&["a.x"]), &other).unwrap();
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["settings.flush.max_rows 100000 -> 5", "tables.a.x.exclude [] -> [\"note\"]"]);
        let added = mirrors(&mirror(&["a.x"]), &mirror(&["a.x", "a.y"])).unwrap();
        let texts: Vec<String> = added.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["tables.a.y (none) -> (replicated)"]);
    }
}
