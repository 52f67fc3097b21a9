//! What a peer or a mirror may hold, whoever asks: the API's messages and `apply` files become
//! specs first and come here. Every rule that is broken is told at once, by its field.
//!
//! Pure: no I/O.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use catalog::spec::{
    ClickhousePeer, Engine, MirrorSpec, PeerConfig, PeerSpec, PostgresPeer, STREAMS_MAX, Settings, TableSpec,
    Tls, TlsMode,
};
use millrace_catalog as catalog;
use millrace_terms::TableName;
use tonic::codegen::http::Uri;

use crate::fault::Violations;
use crate::tables::TABLES_MAX;
use crate::text::check_name;

/// Bytes of a host, URL, user, database or column name at most.
const WORD_BYTES_MAX: usize = 1_024;
/// Bytes of an identifier of PostgreSQL at most (its documentation, section 4.1.1).
const IDENTIFIER_BYTES_MAX: usize = 63;
/// Bytes of a certificate or a key at most.
const PEM_BYTES_MAX: usize = 64 << 10;
/// Bytes of an expression or of a ClickHouse type at most.
const EXPRESSION_BYTES_MAX: usize = 2_048;
/// Columns that one table's entry may name: PostgreSQL itself allows 1,600 columns.
const COLUMNS_MAX: usize = 1_600;

/// Checks a peer.
pub(crate) fn peer(peer: &PeerSpec, path: &str, violations: &mut Violations) {
    check_name(&peer.name, &format!("{path}.name"), violations);
    match &peer.config {
        PeerConfig::Postgres(config) => postgres(config, &format!("{path}.postgres"), violations),
        PeerConfig::Clickhouse(config) => clickhouse(config, &format!("{path}.clickhouse"), violations),
    }
}

fn postgres(config: &PostgresPeer, path: &str, violations: &mut Violations) {
    violations.require(config.port > 0, format!("{path}.port"), "must be 1 to 65535");
    let words = [("host", &config.host), ("user", &config.user), ("database", &config.database)];
    for (field, value) in words {
        word(value, &format!("{path}.{field}"), violations);
    }
    secret(config.password.expose(), WORD_BYTES_MAX, &format!("{path}.password"), violations);
    tls(&config.tls, &format!("{path}.tls"), violations);
}

fn clickhouse(config: &ClickhousePeer, path: &str, violations: &mut Violations) {
    if let Err(what) = check_url(&config.url) {
        violations.add(format!("{path}.url"), what);
    }
    word(&config.user, &format!("{path}.user"), violations);
    word(&config.database, &format!("{path}.database"), violations);
    secret(config.password.expose(), WORD_BYTES_MAX, &format!("{path}.password"), violations);
    tls(&config.tls, &format!("{path}.tls"), violations);
    range(config.max_inserts_per_second, 1..=10_000, &format!("{path}.max_inserts_per_second"), violations);
    range(config.max_concurrent_inserts, 1..=256, &format!("{path}.max_concurrent_inserts"), violations);
}

fn check_url(url: &str) -> Result<(), &'static str> {
    const FORM: &str = "must be the URL of the HTTP interface, such as http://host:8123 or https://host:8443";
    let uri: Uri = url.parse().map_err(|_| FORM)?;
    let authority = uri.authority().ok_or(FORM)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(FORM);
    }
    if authority.as_str().contains('@') {
        return Err("must not hold user or password: they have fields of their own");
    }
    if uri.query().is_some() || url.len() > WORD_BYTES_MAX {
        return Err(FORM);
    }
    Ok(())
}

fn tls(tls: &Tls, path: &str, violations: &mut Violations) {
    let material = [("ca", tls.ca.as_str()), ("cert", &tls.cert), ("key", tls.key.expose())];
    for (field, value) in material {
        secret(value, PEM_BYTES_MAX, &format!("{path}.{field}"), violations);
    }
    violations.require(
        tls.cert.is_empty() == tls.key.is_empty(),
        format!("{path}.cert"),
        "certificate and key must be given together",
    );
    let unused = tls.mode == TlsMode::Disable && !(tls.ca.is_empty() && tls.cert.is_empty());
    violations.require(!unused, format!("{path}.mode"), "is `disable`, but certificates are given");
}

/// Checks a mirror as it is asked for: patterns and default names may still be in it.
pub(crate) fn mirror(mirror: &MirrorSpec, path: &str, violations: &mut Violations) {
    check_name(&mirror.name, &format!("{path}.name"), violations);
    check_name(&mirror.source, &format!("{path}.source"), violations);
    check_name(&mirror.destination, &format!("{path}.destination"), violations);
    violations.require(
        (1..=TABLES_MAX).contains(&mirror.tables.len()),
        format!("{path}.tables"),
        format!("must name 1 to {TABLES_MAX} tables"),
    );
    for (index, table) in mirror.tables.iter().take(TABLES_MAX).enumerate() {
        check_table(table, &format!("{path}.tables[{index}]"), violations);
    }
    settings(&mirror.settings, &format!("{path}.settings"), violations);
}

