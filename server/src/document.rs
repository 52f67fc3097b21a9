//! The YAML document of `apply`, read into specs. Errors name the line, and the key that was
//! probably meant.
//!
//! Pure: no I/O.

use std::collections::BTreeSet;

use catalog::spec::{ClickhousePeer, MirrorSpec, PeerConfig, PeerSpec, PostgresPeer};
use millrace_catalog as catalog;
use millrace_terms::{Code, Error};
use serde::Deserialize;

use crate::fault::{Answer, Fault, Violations};
use crate::text::nearest;
use crate::validate;

/// Bytes of a document at most: a thousand times a usual one, and below the message limit.
const DOCUMENT_BYTES_MAX: usize = 2 << 20;
/// Peers and mirrors of one document at most.
const OBJECTS_MAX: usize = 500;

/// What a document asks for, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) peers: Vec<PeerSpec>,
    /// Patterns and default names are still in them.
    pub(crate) mirrors: Vec<MirrorSpec>,
}

impl Document {
    /// Whether it asks for nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.mirrors.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    peers: Vec<PeerEntry>,
    #[serde(default)]
    mirrors: Vec<MirrorSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerEntry {
    name: String,
    postgres: Option<PostgresPeer>,
    clickhouse: Option<ClickhousePeer>,
}

/// Reads and checks a document; several separated by `---` are merged.
pub(crate) fn parse(text: &str) -> Answer<Document> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(refuse(format!("the document is longer than {DOCUMENT_BYTES_MAX} bytes")).into());
    }
    let options =
        serde_saphyr::options! { with_snippet: false, merge_keys: serde_saphyr::MergeKeyPolicy::Merge };
    let parts: Vec<Part> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Fault::from(syntax_error(&error)))?;
    let mut document = Document::default();
    for part in parts {
        for entry in part.peers {
            document.peers.push(peer(entry)?);
        }
        document.mirrors.extend(part.mirrors);
    }
    check(&document)?;
    Ok(document)
}

/// Whether a server of this release would read the document. Databases are not asked.
///
/// # Errors
/// INVALID_ARGUMENT, as `apply` answers.
pub fn require_valid(text: &str) -> Result<(), Error> {
    parse(text).map(drop).map_err(|fault| fault.error)
}

fn peer(entry: PeerEntry) -> Answer<PeerSpec> {
    let config = match (entry.postgres, entry.clickhouse) {
        (Some(config), None) => PeerConfig::Postgres(config),
        (None, Some(config)) => PeerConfig::Clickhouse(config),
        (None, None) | (Some(_), Some(_)) => {
            let message =
                format!("peer {}: exactly one of `postgres` and `clickhouse` is needed", entry.name);
            return Err(refuse(message).with("peer", entry.name).into());
        }
    };
    Ok(PeerSpec { name: entry.name, config })
}

fn check(document: &Document) -> Answer<()> {
    let mut violations = Violations::default();
    let count = document.peers.len() + document.mirrors.len();
    violations.require(count <= OBJECTS_MAX, "document", format!("has more than {OBJECTS_MAX} objects"));
    let mut names = BTreeSet::new();
    for peer in &document.peers {
        let path = format!("peers.{}", peer.name);
        violations.require(names.insert(&peer.name), path.clone(), "stands in the document twice");
        validate::peer(peer, &path, &mut violations);
    }
    let mut names = BTreeSet::new();
    for mirror in &document.mirrors {
        let path = format!("mirrors.{}", mirror.name);
        violations.require(names.insert(&mirror.name), path.clone(), "stands in the document twice");
        validate::mirror(mirror, &path, &mut violations);
    }
    violations.into_result()
}

fn refuse(message: String) -> Error {
    Error::new(Code::InvalidArgument, message).with("field", "document")
}

