//! Debezium's PostgreSQL connector, with the sink that wrote into ClickHouse where it is given: Kafka
//! Connect's JSON or properties, or Debezium Server's properties.
//!
//! Written from the public documentation of those settings. Pure.

use std::collections::BTreeMap;

use millrace_catalog::spec::{
    ClickhousePeer, MirrorSpec, Mode, OnSlotLost, PeerConfig, PostgresPeer, Secret, TableSpec, TlsMode,
};
use millrace_terms::{Code, Error};
use serde_json::{Map, Value};

use super::draft::{self, Draft, Hint, Keys};
use super::{pattern, properties};

/// Keys of the source connector without a counterpart.
const SOURCE: &[Hint] = &[
    ("connector.class", ""),
    ("name", ""),
    ("tasks.max", ""),
    ("database.server.name", ""),
    ("plugin.name", ""),
    ("publication.autocreate.mode", "is not taken over: the mirror's publication holds exactly its tables"),
    ("publication.name", OWN_PUBLICATION),
    ("slot.name", OWN_SLOT),
    ("slot.drop.on.stop", "is not taken over: a slot stays until its mirror is dropped"),
    ("slot.*", "has no counterpart: the slot is looked after by itself"),
    ("heartbeat.*", "is not needed: idle streams move their slots by themselves"),
    ("tombstones.on.delete", "is not needed: deletes are rows with _is_deleted = 1, which FINAL leaves out"),
    (
        "decimal.handling.mode",
        "has no counterpart: numeric(p,s) is Decimal(p,s), without precision String; another type is chosen by column",
    ),
    ("time.precision.mode", "has no counterpart: times keep their microseconds (DateTime64(6))"),
    ("interval.handling.mode", "has no counterpart: intervals are String"),
    (
        "binary.handling.mode",
        "has no counterpart: bytea is its raw bytes; use hex() or base64Encode() in ClickHouse",
    ),
    ("hstore.handling.mode", "has no counterpart: hstore is String"),
    ("money.fraction.digits", "has no counterpart: see the table of types"),
    (
        "unavailable.value.placeholder",
        "is not needed: values that the log leaves out are read again from the source",
    ),
    (
        "toasted.value.placeholder",
        "is not needed: values that the log leaves out are read again from the source",
    ),
    ("skipped.operations", "has no counterpart: every operation is carried over, TRUNCATE included"),
    (
        "message.key.columns",
        "has no counterpart: the key is the table's own; order_by may hold further columns",
    ),
    (
        "signal.*",
        "has no counterpart: use `millrace table resync`, `mirror update --add-table` and `mirror resync`",
    ),
    ("incremental.snapshot.*", "is not needed: every copy runs beside the stream, in partitions"),
    ("snapshot.fetch.size", "is not needed: rows come by COPY"),
    (
        "snapshot.select.statement.overrides*",
        "has no counterpart: a table is copied whole; filter by a view in ClickHouse",
    ),
    (
        "snapshot.include.collection.list",
        "has no counterpart: every table of a mirror is copied; put the others into a mirror with mode: stream",
    ),
    ("snapshot.*", "has no counterpart: copies hold no lock and resume by themselves"),
    ("max.batch.size", "is not taken over: settings.flush bounds what one INSERT holds"),
    ("max.queue.*", "is not taken over: settings.flush bounds what one INSERT holds"),
    ("poll.interval.ms", "is not taken over: changes are read as they come"),
    ("retriable.*", "is not needed: what can be tried again is"),
    ("errors.*", "has no counterpart: a table that fails stops alone, with its reason; no row is skipped"),
    (
        "transforms*",
        "has no counterpart: rows are not transformed on their way; rename columns and tables here, and use a materialized view for the rest",
    ),
    ("predicates*", "has no counterpart: rows are not filtered on their way"),
    ("topic.*", "is not needed: there are no topics"),
    ("schema.history.*", "is not needed"),
    ("schema.name.adjustment.mode", "is not needed: names stay as they are"),
    ("field.name.adjustment.mode", "is not needed: names stay as they are"),
    ("include.schema.changes", "is not needed: schema changes are followed, and told as events"),
    (
        "provide.transaction.metadata",
        "has no counterpart: settings.audit_columns writes position and time of a row's transaction",
    ),
    ("key.converter*", NO_KAFKA),
    ("value.converter*", NO_KAFKA),
    ("header.converter*", NO_KAFKA),
    ("offset.*", NO_KAFKA),
    ("producer.*", NO_KAFKA),
    ("config.action.reload", NO_KAFKA),
    ("internal.*", NO_KAFKA),
    ("quarkus.*", NO_KAFKA),
    ("bootstrap.servers", NO_KAFKA),
    ("plugin.path", NO_KAFKA),
    ("rest.*", NO_KAFKA),
    ("group.id", NO_KAFKA),
    ("status.storage.*", NO_KAFKA),
    ("config.storage.*", NO_KAFKA),
    ("database.tcpKeepAlive", "is always so"),
    ("database.initial.statements", "has no counterpart: what a session needs is set by itself"),
    ("status.update.interval.ms", "is not needed: the position is told several times a second"),
    ("xmin.fetch.interval.ms", "is not needed"),
    ("converters", "has no counterpart: choose a ClickHouse type by column"),
];

