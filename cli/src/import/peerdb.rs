//! PeerDB's peers and mirrors, as its REST API takes them (`POST /v1/peers/create`,
//! `POST /v1/flows/cdc/create`) or as its SQL does.
//!
//! Written from the public documentation of those formats. Pure.

use millrace_catalog::spec::{
    ClickhousePeer, ColumnSpec, Engine, MirrorSpec, Mode, PeerConfig, PostgresPeer, Secret, TableSpec, Tls,
    TlsMode,
};
use millrace_terms::{Code, Error};
use serde_json::{Map, Value};

use super::draft::{self, Draft, Hint, Keys};
use super::peerdb_sql;

/// Keys of a mirror without a counterpart.
const MIRROR: &[Hint] = &[
    ("publication_name", OWN_PUBLICATION),
    ("replication_slot_name", OWN_SLOT),
    (
        "idle_timeout_seconds",
        "is not taken over: rows are sent as they come, every settings.flush.min_interval (50ms) at most; raise that for fewer, larger INSERTs",
    ),
    (
        "snapshot_num_rows_per_partition",
        "is not taken over: partitions are cut by size, settings.snapshot.partition_bytes (64MiB)",
    ),
    (
        "snapshot_num_partitions_override",
        "is not taken over: partitions are cut by size, settings.snapshot.partition_bytes (64MiB)",
    ),
    ("snapshot_staging_path", "is not needed: nothing is staged"),
    ("cdc_staging_path", "is not needed: nothing is staged"),
    (
        "script",
        "has no counterpart: rows are not transformed on their way; use a materialized view in ClickHouse",
    ),
    (
        "resync",
        "is not taken over: the first copy writes into the table itself; later use `millrace mirror resync`",
    ),
    ("disable_peerdb_columns", "has no counterpart: the columns are needed; settings.columns names them"),
    ("initial_snapshot_only", ""),
    ("system", ""),
    ("version", ""),
    ("flags", ""),
    ("skip_validation", ""),
    ("attach_to_existing", ""),
];

const OWN_PUBLICATION: &str = "is not taken over: the mirror makes its own; settings.publication names one of yours, which is never altered";
const OWN_SLOT: &str = "is not taken over: the mirror makes its own, so that both can run side by side; drop PeerDB's when its mirror is dropped";

/// Settings of a mirror's `env`.
const ENV: &[Hint] = &[
    ("PEERDB_NULLABLE", "is always so: NULL stays NULL"),
    ("PEERDB_AVRO_NULLABLE_LAX", "is not needed: NULL stays NULL"),
    ("PEERDB_CLICKHOUSE_ENABLE_PRIMARY_UPDATE", "is always so: an update of a key removes the old row"),
    ("PEERDB_CLICKHOUSE_UNBOUNDED_NUMERIC_AS_STRING", "is the default: numeric without precision is String"),
    ("PEERDB_CLICKHOUSE_ENABLE_JSON", "is chosen by column: columns: {NAME: {type: JSON}}"),
    (
        "PEERDB_CLICKHOUSE_BINARY_FORMAT",
        "has no counterpart: bytea is its raw bytes; use hex() or base64Encode() in ClickHouse",
    ),
    (
        "PEERDB_SOURCE_SCHEMA_AS_DESTINATION_COLUMN",
        "is another column here: source_column: true on the table adds _source (mirror/schema.table)",
    ),
    (
        "PEERDB_CLICKHOUSE_INITIAL_LOAD_ALLOW_NON_EMPTY_TABLES",
        "has no counterpart: a table that Millrace did not make is refused",
    ),
    ("PEERDB_*", "is a setting of PeerDB's own and is left out"),
];

/// Keys of a table without a counterpart.
const TABLE: &[Hint] = &[
    ("partition_key", "is not needed: partitions of a copy are ranges of the table's blocks"),
    ("sharding_key", "has no counterpart: clusters are not built yet"),
    ("policy_name", "has no counterpart: set the storage policy on the table after it was made"),
];

