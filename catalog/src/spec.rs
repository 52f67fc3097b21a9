//! What users ask for: peers and mirrors, as `apply` files hold them and as the catalog stores
//! them. A stored mirror has every default resolved; [`RULES`] names the rules it was resolved by.
//!
//! Pure: no I/O.

use std::collections::BTreeMap;
use std::fmt;

use millrace_terms::TableName;
use serde::{Deserialize, Serialize};

/// The rules (type table, names, DDL) by which new mirrors are made. A stored mirror keeps the
/// number it was made with, and the code keeps the old rules.
pub const RULES: u32 = 1;

/// Streams of a mirror at most. Each has a walsender on the source that reads and reassembles the whole log,
/// and leaves out other streams' tables only then: beyond the cores of a large source, more of them make it
/// slower.
pub const STREAMS_MAX: u32 = 16;

/// Text that is never shown: `Debug` hides it. It is serialised in clear, so the only thing that
/// may be done with the serialised form is to seal it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text into custody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(set)" })
    }
}

/// A database that we connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSpec {
    /// `^[a-z][a-z0-9-]{0,39}$`.
    pub name: String,
    /// How to reach it.
    pub config: PeerConfig,
}

/// How to reach a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerConfig {
    /// A source.
    Postgres(PostgresPeer),
    /// A destination.
    Clickhouse(ClickhousePeer),
}

impl PeerConfig {
    /// The database that the tables are in.
    pub fn database(&self) -> &str {
        match self {
            Self::Postgres(config) => &config.database,
            Self::Clickhouse(config) => &config.database,
        }
    }
}

/// How to reach a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresPeer {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    #[serde(default = "postgres_port")]
    pub port: u16,
    /// Role; it needs REPLICATION and SELECT on the tables.
    pub user: String,
    /// Password; empty where the server asks for none.
    #[serde(default)]
    pub password: Secret,
    /// Database.
    pub database: String,
    /// Transport security.
    #[serde(default)]
    pub tls: Tls,
}

/// Where nothing is said: what a document leaves out, and no server yet.
impl Default for PostgresPeer {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: postgres_port(),
            user: String::new(),
            password: Secret::default(),
            database: String::new(),
            tls: Tls::default(),
        }
    }
}

fn postgres_port() -> u16 {
    5432
}

/// How to reach a ClickHouse server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickhousePeer {
    /// Base URL of the HTTP interface: `http://host:8123` or `https://host:8443`.
    pub url: String,
    /// User.
    #[serde(default = "clickhouse_default")]
    pub user: String,
    /// Password.
    #[serde(default)]
    pub password: Secret,
    /// Database that takes the tables; made if it does not exist.
    #[serde(default = "clickhouse_default")]
    pub database: String,
    /// Name of the cluster for ON CLUSTER; empty for a single server.
    #[serde(default)]
    pub cluster: String,
    /// Private CA and client certificate, for https.
    #[serde(default)]
    pub tls: Tls,
    /// Budget of INSERTs per second, all tables of this destination together.
    #[serde(default = "max_inserts_per_second")]
    pub max_inserts_per_second: u32,
    /// Budget of INSERTs at once, all tables of this destination together.
    #[serde(default = "max_concurrent_inserts")]
    pub max_concurrent_inserts: u32,
}

/// Where nothing is said: what a document leaves out, and no server yet.
impl Default for ClickhousePeer {
    fn default() -> Self {
        Self {
            url: String::new(),
            user: clickhouse_default(),
            password: Secret::default(),
            database: clickhouse_default(),
            cluster: String::new(),
            tls: Tls::default(),
            max_inserts_per_second: max_inserts_per_second(),
            max_concurrent_inserts: max_concurrent_inserts(),
        }
    }
}

fn clickhouse_default() -> String {
    "default".into()
}

fn max_inserts_per_second() -> u32 {
    50
}

fn max_concurrent_inserts() -> u32 {
    4
}

/// Transport security towards a peer. Certificates are PEM text, or the path of a file on the
/// workers' machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// As libpq's sslmode.
    #[serde(default)]
    pub mode: TlsMode,
    /// Authorities to trust instead of the system's.
    #[serde(default)]
    pub ca: String,
    /// Client certificate.
    #[serde(default)]
    pub cert: String,
    /// Key of the client certificate.
    #[serde(default)]
    pub key: Secret,
}

/// As libpq's sslmode (PostgreSQL documentation, section 32.19).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; nothing is verified.
    #[default]
    Prefer,
    /// Always; nothing is verified.
    Require,
    /// Always; the certificate is verified, the host name is not.
    VerifyCa,
    /// Always; certificate and host name are verified.
    VerifyFull,
}

