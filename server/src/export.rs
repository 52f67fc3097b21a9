//! Peers and mirrors as a document that `apply` takes: what is as it would be by default is left out,
//! and secrets stand as references.
//!
//! Pure: no I/O.

use std::collections::BTreeSet;

use catalog::spec::{
    ClickhousePeer, ColumnSpec, MirrorSpec, PeerConfig, PeerSpec, PostgresPeer, Secret, Settings, TableSpec,
};
use millrace_catalog as catalog;
use millrace_terms::{Code, Error};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::diff::json;
use crate::plan::StoredMirror;

/// The keys in the order in which people write them; others follow by the alphabet.
const ORDER: [&str; 17] = [
    "peers",
    "mirrors",
    "name",
    "postgres",
    "clickhouse",
    "url",
    "host",
    "port",
    "user",
    "password",
    "source",
    "destination",
    "mode",
    "exclude",
    "columns",
    "tables",
    "settings",
];

/// A document, and what has to be set before it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The YAML.
    pub text: String,
    /// The variables in it that stand for secrets, in its order.
    pub variables: Vec<String>,
}

/// What `${NAME}` in a specification means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dollars {
    /// Itself: in the document it is escaped.
    Literal,
    /// A reference, for whoever applies the document to set.
    References,
}

/// Writes the document.
///
/// # Errors
/// INTERNAL, if a specification cannot be written.
pub fn document<'a>(
    peers: impl IntoIterator<Item = &'a PeerSpec>,
    mirrors: impl IntoIterator<Item = &'a MirrorSpec>,
    dollars: Dollars,
) -> Result<Export, Error> {
    let escaped = |entry: Value, but: &[&str]| match dollars {
        Dollars::Literal => escaped(entry, but),
        Dollars::References => entry,
    };
    let mut variables = Vec::new();
    let peers = peers.into_iter().map(|peer| {
        // What stands in the place of a secret is a reference; all else is meant as it is.
        peer_entry(&without_secrets(peer, &mut variables)).map(|entry| escaped(entry, &["password", "key"]))
    });
    let mut document = Map::new();
    document.insert("peers".to_owned(), peers.collect::<Result<_, Error>>()?);
    let mirrors = mirrors.into_iter().map(|mirror| mirror_entry(mirror).map(|entry| escaped(entry, &[])));
    document.insert("mirrors".to_owned(), mirrors.collect::<Result<_, Error>>()?);
    let yaml = serde_saphyr::to_string(&Ordered(&Value::Object(document)))
        .map_err(|error| Error::new(Code::Internal, format!("a document has no YAML: {error}")))?;
    let text = match variables.is_empty() {
        true => yaml,
        false => format!("# Secrets are not in it. To apply it, set {}.\n{yaml}", variables.join(", ")),
    };
    Ok(Export { text, variables })
}

/// What of an installation is exported: the mirrors of these names with their peers, or everything.
///
/// # Errors
/// MIRROR_NOT_FOUND for a name that is none, or whose mirror is being dropped.
pub(crate) fn select<'a>(
    peers: &'a [PeerSpec],
    mirrors: &'a [StoredMirror],
    names: &[String],
) -> Result<(Vec<&'a PeerSpec>, Vec<&'a MirrorSpec>), Error> {
    let staying = || mirrors.iter().filter(|mirror| !mirror.dropping).map(|mirror| &mirror.spec);
    if let Some(name) = names.iter().find(|name| !staying().any(|mirror| mirror.name == **name)) {
        let error = Error::new(Code::MirrorNotFound, format!("no mirror is called {name}"));
        return Err(error.with("mirror", name));
    }
    let is_all = names.is_empty();
    let chosen: Vec<_> = staying().filter(|mirror| is_all || names.contains(&mirror.name)).collect();
    let used: BTreeSet<&str> = chosen.iter().flat_map(|m| [m.source.as_str(), &m.destination]).collect();
    let peers = peers.iter().filter(|peer| is_all || used.contains(peer.name.as_str())).collect();
    Ok((peers, chosen))
}