/// Keys of a PostgreSQL peer without a counterpart.
const POSTGRES: &[Hint] = &[
    ("metadata_schema", "is not needed: nothing is written into the source"),
    ("transaction_snapshot", "is not needed"),
    (
        "ssh_config",
        "has no counterpart yet: open the tunnel beside the workers and name its local end as host and port",
    ),
    ("auth_type", "has no counterpart: IAM is not built; use a password or a client certificate"),
    ("aws_auth", "has no counterpart: IAM is not built; use a password or a client certificate"),
    (
        "tls_host",
        "has no counterpart: the certificate is checked for the host itself, or with tls.mode verify-ca for none",
    ),
];

/// Keys of a ClickHouse peer without a counterpart.
const CLICKHOUSE: &[Hint] = &[
    ("s3*", NO_BUCKET),
    ("access_key_id", NO_BUCKET),
    ("secret_access_key", NO_BUCKET),
    ("region", NO_BUCKET),
    ("endpoint", NO_BUCKET),
    ("replicated", "has no counterpart yet: clusters are not built"),
    ("cluster", "is left out: clusters are not built yet; tables are made on the server that the URL names"),
    ("tls_host", "has no counterpart: the certificate is checked for the host of the URL"),
    ("tls_certificate_directory", "has no counterpart: name the files as tls.cert, tls.key and tls.ca"),
];

const NO_BUCKET: &str = "is not needed: no bucket stands between source and ClickHouse";

/// Reads JSON or SQL.
///
/// # Errors
/// INVALID_ARGUMENT if it is neither, or holds nothing of PeerDB's.
pub(super) fn read(text: &str) -> Result<Draft, Error> {
    let objects = match text.trim_start().starts_with(['{', '[']) {
        true => json(text)?,
        false => peerdb_sql::read(text)?,
    };
    let mut draft = Draft::default();
    for object in objects {
        self::object(object, &mut draft)?;
    }
    if draft.peers.is_empty() && draft.mirrors.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "there is neither a peer nor a mirror in it"));
    }
    draft.warn_of_missing_peers();
    Ok(draft)
}

/// The objects of a file: one, several after each other, or lists of them. Keys may be written in either
/// of the ways in which the gateway does.
fn json(text: &str) -> Result<Vec<Map<String, Value>>, Error> {
    let mut objects = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter() {
        let value: Value = value.map_err(|error| {
            // The parser's own words could quote a value.
            let text = format!("line {}, column {}: this is not JSON", error.line(), error.column());
            Error::new(Code::InvalidArgument, text)
        })?;
        let items = match value {
            Value::Array(items) => items,
            one => vec![one],
        };
        for item in items {
            match snake_case(item) {
                Value::Object(object) => objects.push(object),
                _ => return Err(unknown()),
            }
        }
    }
    Ok(objects)
}

/// `flowJobName` as `flow_job_name`, however deep; names of settings in upper case stay.
fn snake_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let key = |key: String| match key.starts_with(|c: char| c.is_ascii_uppercase()) {
                true => key,
                false => key.chars().fold(String::new(), |mut snake, c| {
                    if c.is_ascii_uppercase() {
                        snake.push('_');
                    }
                    snake.push(c.to_ascii_lowercase());
                    snake
                }),
            };
            Value::Object(fields.into_iter().map(|(name, field)| (key(name), snake_case(field))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(snake_case).collect()),
        leaf => leaf,
    }
}

fn unknown() -> Error {
    Error::new(Code::InvalidArgument, "this is neither a peer nor a mirror of PeerDB").with_remedy(
        "Give what POST /v1/flows/cdc/create and POST /v1/peers/create take, or CREATE PEER and CREATE MIRROR statements.",
    )
}