/// A mirror: tables of a source, replicated into a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// `^[a-z][a-z0-9-]{0,39}$`.
    pub name: String,
    /// Name of the source peer.
    pub source: String,
    /// Name of the destination peer.
    pub destination: String,
    /// What is done.
    #[serde(default)]
    pub mode: Mode,
    /// The tables.
    pub tables: Vec<TableSpec>,
    /// Everything else.
    #[serde(default)]
    pub settings: Settings,
}

/// What a mirror does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Copy, then follow.
    #[default]
    #[serde(rename = "snapshot+stream")]
    SnapshotAndStream,
    /// Copy, then end.
    #[serde(rename = "snapshot")]
    Snapshot,
    /// Follow from now on.
    #[serde(rename = "stream")]
    Stream,
}

/// One table of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// The table on the source, or the pattern `schema.*` in a request.
    pub source: String,
    /// Name of the table in ClickHouse; empty in a request for the default name.
    #[serde(default)]
    pub destination: String,
    /// Columns that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Columns with another name or type than the default, by their name on the source.
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnSpec>,
    /// Sorting key, in names of the destination; empty for the source's key.
    #[serde(default)]
    pub order_by: Vec<String>,
    /// PARTITION BY expression; empty for none.
    #[serde(default)]
    pub partition_by: String,
    /// Table engine.
    #[serde(default)]
    pub engine: Engine,
    /// Declares that rows are only ever inserted; needed for a table without a key.
    #[serde(default)]
    pub append_only: bool,
    /// Whether the destination table tells by a column which source table a row is of: several can share it.
    #[serde(default)]
    pub source_column: bool,
    /// Whether rows of the tables that inherit from it are its rows, too.
    #[serde(default)]
    pub with_children: bool,
}

impl TableSpec {
    /// A table with all defaults.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            destination: String::new(),
            exclude: Vec::new(),
            columns: BTreeMap::new(),
            order_by: Vec::new(),
            partition_by: String::new(),
            engine: Engine::default(),
            append_only: false,
            source_column: false,
            with_children: false,
        }
    }

    /// The schema, if this is the pattern `schema.*`.
    pub fn pattern_schema(&self) -> Option<String> {
        let schema = self.source.trim().strip_suffix(".*")?;
        format!("{schema}.x").parse::<TableName>().ok().map(|name| name.schema)
    }
}

/// A column with another name or type than the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Name in ClickHouse; empty for the source's.
    #[serde(default)]
    pub name: String,
    /// ClickHouse type; empty for the default.
    #[serde(default, rename = "type")]
    pub kind: String,
}

/// Table engine of a destination table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// Keeps the newest version of each key.
    #[default]
    ReplacingMergeTree,
    /// Keeps every row: for `append_only`.
    MergeTree,
}

/// A mirror's settings. `Default` is what `apply` files leave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The user's own publication, never altered; empty for one of ours.
    pub publication: String,
    /// The user's own slot; empty for one of ours.
    pub slot: String,
    /// How tables are copied.
    pub snapshot: SnapshotSettings,
    /// When rows are sent.
    pub flush: FlushSettings,
    /// Number of streams, each with a slot of its own: 1 to [`STREAMS_MAX`].
    pub streams: u32,
    /// What happens to a value that ClickHouse cannot hold.
    pub on_unrepresentable: OnUnrepresentable,
    /// What happens when the slot is gone.
    pub on_slot_lost: OnSlotLost,
    /// What happens when a partition is truncated, detached or dropped.
    pub on_partition_removed: OnPartitionRemoved,
    /// What happens to a column that the source drops.
    pub on_column_dropped: OnColumnDropped,
    /// What happens when the source writes a table's rows anew, perhaps with other values.
    pub on_rewrite: OnRewrite,
    /// Names of our own columns.
    pub columns: OwnColumns,
    /// Whether the audit columns are written.
    pub audit_columns: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            publication: String::new(),
            slot: String::new(),
            snapshot: SnapshotSettings::default(),
            flush: FlushSettings::default(),
            streams: 1,
            on_unrepresentable: OnUnrepresentable::Error,
            on_slot_lost: OnSlotLost::Error,
            on_partition_removed: OnPartitionRemoved::Resync,
            on_column_dropped: OnColumnDropped::Keep,
            on_rewrite: OnRewrite::Resync,
            columns: OwnColumns::default(),
            audit_columns: false,
        }
    }
}

/// How tables are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotSettings {
    /// Tables copied at once.
    pub parallel_tables: u32,
    /// COPYs at once, all tables of the mirror together.
    pub parallel_partitions: u32,
    /// Heap bytes of one partition.
    #[serde(with = "byte_size")]
    pub partition_bytes: u64,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { parallel_tables: 4, parallel_partitions: 4, partition_bytes: 64 << 20 }
    }
}