/// Keys of a sink without a counterpart.
const SINK: &[Hint] = &[
    ("connector.class", ""),
    ("name", ""),
    ("tasks.max", ""),
    ("topics", ""),
    ("topics.regex", ""),
    ("exactlyOnce", "is not needed: sending a row twice changes nothing"),
    ("auto.create.tables", "is always so: the mirror makes its tables"),
    ("schema.evolution", "is always so: schema changes are followed"),
    ("replacingmergetree.delete.column", "is settings.columns.is_deleted: set that if readers use the name"),
    ("buffer.*", "is not taken over: settings.flush bounds what one INSERT holds"),
    (
        "transforms*",
        "has no counterpart: rows are not transformed on their way; rename columns and tables here",
    ),
    ("errors.*", "has no counterpart: a table that fails stops alone, with its reason; no row is skipped"),
    ("key.converter*", NO_KAFKA),
    ("value.converter*", NO_KAFKA),
    ("header.converter*", NO_KAFKA),
    ("consumer.*", NO_KAFKA),
    ("tableRefreshInterval", "is not needed: the mirror knows its tables"),
    ("store.kafka.metadata", NO_KAFKA),
    ("enable.kafka.offset", NO_KAFKA),
    ("zk*", "is not needed: no state is kept in Keeper"),
    ("keeperOnCluster", "is not needed: no state is kept in Keeper"),
];

const OWN_PUBLICATION: &str = "is not taken over: the mirror makes its own; settings.publication names one of yours, which is never altered";
const OWN_SLOT: &str = "is not taken over: the mirror makes its own, so that both can run side by side; drop Debezium's when its connector is gone";
const NO_KAFKA: &str = "is not needed: there is no Kafka in between";

/// Reads connectors; several texts and several connectors belong together. `name` is for a mirror whose
/// connector has none.
///
/// # Errors
/// INVALID_ARGUMENT if there is no PostgreSQL connector in it.
pub(super) fn read(texts: &[String], name: &str) -> Result<Draft, Error> {
    let mut connectors = Vec::new();
    for text in texts {
        connectors.extend(connectors_of(text)?);
    }
    let (sinks, others): (Vec<_>, Vec<_>) = connectors.into_iter().partition(is_clickhouse);
    let (sources, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_postgres);
    let mut draft = Draft::default();
    for other in others {
        let subject = format!("connector {}", other.name.as_deref().unwrap_or("without a name"));
        draft.warn(
            &subject,
            "is neither Debezium's for PostgreSQL nor a sink for ClickHouse, and is left out",
        );
    }
    if sources.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "there is no PostgreSQL connector of Debezium in it").with_remedy(
            "Give the connector's JSON or properties, with connector.class io.debezium.connector.postgresql.PostgresConnector.",
        ));
    }
    if sinks.len() > 1 {
        draft.warn("sinks", "only the first one is taken over");
    }
    let sink = sinks.into_iter().next();
    let destination = Destination::new(sink, name, &mut draft);
    for source in sources {
        self::source(source, &destination, name, &mut draft)?;
    }
    draft.peers.push(draft::peer(destination.name, PeerConfig::Clickhouse(destination.peer)));
    Ok(draft)
}

/// A connector's settings.
struct Connector {
    name: Option<String>,
    config: Map<String, Value>,
}

fn class(connector: &Connector) -> &str {
    connector.config.get("connector.class").and_then(Value::as_str).unwrap_or_default()
}

fn is_postgres(connector: &Connector) -> bool {
    class(connector).ends_with("PostgresConnector")
}

fn is_clickhouse(connector: &Connector) -> bool {
    class(connector).ends_with("ClickHouseSinkConnector")
}