fn object(mut object: Map<String, Value>, draft: &mut Draft) -> Result<(), Error> {
    for wrapper in ["connection_configs", "cdc_status", "config", "peer"] {
        if let Some(Value::Object(inner)) = object.remove(wrapper) {
            return self::object(inner, draft);
        }
    }
    if object.contains_key("flow_job_name") {
        mirror(object, draft)
    } else if object.contains_key("postgres_config") || object.contains_key("clickhouse_config") {
        peer(object, draft)
    } else if object.contains_key("qrep_config") || object.contains_key("query") {
        draft.warn("a query mirror", "has no counterpart: tables are replicated, not queries");
        Ok(())
    } else if object.contains_key("name") && object.contains_key("type") {
        let name = object["name"].as_str().unwrap_or_default();
        draft.warn(&format!("peer {name}"), "is neither PostgreSQL nor ClickHouse, and is left out");
        Ok(())
    } else {
        Err(unknown())
    }
}

fn needed(keys: &mut Keys, key: &str) -> Result<String, Error> {
    keys.take_text(key)
        .ok_or_else(|| Error::new(Code::InvalidArgument, format!("{} is missing", keys.of(key))))
}

fn mirror(object: Map<String, Value>, draft: &mut Draft) -> Result<(), Error> {
    let given = object["flow_job_name"].as_str().unwrap_or_default().to_owned();
    let mut keys = Keys::new(format!("mirror {given}"), object);
    keys.take("flow_job_name");
    let name = draft.rename("mirror", &given);
    let (source, destination) = (needed(&mut keys, "source_name")?, needed(&mut keys, "destination_name")?);
    let (source, destination) = (draft.rename("peer", &source), draft.rename("peer", &destination));
    let mut tables = Vec::new();
    for entry in keys.take_list("table_mappings") {
        if let Value::Object(entry) = entry {
            tables.push(table(&given, entry, draft)?);
        }
    }
    if tables.is_empty() {
        return Err(Error::new(Code::InvalidArgument, format!("{} is missing", keys.of("table_mappings"))));
    }
    let mut mirror = draft::mirror(name, source, destination, tables);
    mirror.mode = match (keys.take_bool("do_initial_snapshot"), keys.take_bool("initial_snapshot_only")) {
        (_, true) => Mode::Snapshot,
        (true, false) => Mode::SnapshotAndStream,
        (false, false) => {
            let what = "is not set: PeerDB copies nothing then, and mode: stream follows from now on only; for the rows that are there, remove the mode";
            draft.warn(&keys.of("do_initial_snapshot"), what);
            Mode::Stream
        }
    };
    settings(&mut mirror, &mut keys, draft);
    keys.finish(MIRROR, draft);
    draft.mirrors.push(mirror);
    Ok(())
}

fn settings(mirror: &mut MirrorSpec, keys: &mut Keys, draft: &mut Draft) {
    let settings = &mut mirror.settings;
    if let Some(rows) = keys.take_number("max_batch_size", (1, 10_000_000), draft) {
        settings.flush.max_rows = rows;
    }
    if let Some(workers) = keys.take_number("snapshot_max_parallel_workers", (1, 64), draft) {
        settings.snapshot.parallel_partitions = workers;
        let text = "is settings.snapshot.parallel_partitions, which counts all tables of the mirror together, not each";
        draft.warn(&keys.of("snapshot_max_parallel_workers"), text);
    }
    if let Some(tables) = keys.take_number("snapshot_num_tables_in_parallel", (1, 64), draft) {
        settings.snapshot.parallel_tables = tables;
    }
    if let Some(column) = keys.take_text("soft_delete_col_name") {
        settings.columns.is_deleted = column;
    }
    if let Some(column) = keys.take_text("synced_at_col_name") {
        // PeerDB writes it so in ClickHouse, whatever the case it is given in.
        settings.columns.synced_at = column.to_lowercase();
    }
    if let Some(mut env) = keys.take_object("env") {
        if env.take_bool("PEERDB_ORIGIN_METADATA_AS_DESTINATION_COLUMN") {
            settings.audit_columns = true;
            draft.warn(
                &env.of("PEERDB_ORIGIN_METADATA_AS_DESTINATION_COLUMN"),
                "is settings.audit_columns, whose columns have other names",
            );
        }
        env.finish(ENV, draft);
    }
}