/// The peer with references in place of its secrets; their variables are noted.
fn without_secrets(peer: &PeerSpec, variables: &mut Vec<String>) -> PeerSpec {
    let mut referring = peer.clone();
    let prefix = peer.name.to_uppercase().replace('-', "_");
    let (password, tls) = match &mut referring.config {
        PeerConfig::Postgres(config) => (&mut config.password, &mut config.tls),
        PeerConfig::Clickhouse(config) => (&mut config.password, &mut config.tls),
    };
    for (secret, suffix) in [(password, "PASSWORD"), (&mut tls.key, "TLS_KEY")] {
        if !secret.is_empty() {
            let variable = format!("{prefix}_{suffix}");
            *secret = Secret::new(format!("${{{variable}}}"));
            variables.push(variable);
        }
    }
    referring
}

fn peer_entry(peer: &PeerSpec) -> Result<Value, Error> {
    let default = match &peer.config {
        PeerConfig::Postgres(_) => PeerConfig::Postgres(PostgresPeer::default()),
        // User and database are written out also where they are as by default: they name what is in use.
        PeerConfig::Clickhouse(_) => PeerConfig::Clickhouse(ClickhousePeer {
            user: String::new(),
            database: String::new(),
            ..ClickhousePeer::default()
        }),
    };
    let mut entry = json(&peer.config)?;
    leave_out(&mut entry, &json(&default)?);
    entry["name"] = Value::from(peer.name.as_str());
    Ok(entry)
}

fn mirror_entry(mirror: &MirrorSpec) -> Result<Value, Error> {
    let mut entry = json(mirror)?;
    if let Some(tables) = entry["tables"].as_array_mut() {
        for table in tables {
            table_entry(table)?;
        }
    }
    let mut default = Map::new();
    default.insert("mode".to_owned(), json(&catalog::spec::Mode::default())?);
    default.insert("settings".to_owned(), json(&Settings::default())?);
    leave_out(&mut entry, &Value::Object(default));
    Ok(entry)
}

fn table_entry(table: &mut Value) -> Result<(), Error> {
    let mut default = json(&TableSpec::new(""))?;
    let column = json(&ColumnSpec::default())?;
    if let Some(columns) = table["columns"].as_object_mut() {
        columns.values_mut().for_each(|entry| leave_out(entry, &column));
    }
    // Whether a table shares its destination is found out again when the document is applied.
    if let Some(fields) = default.as_object_mut() {
        fields.remove("source");
    }
    leave_out(table, &default);
    Ok(())
}

/// A value in which no text is read as a reference when the document is applied, but for these fields.
fn escaped(value: Value, but: &[&str]) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${")),
        Value::Array(items) => items.into_iter().map(|item| escaped(item, but)).collect(),
        Value::Object(fields) => {
            let escape = |(name, value): (String, Value)| match but.contains(&name.as_str()) {
                true => (name, value),
                false => (name, escaped(value, but)),
            };
            Value::Object(fields.into_iter().map(escape).collect())
        }
        other => other,
    }
}

/// Takes out of an object what is as in `default`, however deep.
fn leave_out(value: &mut Value, default: &Value) {
    let (Some(fields), Some(defaults)) = (value.as_object_mut(), default.as_object()) else { return };
    fields.retain(|name, field| {
        let Some(default) = defaults.get(name) else { return true };
        if field == default {
            return false;
        }
        leave_out(field, default);
        true
    });
}

/// A value whose keys are written in [`ORDER`].
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                let mut entries: Vec<_> = fields.iter().collect();
                entries
                    .sort_by_key(|(name, _)| ORDER.iter().position(|key| key == name).unwrap_or(ORDER.len()));
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(name, &Ordered(value))?;
                }
                map.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Ordered)),
            leaf => leaf.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::document::{Document, parse};

    use super::*;

    const TEXT: &str = r#"
peers:
- name: shop-pg
  postgres: {host: db.internal, port: 6432, user: "on", password: hunter2, database: "12", tls: {mode: verify-full, ca: "a\nb\n", cert: c, key: hunter3}}
- name: warehouse
  clickhouse: {url: "http://ch:8123", database: shop, max_inserts_per_second: 9}
- name: unused
  clickhouse: {url: "http://other:8123"}