fn check_table(table: &TableSpec, path: &str, violations: &mut Violations) {
    if table.pattern_schema().is_none()
        && let Err(error) = table.source.parse::<TableName>()
    {
        violations.add(format!("{path}.source"), error.to_string());
    }
    let named = table.exclude.len() + table.columns.len() + table.order_by.len();
    violations.require(named <= COLUMNS_MAX, path, format!("names more than {COLUMNS_MAX} columns"));
    for column in table.exclude.iter().take(COLUMNS_MAX) {
        word(column, &format!("{path}.exclude"), violations);
    }
    for column in table.order_by.iter().take(COLUMNS_MAX) {
        word(column, &format!("{path}.order_by"), violations);
    }
    for (name, column) in table.columns.iter().take(COLUMNS_MAX) {
        let path = format!("{path}.columns.{name}");
        word(name, &path, violations);
        text(&column.name, WORD_BYTES_MAX, &format!("{path}.name"), violations);
        text(&column.kind, EXPRESSION_BYTES_MAX, &format!("{path}.type"), violations);
        violations.require(!table.exclude.contains(name), path, "is excluded as well");
    }
    violations.require(
        table.append_only || table.engine == Engine::ReplacingMergeTree,
        format!("{path}.engine"),
        "keeps every row, also what an update replaced: it is for tables that are append_only",
    );
    violations.require(
        !(table.with_children && table.append_only),
        format!("{path}.with_children"),
        "is not possible for a table that is append_only: its rows arrive once by a copy of one table",
    );
    text(&table.partition_by, EXPRESSION_BYTES_MAX, &format!("{path}.partition_by"), violations);
}

fn settings(settings: &Settings, path: &str, violations: &mut Violations) {
    let (snapshot, flush) = (&settings.snapshot, &settings.flush);
    streams(settings, path, violations);
    range(snapshot.parallel_tables, 1..=64, &format!("{path}.snapshot.parallel_tables"), violations);
    range(snapshot.parallel_partitions, 1..=64, &format!("{path}.snapshot.parallel_partitions"), violations);
    identifier(&settings.publication, &format!("{path}.publication"), violations);
    let slot = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    violations.require(
        settings.slot.chars().all(slot),
        format!("{path}.slot"),
        "names of slots have only lower case letters, digits and underscores",
    );
    identifier(&settings.slot, &format!("{path}.slot"), violations);
    let bytes = (1 << 20)..=(16 << 30);
    range(snapshot.partition_bytes, bytes, &format!("{path}.snapshot.partition_bytes"), violations);
    range(flush.min_interval_ms, 0..=60_000, &format!("{path}.flush.min_interval"), violations);
    range(flush.max_rows, 1..=10_000_000, &format!("{path}.flush.max_rows"), violations);
    range(flush.max_bytes, (64 << 10)..=(1 << 30), &format!("{path}.flush.max_bytes"), violations);
    range(flush.max_in_flight, 1..=16, &format!("{path}.flush.max_in_flight"), violations);

    let own = &settings.columns;
    let names = [
        ("version", &own.version),
        ("is_deleted", &own.is_deleted),
        ("synced_at", &own.synced_at),
        ("source", &own.source),
    ];
    for (field, name) in names {
        word(name, &format!("{path}.columns.{field}"), violations);
    }
    let distinct: BTreeSet<_> = names.iter().map(|(_, name)| name).collect();
    violations.require(distinct.len() == names.len(), format!("{path}.columns"), "the names must differ");
}

/// The name of an object that the user has made on the source; empty if there is none.
fn identifier(value: &str, field: &str, violations: &mut Violations) {
    text(value, IDENTIFIER_BYTES_MAX, field, violations);
}

/// Each stream has a slot and a publication of its own.
fn streams(settings: &Settings, path: &str, violations: &mut Violations) {
    range(settings.streams, 1..=STREAMS_MAX, &format!("{path}.streams"), violations);
    for (field, named) in [("slot", &settings.slot), ("publication", &settings.publication)] {
        violations.require(
            named.is_empty() || settings.streams <= 1,
            format!("{path}.{field}"),
            format!("names one {field}, but every one of the {} streams needs its own: leave it empty, or ask for 1 stream", settings.streams),
        );
    }
}

fn word(value: &str, field: &str, violations: &mut Violations) {
    violations.require(!value.is_empty(), field, "must not be empty");
    text(value, WORD_BYTES_MAX, field, violations);
}

fn text(value: &str, bytes_max: usize, field: &str, violations: &mut Violations) {
    violations.require(value.len() <= bytes_max, field, format!("is longer than {bytes_max} bytes"));
    violations.require(!value.chars().any(char::is_control), field, "must not hold control characters");
}