fn table(mirror: &str, entry: Map<String, Value>, draft: &mut Draft) -> Result<TableSpec, Error> {
    let mut keys = Keys::new(format!("mirror {mirror}"), entry);
    let source = needed(&mut keys, "source_table_identifier")?;
    keys.subject = format!("mirror {mirror}: table {source}");
    let mut table = TableSpec::new(draft::table_name(&source));
    table.destination = keys.take_text("destination_table_identifier").unwrap_or_default();
    table.exclude = texts(keys.take_list("exclude"));
    table.partition_by = keys.take_text("partition_by_expr").unwrap_or_default();
    columns(&mut table, &mut keys, draft);
    engine(&mut table, &mut keys, draft);
    keys.finish(TABLE, draft);
    Ok(table)
}

fn texts(values: Vec<Value>) -> Vec<String> {
    values.into_iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn columns(table: &mut TableSpec, keys: &mut Keys, draft: &mut Draft) {
    let (mut order, mut partition) = (Vec::new(), Vec::new());
    for entry in keys.take_list("columns") {
        let Value::Object(entry) = entry else { continue };
        let mut column = Keys::new(keys.subject.clone(), entry);
        let Some(source) = column.take_text("source_name") else { continue };
        column.subject = format!("{}: column {source}", keys.subject);
        let name = column.take_text("destination_name").filter(|name| *name != source);
        let kind = column.take_text("destination_type");
        let shown = name.clone().unwrap_or_else(|| source.clone());
        if let Some(place) = column.take_number("ordering", (1, 1_600), draft) {
            order.push((place, shown.clone()));
        }
        if let Some(place) = column.take_number("partitioning", (1, 1_600), draft) {
            partition.push((place, shown));
        }
        // NULL stays NULL, whether it is asked for or not.
        column.take("nullable_enabled");
        column.finish(&[], draft);
        if name.is_some() || kind.is_some() {
            let spec = ColumnSpec { name: name.unwrap_or_default(), kind: kind.unwrap_or_default() };
            table.columns.insert(source, spec);
        }
    }
    let in_order = |mut places: Vec<(u32, String)>| -> Vec<String> {
        places.sort();
        places.into_iter().map(|(_, name)| name).collect()
    };
    table.order_by = in_order(order);
    if !table.order_by.is_empty() {
        let text =
            "becomes order_by: it has to hold the table's key, or the mirror is refused with the reason";
        draft.warn(&keys.of("ordering"), text);
    }
    if table.partition_by.is_empty() {
        table.partition_by = match &in_order(partition)[..] {
            [] => String::new(),
            [one] => quoted(one),
            many => format!("({})", many.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
        };
    }
}

/// A column as an expression of ClickHouse.
fn quoted(column: &str) -> String {
    format!("`{}`", column.replace('\\', "\\\\").replace('`', "\\`"))
}

fn engine(table: &mut TableSpec, keys: &mut Keys, draft: &mut Draft) {
    let Some(engine) = keys.take_text("engine") else { return };
    let subject = keys.of("engine");
    match engine.trim_start_matches("CH_ENGINE_") {
        "0" | "REPLACING_MERGE_TREE" => {}
        "3" | "REPLICATED_REPLACING_MERGE_TREE" => {
            draft.warn(&subject, "is ReplacingMergeTree here: clusters are not built yet");
        }
        "1" | "4" | "MERGE_TREE" | "REPLICATED_MERGE_TREE" => {
            table.engine = Engine::MergeTree;
            table.append_only = true;
            let text = "is append_only here: inserts, each exactly once; updates and deletes do not arrive. For the state of the source remove engine and append_only";
            draft.warn(&subject, text);
        }
        _ => draft.warn(&subject, "has no counterpart: the table is a ReplacingMergeTree"),
    }
}

fn peer(object: Map<String, Value>, draft: &mut Draft) -> Result<(), Error> {
    let mut outer = Keys::new("peer", object);
    let given = needed(&mut outer, "name")?;
    let name = draft.rename("peer", &given);
    let config = if let Some(mut keys) = outer.take_object("postgres_config") {
        keys.subject = format!("peer {given}");
        postgres(keys, draft)
    } else if let Some(mut keys) = outer.take_object("clickhouse_config") {
        keys.subject = format!("peer {given}");
        clickhouse(keys, draft)
    } else {
        return Err(unknown());
    };
    draft.peers.push(draft::peer(name, config));
    Ok(())
}

fn postgres(mut keys: Keys, draft: &mut Draft) -> PeerConfig {
    let mut peer = PostgresPeer::default();
    peer.host = keys.take_text("host").unwrap_or_default();
    peer.port = keys.take_number("port", (1, u16::MAX), draft).unwrap_or(peer.port);
    peer.user = keys.take_text("user").unwrap_or_default();
    peer.password = Secret::new(keys.take_text("password").unwrap_or_default());
    peer.database = keys.take_text("database").unwrap_or_default();
    let client = keys.take_object("client_tls");
    peer.tls = tls(&mut keys, client);
    let (is_off, is_required) = (keys.take_bool("disable_tls"), keys.take_bool("require_tls"));
    let is_trusted = keys.take_bool("skip_cert_verification");
    peer.tls.mode = match (is_off, is_required, peer.tls.ca.is_empty(), is_trusted) {
        (true, ..) => TlsMode::Disable,
        (false, _, false, false) => TlsMode::VerifyFull,
        (false, true, ..) | (false, false, false, true) => TlsMode::Require,
        (false, false, true, _) => TlsMode::Prefer,
    };
    // Its default says the same as ours.
    if keys.clone().take_text("auth_type").is_some_and(|text| matches!(text.as_str(), "0" | "PASSWORD")) {
        keys.take("auth_type");
    }
    keys.finish(POSTGRES, draft);
    PeerConfig::Postgres(peer)
}

fn tls(keys: &mut Keys, client: Option<Keys>) -> Tls {
    let mut client = client.unwrap_or_else(|| {
        let own =
            ["certificate", "private_key"].map(|key| (key.to_owned(), keys.take(key).unwrap_or_default()));
        Keys::new(keys.subject.clone(), own.into_iter().collect())
    });
    Tls {
        mode: TlsMode::default(),
        ca: keys.take_text("root_ca").unwrap_or_default(),
        cert: client.take_text("certificate").unwrap_or_default(),
        key: Secret::new(client.take_text("private_key").unwrap_or_default()),
    }
}

fn clickhouse(mut keys: Keys, draft: &mut Draft) -> PeerConfig {
    let mut peer = ClickhousePeer::default();
    let host = keys.take_text("host").unwrap_or_default();
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let (scheme, port) = if keys.take_bool("disable_tls") { ("http", 8123) } else { ("https", 8443) };
    if keys.has("port") {
        keys.take("port");
        draft.warn(
            &keys.of("port"),
            format!(
                "is not taken over: it is the native protocol's; the URL names the HTTP interface, at {port}"
            ),
        );
    }
    peer.url = format!("{scheme}://{host}:{port}");
    peer.user = keys.take_text("user").unwrap_or(peer.user);
    peer.password = Secret::new(keys.take_text("password").unwrap_or_default());
    peer.database = keys.take_text("database").unwrap_or(peer.database);
    peer.tls = tls(&mut keys, None);
    keys.finish(CLICKHOUSE, draft);
    PeerConfig::Clickhouse(peer)
}

#[cfg(test)]
mod tests;