fn connectors_of(text: &str) -> Result<Vec<Connector>, Error> {
    if !text.trim_start().starts_with(['{', '[']) {
        return Ok(of_properties(properties::read(text)));
    }
    let mut connectors = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter() {
        let value: Value = value.map_err(|error| {
            // The parser's own words could quote a value.
            let text = format!("line {}, column {}: this is not JSON", error.line(), error.column());
            Error::new(Code::InvalidArgument, text)
        })?;
        let items = if let Value::Array(items) = value { items } else { vec![value] };
        for item in items {
            let Value::Object(mut object) = item else { continue };
            let name = object.get("name").and_then(Value::as_str).map(str::to_owned);
            let config = match object.remove("config") {
                Some(Value::Object(config)) => config,
                _ => object,
            };
            connectors.push(Connector { name, config });
        }
    }
    Ok(connectors)
}

/// Connectors of a properties file: one, or those of a Debezium Server.
fn of_properties(all: Map<String, Value>) -> Vec<Connector> {
    let below = |prefix: &str| -> Map<String, Value> {
        let own =
            all.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        own.collect()
    };
    let source = below("debezium.source.");
    let config = if source.is_empty() { all } else { source };
    let name = config.get("name").and_then(Value::as_str).map(str::to_owned);
    vec![Connector { name, config }]
}

/// Where the tables go, and how the sink named them.
struct Destination {
    name: String,
    peer: ClickhousePeer,
    /// Tables by their topics.
    tables: BTreeMap<String, String>,
}

impl Destination {
    fn new(sink: Option<Connector>, fallback: &str, draft: &mut Draft) -> Self {
        let mut peer = ClickhousePeer::default();
        let Some(sink) = sink else {
            peer.url = "${CLICKHOUSE_URL}".to_owned();
            peer.password = Secret::new("set");
            let name = format!("{}-ch", draft::name(fallback));
            let text = "no sink for ClickHouse is in the input: set CLICKHOUSE_URL to the HTTP interface, such as http://host:8123, and correct user and database";
            draft.warn(&format!("peer {name}"), text);
            return Self { name, peer, tables: BTreeMap::new() };
        };
        let given = sink.name.unwrap_or_else(|| format!("{fallback}-ch"));
        let mut keys = Keys::new(format!("sink {given}"), sink.config);
        let first = |keys: &mut Keys, names: [&str; 2]| names.into_iter().find_map(|name| plain(keys, name));
        let host = first(&mut keys, ["hostname", "clickhouse.server.url"]).unwrap_or_default();
        let host = host
            .trim_start_matches("http://")
            .trim_start_matches("https://")
            .trim_end_matches('/')
            .to_owned();
        let scheme = if keys.take_bool("ssl") { "https" } else { "http" };
        let default = if scheme == "https" { "8443" } else { "8123" };
        let port = first(&mut keys, ["port", "clickhouse.server.port"]).unwrap_or_else(|| default.to_owned());
        peer.url = if host.contains(':') {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        };
        peer.user = first(&mut keys, ["username", "clickhouse.server.user"]).unwrap_or(peer.user);
        peer.password = Secret::new(
            ["password", "clickhouse.server.password"]
                .into_iter()
                .find_map(|key| keys.take_text(key))
                .unwrap_or_default(),
        );
        peer.database = first(&mut keys, ["database", "clickhouse.server.database"]).unwrap_or(peer.database);
        let map =
            ["topic2TableMap", "clickhouse.topic2table.map"].into_iter().find_map(|key| keys.take_text(key));
        let tables = topic_map(&map.unwrap_or_default());
        keys.finish(SINK, draft);
        Self { name: draft::name(&given), peer, tables }
    }
}

/// `topic=table, topic:table`.
fn topic_map(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('=').or_else(|| pair.split_once(':')));
    pairs.map(|(topic, table)| (topic.trim().to_owned(), table.trim().to_owned())).collect()
}

/// A value that may be written down. One that a config provider of Kafka Connect was to fill in becomes
/// a variable.
fn plain(keys: &mut Keys, key: &str) -> Option<String> {
    let text = keys.take_text(key)?;
    if !text.contains("${") {
        return Some(text);
    }
    let name = key.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    Some(format!("${{{name}}}"))
}