/// The error with its line. Only what cannot hold a value of the document is passed on: a value may
/// be a secret.
fn syntax_error(error: &serde_saphyr::Error) -> Error {
    use serde_saphyr::Error as Yaml;
    let error = error.without_snippet();
    let what = match error {
        Yaml::SerdeUnknownField { field, expected, .. } => match nearest(field, expected.iter().copied()) {
            Some(near) => format!("unknown key `{field}`; did you mean `{near}`?"),
            None => format!("unknown key `{field}`; known are {}", list(expected)),
        },
        Yaml::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Yaml::SerdeUnknownVariant { expected, .. } => format!("must be one of {}", list(expected)),
        Yaml::SerdeInvalidType { expected, .. } | Yaml::SerdeInvalidValue { expected, .. } => {
            format!("expected {expected}")
        }
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` comes twice"),
        Yaml::Message { msg, .. } => msg.clone(),
        _ => "is not valid YAML for peers and mirrors".to_owned(),
    };
    match error.location() {
        Some(at) => refuse(format!("line {}, column {}: {what}", at.line(), at.column()))
            .with("line", at.line().to_string()),
        None => refuse(what),
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
peers:
- name: shop-pg
  postgres: {host: 127.0.0.1, port: 5432, user: replicator, password: "hunter2", database: shop,
             tls: {mode: prefer}}
- name: warehouse
  clickhouse: {url: "http://127.0.0.1:8123", user: default, password: "", database: shop,
               cluster: "", max_inserts_per_second: 50, max_concurrent_inserts: 4}
---
mirrors:
- name: shop
  source: shop-pg
  destination: warehouse
  mode: snapshot+stream
  tables:
  - source: public.orders
    destination: orders
    exclude: [internal_note]
    columns: {id: {name: order_id}, total: {type: "Decimal(18,4)"}}
    order_by: [order_id]
    partition_by: "toYYYYMM(created_at)"
    engine: ReplacingMergeTree
    append_only: false
  - source: public.*
  settings:
    publication: ""
    slot: ""
    snapshot: {parallel_tables: 4, parallel_partitions: 4, partition_bytes: 64MiB}
    flush: {min_interval: 50ms, max_rows: 100000, max_bytes: 32MiB, max_in_flight: 2}
    streams: 1
    on_unrepresentable: error
    on_slot_lost: error
    on_partition_removed: resync
    on_column_dropped: keep
    on_rewrite: resync
    columns: {version: _version, is_deleted: _is_deleted, synced_at: _synced_at, source: _source}
    audit_columns: false
"#;

    fn message(text: &str) -> String {
        parse(text).unwrap_err().error.message().to_owned()
    }

    #[test]
    fn the_documented_file_is_read_and_its_settings_are_the_defaults() {
        let document = parse(FULL).unwrap();
        assert_eq!(document.peers.len(), 2);
        let mirror = &document.mirrors[0];
        assert_eq!(mirror.settings, catalog::spec::Settings::default());
        assert_eq!(mirror.tables[0].columns["total"].kind, "Decimal(18,4)");
        assert_eq!(mirror.tables[1].pattern_schema().as_deref(), Some("public"));
    }

    #[test]
    fn a_wrong_key_is_told_with_its_line_and_the_nearest_one() {
        let text = FULL.replace("max_in_flight", "max_inflight");
        let message = message(&text);
        assert!(message.starts_with("line 29, column "), "{message}");
        assert!(message.ends_with("unknown key `max_inflight`; did you mean `max_in_flight`?"), "{message}");
    }

    #[test]
    fn what_else_is_wrong_is_told_with_its_line_and_never_with_the_value() {
        for (from, to, part) in [
            ("port: 5432", "port: hunter2", "line 4"),
            ("mode: snapshot+stream", "mode: hunter2", "must be one of `snapshot+stream`"),
            ("64MiB", "64 parsecs", "a size looks like 64MiB"),
            ("  source: shop-pg\n", "", "the key `source` is missing"),
            ("  source: shop-pg\n", "  source: shop-pg\n  source: b\n", "the key `source` comes twice"),
            ("streams: 1", "streams: 0", "mirrors.shop.settings.streams"),
            ("- name: warehouse", "- name: shop-pg", "peers.shop-pg: stands in the document twice"),
            ("url: \"http://127.0.0.1:8123\"", "url: \"8123\"", "peers.warehouse.clickhouse.url"),
            ("mirrors:", "mirrors: [", "line "),
        ] {
            assert!(FULL.contains(from), "{from}");
            let message = message(&FULL.replace(from, to));
            assert!(message.contains(part), "{to}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn an_empty_document_asks_for_nothing() {
        assert_eq!(parse("").unwrap(), Document::default());
        assert_eq!(parse("peers: []\n").unwrap(), Document::default());
    }

    #[test]
    fn a_password_of_digits_is_text() {
        let document = parse(&FULL.replace("\"hunter2\"", "12345")).unwrap();
        let PeerConfig::Postgres(config) = &document.peers[0].config else { panic!("not postgres") };
        assert_eq!(config.password.expose(), "12345");
    }
}