/// Secrets and certificates may hold any character but NUL, which no protocol of ours can carry.
fn secret(value: &str, bytes_max: usize, field: &str, violations: &mut Violations) {
    violations.require(value.len() <= bytes_max, field, format!("is longer than {bytes_max} bytes"));
    violations.require(!value.contains('\0'), field, "must not hold the character NUL");
}

fn range<T: PartialOrd + std::fmt::Display + Copy>(
    value: T,
    allowed: RangeInclusive<T>,
    field: &str,
    violations: &mut Violations,
) {
    violations.require(
        allowed.contains(&value),
        field,
        format!("must be {} to {}", allowed.start(), allowed.end()),
    );
}

#[cfg(test)]
mod tests {
    use catalog::spec::{ColumnSpec, Mode, Secret};

    use super::*;

    fn fields(check: impl FnOnce(&mut Violations)) -> Vec<String> {
        let mut violations = Violations::default();
        check(&mut violations);
        match violations.into_result() {
            Ok(()) => Vec::new(),
            Err(fault) => fault.field_names().into_iter().map(String::from).collect(),
        }
    }

    fn clickhouse_at(url: &str) -> PeerSpec {
        let config = ClickhousePeer {
            url: url.into(),
            user: "default".into(),
            password: Secret::default(),
            database: "shop".into(),
            cluster: String::new(),
            tls: Tls::default(),
            max_inserts_per_second: 50,
            max_concurrent_inserts: 4,
        };
        PeerSpec { name: "warehouse".into(), config: PeerConfig::Clickhouse(config) }
    }

    #[test]
    fn urls_are_those_of_the_http_interface() {
        for good in ["http://127.0.0.1:8123", "https://ch.example:8443/", "http://[::1]:8123"] {
            assert_eq!(fields(|v| peer(&clickhouse_at(good), "peer", v)), [""; 0], "{good}");
        }
        for bad in ["", "ch:8123", "tcp://ch:9000", "http://u:p@ch:8123", "http://ch/?database=x", "http://"]
        {
            assert_eq!(fields(|v| peer(&clickhouse_at(bad), "peer", v)), ["peer.clickhouse.url"], "{bad}");
        }
    }

    #[test]
    fn a_postgres_peer_says_everything_that_is_wrong() {
        let config = PostgresPeer {
            host: String::new(),
            port: 0,
            user: "u\n".into(),
            password: Secret::new("any\ncharacter"),
            database: "shop".into(),
            tls: Tls { cert: "cert".into(), ..Tls::default() },
        };
        let wrong = PeerSpec { name: "Shop".into(), config: PeerConfig::Postgres(config) };
        assert_eq!(
            fields(|v| peer(&wrong, "peer", v)),
            [
                "peer.name",
                "peer.postgres.port",
                "peer.postgres.host",
                "peer.postgres.user",
                "peer.postgres.tls.cert"
            ]
        );
    }

    #[test]
    fn a_mirror_says_everything_that_is_wrong() {
        let mut wrong = MirrorSpec {
            name: "shop".into(),
            source: "pg".into(),
            destination: "ch".into(),
            mode: Mode::default(),
            tables: vec![TableSpec::new("public.*"), TableSpec::new("orders")],
            settings: Settings::default(),
        };
        assert_eq!(fields(|v| mirror(&wrong, "mirror", v)), [""; 0]);
        wrong.tables[1].source = "a b".into();
        wrong.tables[1].exclude = vec!["note".into()];
        wrong.tables[1].engine = Engine::MergeTree;
        wrong.tables[1].columns.insert("note".into(), ColumnSpec::default());
        wrong.settings.flush.max_in_flight = 0;
        wrong.settings.columns.version = "_synced_at".into();
        assert_eq!(
            fields(|v| mirror(&wrong, "mirror", v)),
            [
                "mirror.tables[1].source",
                "mirror.tables[1].columns.note",
                "mirror.tables[1].engine",
                "mirror.settings.flush.max_in_flight",
                "mirror.settings.columns"
            ]
        );
        wrong.tables.clear();
        assert!(fields(|v| mirror(&wrong, "mirror", v)).contains(&"mirror.tables".to_owned()));
    }

    #[test]
    fn one_slot_or_publication_is_not_enough_for_several_streams() {
        let settings = |streams, slot: &str, publication: &str| Settings {
            streams,
            slot: slot.into(),
            publication: publication.into(),
            ..Settings::default()
        };
        let wrong = |asked: Settings| fields(|v| super::settings(&asked, "settings", v));
        assert_eq!(wrong(settings(1, "s", "p")), [""; 0]);
        assert_eq!(wrong(settings(STREAMS_MAX, "", "")), [""; 0]);
        assert_eq!(wrong(settings(2, "s", "p")), ["settings.slot", "settings.publication"]);
        assert_eq!(wrong(settings(STREAMS_MAX + 1, "", "")), ["settings.streams"]);
    }
}