fn source(connector: Connector, to: &Destination, fallback: &str, draft: &mut Draft) -> Result<(), Error> {
    let prefix = ["topic.prefix", "database.server.name"]
        .into_iter()
        .find_map(|key| connector.config.get(key).and_then(Value::as_str))
        .map(str::to_owned);
    let given = connector.name.or_else(|| prefix.clone()).unwrap_or_else(|| fallback.to_owned());
    let mut keys = Keys::new(format!("connector {given}"), connector.config);
    let name = draft.rename("connector", &given);
    for key in ["topic.prefix", "database.server.name"] {
        keys.take(key);
    }
    let source = format!("{}-pg", name.chars().take(36).collect::<String>().trim_end_matches('-'));
    let peer = postgres(&mut keys, draft);
    draft.peers.push(draft::peer(source.clone(), peer));
    let mut tables = pattern::tables(&mut keys, draft);
    name_destinations(&mut tables, prefix.as_deref().unwrap_or(&given), to, &keys, draft);
    let mut mirror = draft::mirror(name, source, to.name.clone(), tables);
    settings(&mut mirror, &mut keys, draft);
    if let Some(plugin) = keys.take_text("plugin.name").filter(|plugin| plugin != "pgoutput") {
        draft.warn(
            &keys.of("plugin.name"),
            format!("is pgoutput here, which every PostgreSQL has, and not {plugin}"),
        );
    }
    keys.finish(SOURCE, draft);
    draft.mirrors.push(mirror);
    Ok(())
}

fn postgres(keys: &mut Keys, draft: &mut Draft) -> PeerConfig {
    let mut peer = PostgresPeer::default();
    peer.host = plain(keys, "database.hostname").unwrap_or_default();
    peer.port = keys.take_number("database.port", (1, u16::MAX), draft).unwrap_or(peer.port);
    peer.user = plain(keys, "database.user").unwrap_or_default();
    peer.password = Secret::new(keys.take_text("database.password").unwrap_or_default());
    peer.database = plain(keys, "database.dbname").unwrap_or_default();
    peer.tls.mode = match keys.take_text("database.sslmode").as_deref() {
        Some("disable") => TlsMode::Disable,
        Some("require") => TlsMode::Require,
        Some("verify-ca") => TlsMode::VerifyCa,
        Some("verify-full") => TlsMode::VerifyFull,
        _ => TlsMode::Prefer,
    };
    peer.tls.ca = plain(keys, "database.sslrootcert").unwrap_or_default();
    peer.tls.cert = plain(keys, "database.sslcert").unwrap_or_default();
    if let Some(key) = keys.take_text("database.sslkey") {
        peer.tls.key = Secret::new(key);
        draft.warn(
            &keys.of("database.sslkey"),
            "stands as a variable: set it to the key's PEM text, or to its path on the workers' machines",
        );
    }
    PeerConfig::Postgres(peer)
}

/// The sink's names of the tables, where it was told any. Without, it named them after their topics.
fn name_destinations(
    tables: &mut [TableSpec],
    prefix: &str,
    to: &Destination,
    keys: &Keys,
    draft: &mut Draft,
) {
    let mut others = 0;
    for table in tables.iter_mut().filter(|table| table.pattern_schema().is_none()) {
        let topic = format!("{prefix}.{}", table.source.replace('"', ""));
        match to.tables.get(&topic) {
            Some(name) => table.destination.clone_from(name),
            None => others += 1,
        }
    }
    if others > 0 {
        let text = format!(
            "{others} tables are named after the source's, such as `orders`, and not after a topic, such as `{prefix}.public.orders`; destination: names a table otherwise"
        );
        draft.warn(&keys.subject, text);
    }
}

fn settings(mirror: &mut MirrorSpec, keys: &mut Keys, draft: &mut Draft) {
    let mode = keys.take_text("snapshot.mode").unwrap_or_else(|| "initial".to_owned());
    mirror.mode = match mode.as_str() {
        "initial_only" => Mode::Snapshot,
        "no_data" | "never" | "schema_only" => Mode::Stream,
        _ => Mode::SnapshotAndStream,
    };
    match mode.as_str() {
        "initial" | "initial_only" | "no_data" | "never" | "schema_only" => {}
        "when_needed" => mirror.settings.on_slot_lost = OnSlotLost::Resync,
        _ => {
            let text = format!(
                "{mode} has no counterpart: everything is copied once, and again by `millrace mirror resync`"
            );
            draft.warn(&keys.of("snapshot.mode"), text);
        }
    }
    if let Some(threads) = keys.take_number("snapshot.max.threads", (1, 64), draft) {
        mirror.settings.snapshot.parallel_partitions = threads;
    }
}

#[cfg(test)]
mod tests;