mirrors:
- name: shop
  source: shop-pg
  destination: warehouse
  tables:
  - source: public.orders
    destination: "orders: all"
    exclude: ["null", "~"]
    columns: {id: {name: order_id}, "a b": {type: "Decimal(18,4)"}}
    order_by: [order_id]
    partition_by: "toYYYYMM(created_at)"
  - {source: 'public."Odd # Name"', destination: "Odd # Name", append_only: true, engine: MergeTree}
  settings:
    flush: {min_interval: 1s}
    on_unrepresentable: "null"
- name: other
  source: shop-pg
  destination: warehouse
  mode: stream
  tables: [{source: a.b, destination: b}]
"#;

    const SHOP: &str = r#"# Secrets are not in it. To apply it, set SHOP_PG_PASSWORD, SHOP_PG_TLS_KEY.
peers:
- name: shop-pg
  postgres:
    host: db.internal
    port: 6432
    user: "on"
    password: ${SHOP_PG_PASSWORD}
    database: "12"
    tls:
      mode: verify-full
      ca: |
        a
        b
      cert: c
      key: ${SHOP_PG_TLS_KEY}
- name: warehouse
  clickhouse:
    url: http://ch:8123
    user: default
    database: shop
    max_inserts_per_second: 9
mirrors:
- name: shop
  source: shop-pg
  destination: warehouse
  tables:
  - source: public.orders
    destination: "orders: all"
    exclude:
    - "null"
    - "~"
    columns:
      a b:
        type: Decimal(18,4)
      id:
        name: order_id
    order_by:
    - order_id
    partition_by: toYYYYMM(created_at)
  - source: "public.\"Odd # Name\""
    destination: "Odd # Name"
    append_only: true
    engine: MergeTree
  settings:
    flush:
      min_interval: 1000ms
    on_unrepresentable: "null"
"#;

    fn exported(document: &Document, names: &[&str]) -> Result<Export, Error> {
        let stored = |spec: &MirrorSpec| StoredMirror { spec: spec.clone(), dropping: spec.name == "gone" };
        let mirrors: Vec<_> = document.mirrors.iter().map(stored).collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (peers, mirrors) = select(&document.peers, &mirrors, &names)?;
        super::document(peers, mirrors, Dollars::Literal)
    }

    #[test]
    fn what_is_exported_is_short_and_reads_as_people_write() {
        let export = exported(&parse(TEXT).unwrap(), &["shop"]).unwrap();
        assert_eq!(export.text, SHOP);
        assert_eq!(export.variables, ["SHOP_PG_PASSWORD", "SHOP_PG_TLS_KEY"]);
    }

    #[test]
    fn an_export_is_read_back_as_it_was_but_for_the_secrets() {
        let document = parse(TEXT).unwrap();
        let export = exported(&document, &[]).unwrap();
        assert!(!export.text.contains("hunter"), "{}", export.text);
        let set = export.text.replace("${SHOP_PG_PASSWORD}", "hunter2");
        assert_eq!(parse(&set.replace("${SHOP_PG_TLS_KEY}", "hunter3")).unwrap(), document);
        let nothing = exported(&Document::default(), &[]).unwrap();
        assert_eq!(parse(&nothing.text).unwrap(), Document::default());
    }

    #[test]
    fn what_looks_like_a_reference_is_not_read_as_one() {
        let document = parse(&TEXT.replace("orders: all", "orders ${X}")).unwrap();
        let export = exported(&document, &[]).unwrap();
        assert!(
            export.text.contains("orders $${X}") && export.text.contains("password: ${SHOP_PG_PASSWORD}"),
            "{}",
            export.text
        );
    }

    #[test]
    fn a_mirror_that_is_not_there_or_on_its_way_out_is_not_exported() {
        let document = parse(&TEXT.replace("name: other", "name: gone")).unwrap();
        let export = exported(&document, &[]).unwrap();
        assert_eq!(parse(&export.text).unwrap().mirrors.len(), 1);
        for name in ["gone", "never"] {
            assert_eq!(exported(&document, &[name]).unwrap_err().code(), Code::MirrorNotFound);
        }
    }
}