/// When the rows of a table are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlushSettings {
    /// Least time between two INSERTs into one table, in milliseconds.
    #[serde(rename = "min_interval", with = "duration_ms")]
    pub min_interval_ms: u64,
    /// Most rows of one INSERT.
    pub max_rows: u64,
    /// Most bytes of one INSERT.
    #[serde(with = "byte_size")]
    pub max_bytes: u64,
    /// Most INSERTs of one table at once.
    pub max_in_flight: u32,
}

impl Default for FlushSettings {
    fn default() -> Self {
        Self { min_interval_ms: 50, max_rows: 100_000, max_bytes: 32 << 20, max_in_flight: 2 }
    }
}

/// What happens to a value that ClickHouse cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnrepresentable {
    /// The table goes to ERROR.
    Error,
    /// NULL is written, counted and logged.
    Null,
    /// Columns of such types are made as String.
    String,
}

/// What happens when the slot is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSlotLost {
    /// The mirror stops with the reason.
    Error,
    /// A new slot is made and every table is resynced.
    Resync,
}

/// What happens when a partition is truncated, detached or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartitionRemoved {
    /// The table is resynced.
    Resync,
    /// The rows stay.
    Keep,
}

/// What happens to a column that the source drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnColumnDropped {
    /// It stays; later rows have NULL or its type's default in it.
    Keep,
    /// It is dropped.
    Drop,
}

/// What happens when the source writes a table's rows anew, perhaps with other values: the log does not
/// tell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRewrite {
    /// The table is copied again by itself.
    Resync,
    /// The table goes to ERROR, which says that it needs a resync.
    Error,
    /// The rows stay as they are.
    Keep,
}

/// Names of our own columns in destination tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnColumns {
    /// The version of a row, `UInt128`.
    pub version: String,
    /// Whether a row is a tombstone, `UInt8`.
    pub is_deleted: String,
    /// When a row was written, `DateTime64(6)`.
    pub synced_at: String,
    /// Which table a row is of, `LowCardinality(String)`, in tables with a `source_column`.
    pub source: String,
}

impl Default for OwnColumns {
    fn default() -> Self {
        Self {
            version: "_version".into(),
            is_deleted: "_is_deleted".into(),
            synced_at: "_synced_at".into(),
            source: "_source".into(),
        }
    }
}

/// Sizes as `64MiB` or a plain number of bytes.
mod byte_size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    pub(super) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        for (unit, size) in UNITS {
            if *bytes > 0 && bytes.is_multiple_of(size) {
                return serializer.collect_str(&format_args!("{}{unit}", bytes / size));
            }
        }
        serializer.serialize_u64(*bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        super::number_with_unit(deserializer, &UNITS, "a size looks like 64MiB").map_err(D::Error::custom)
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum NumberOrText {
        Number(u64),
        Text(String),
    }
}

/// Times as `50ms`, `1s`, or a plain number of milliseconds.
mod duration_ms {
    use serde::{Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("min", 60_000)];

    pub(super) fn serialize<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{ms}ms"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        super::number_with_unit(deserializer, &UNITS, "a time looks like 50ms").map_err(D::Error::custom)
    }
}

fn number_with_unit<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
    units: &[(&str, u64)],
    hint: &'static str,
) -> Result<u64, String> {
    match byte_size::NumberOrText::deserialize(deserializer).map_err(|_| hint.to_owned())? {
        byte_size::NumberOrText::Number(number) => Ok(number),
        byte_size::NumberOrText::Text(text) => {
            let text = text.trim();
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (number, unit) = text.split_at(digits);
            let factor = match unit.trim() {
                "" => 1,
                unit => units.iter().find(|(name, _)| *name == unit).ok_or(hint)?.1,
            };
            number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(|| hint.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_documented_defaults_and_text_forms() {
        let text = serde_json::to_value(Settings::default()).unwrap();
        assert_eq!(text["snapshot"]["partition_bytes"], "64MiB");
        assert_eq!(text["flush"]["min_interval"], "50ms");
        assert_eq!(serde_json::from_value::<Settings>(text).unwrap(), Settings::default());
        let other: FlushSettings = serde_json::from_str(r#"{"min_interval":"2s","max_bytes":1024}"#).unwrap();
        assert_eq!((other.min_interval_ms, other.max_bytes), (2_000, 1_024));
        assert!(serde_json::from_str::<FlushSettings>(r#"{"min_interval":"2 weeks"}"#).is_err());
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(set)");
    }
}
