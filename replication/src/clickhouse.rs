//! The destination: ClickHouse over its HTTP interface, through the official client.
//!
//! I/O, except `ddl` and `error`, which are pure.
//!
//! Every statement goes through [`Clickhouse`], so every one carries the settings that correctness
//! rests on ([`STATEMENT_SETTINGS`]) and a query id that tells whose it is.

mod alter;
mod check;
mod connector;
pub mod ddl;
mod error;
mod insert;
mod read;
mod table;

use std::sync::Arc;
use std::time::Duration;

use ::clickhouse::{Client, Compression, RowOwned, RowRead};
use millrace_terms::{Code, Error, Result};
use secrecy::{ExposeSecret, SecretString};

pub use self::alter::Alter;
pub use self::check::checks;
pub use self::insert::{INSERT_SECONDS_MAX, Insert, InsertId};
pub use self::table::TableState;
use crate::addresses::AddressRules;
use crate::types::TimeRange;

/// The oldest supported release: year and month.
const VERSION_MIN: (u32, u32) = (24, 8);

/// How long a statement other than an INSERT may take, in seconds: a lightweight DELETE over a large
/// table is the longest.
const STATEMENT_SECONDS_MAX: u64 = 600;

/// What the client waits beyond the server's own limit before it gives up on an answer.
const ANSWER_GRACE: Duration = Duration::from_secs(15);

/// What every statement carries, each with its reason.
const STATEMENT_SETTINGS: &[(&str, &str)] = &[
    // An acknowledged insert is in the table: new releases gather inserts by default.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    // Nothing is clamped or zeroed silently.
    ("date_time_overflow_behavior", "throw"),
    ("input_format_null_as_default", "0"),
    // The server makes LowCardinality, or the type that the user chose, of the base type we send.
    ("input_format_native_allow_types_conversion", "1"),
    // An error after the first bytes of the answer would otherwise come with status 200.
    ("wait_end_of_query", "1"),
    ("timeout_overflow_mode", "throw"),
];

/// How to reach a ClickHouse server.
#[derive(Debug, Clone)]
pub struct ClickhouseConfig {
    /// Base URL of the HTTP interface: `http://host:8123` or `https://host:8443`.
    pub url: String,
    /// User.
    pub user: String,
    /// Password; empty for none.
    pub password: SecretString,
    /// Database that holds the destination tables. It need not exist yet.
    pub database: String,
    /// Private CA and client certificate, for https.
    pub tls: ClickhouseTls,
    /// Whether inserts are compressed.
    pub compression: InsertCompression,
    /// Where a peer may be.
    pub addresses: Arc<AddressRules>,
}

/// What https needs beyond the system's authorities. PEM text or the path of a file; empty for
/// none.
#[derive(Debug, Clone, Default)]
pub struct ClickhouseTls {
    /// Authorities to trust instead of the system's.
    pub ca: String,
    /// Client certificate, with its chain.
    pub cert: String,
    /// Key of the client certificate.
    pub key: SecretString,
}

/// Whether inserts are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InsertCompression {
    /// LZ4 unless the server is on this machine: on loopback it is only cost (measured).
    #[default]
    Auto,
    /// Never.
    None,
    /// Always LZ4.
    Lz4,
}

/// A ClickHouse server that answers. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Clickhouse {
    client: Client,
    server: Arc<Server>,
}

/// What is known of the server.
#[derive(Debug)]
struct Server {
    version: String,
    time_range: TimeRange,
    database: String,
}

impl std::fmt::Debug for Clickhouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clickhouse").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Clickhouse {
    /// Connects, and asks the server for its version and its range of dates.
    ///
    /// # Errors
    /// `DESTINATION_UNREACHABLE`, `DESTINATION_AUTH`, `DESTINATION_VERSION` below 24.8, `ADDRESS_DENIED`, or
    /// `INVALID_ARGUMENT` for a URL or certificate that cannot be read.
    pub async fn connect(config: &ClickhouseConfig) -> Result<Self> {
        let url = url(config)?;
        let (host, port) = host_and_port(url);
        // Each connection is judged again: the address of a name may change. This tells the reason, and judges
        // the URLs that hold an address.
        config.addresses.resolve(host, port, Code::DestinationUnreachable).await?;
        let client = connector::client(url, &config.tls, &config.addresses)?
            .with_url(url)
            .with_user(&config.user)
            .with_password(config.password.expose_secret())
            .with_product_info("millrace", env!("CARGO_PKG_VERSION"))
            .with_compression(compression(config));
        let client = STATEMENT_SETTINGS
            .iter()
            .fold(client, |client, (name, value)| client.with_setting(*name, *value));
        let server = Server {
            version: String::new(),
            time_range: TimeRange::NARROW,
            database: config.database.clone(),
        };
        let mut this = Self { client, server: Arc::new(server) };
        let (version, last_day, last_moment) = this
            .query_one::<(String, String, String)>(
                // Releases with the narrow range answer a day of 2299, or refuse: then it is null.
                "select version(), ifNull(toString(toDate32OrNull('9999-12-31')), ''), \
                 ifNull(toString(toDateTime64OrNull('9999-12-31 00:00:00', 6, 'UTC')), '')",
            )
            .await?;
        if parse_version(&version).is_none_or(|version| version < VERSION_MIN) {
            let message = format!("the server is ClickHouse {version}");
            return Err(Error::new(Code::DestinationVersion, message).with("version", version));
        }
        let is_wide = |last: &str| last.starts_with("9999-12-31");
        let time_range = TimeRange::new(is_wide(&last_day), is_wide(&last_moment));
        this.server = Arc::new(Server { version, time_range, database: config.database.clone() });
        Ok(this)
    }

    /// The server's version, such as `26.7.2.1`.
    pub fn version(&self) -> &str {
        &self.server.version
    }

    /// What the server's date types hold.
    pub fn time_range(&self) -> TimeRange {
        self.server.time_range
    }

    /// Database that holds the destination tables.
    pub fn database(&self) -> &str {
        &self.server.database
    }

    /// Runs a statement that returns nothing.
    ///
    /// # Errors
    /// By the server's code: see `error`.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.execute_with(sql, &[]).await
    }

    /// Runs a statement with settings of its own.
    async fn execute_with(&self, sql: &str, settings: &[(&str, &str)]) -> Result<()> {
        let query = self.client.query_raw(sql);
        let query = settings.iter().fold(query, |query, (name, value)| query.with_setting(*name, *value));
        within(query.with_setting("max_execution_time", STATEMENT_SECONDS_MAX.to_string()).execute()).await
    }

    /// Runs a SELECT and gathers its rows: for small answers. Tables are read with FINAL.
    ///
    /// # Errors
    /// By the server's code: see `error`.
    pub async fn query<T: RowOwned + RowRead>(&self, sql: &str) -> Result<Vec<T>> {
        let query = self
            .client
            .query_raw(sql)
            .with_setting("final", "1")
            .with_setting("do_not_merge_across_partitions_select_final", "0")
            .with_setting("max_execution_time", STATEMENT_SECONDS_MAX.to_string());
        within(query.fetch_all::<T>()).await
    }

    /// As [`Clickhouse::query`], for exactly one row.
    ///
    /// # Errors
    /// Also `DESTINATION_ERROR` if there is none.
    pub async fn query_one<T: RowOwned + RowRead>(&self, sql: &str) -> Result<T> {
        let row = self.query(sql).await?.into_iter().next();
        row.ok_or_else(|| Error::new(Code::DestinationError, "the server's answer has no row"))
    }

    /// Has the server end all queries whose id begins with `prefix`: those of an attempt that was fenced
    /// (design: a late insert brings back rows that were deleted). On a cluster on every server: an
    /// insert goes to whichever a load balancer chose.
    ///
    /// It does not wait for their end: an insert whose client sends nothing more is ended only when the
    /// server's own time-out for its data is over, but what it gathered is not written any more.
    ///
    /// # Errors
    /// By the server's code: see `error`.
    pub async fn kill_queries(&self, prefix: &str, cluster: &str) -> Result<()> {
        self.execute(&ddl::kill_queries(cluster, prefix)).await
    }

    /// Name of a destination table with its database, as a statement takes it.
    pub fn qualified(&self, table: &str) -> String {
        ddl::qualified(&self.server.database, table)
    }
}

/// Waits for an answer, but not for ever: a connection may be dead without a word.
async fn within<T>(answer: impl Future<Output = ::clickhouse::error::Result<T>>) -> Result<T> {
    let limit = Duration::from_secs(STATEMENT_SECONDS_MAX) + ANSWER_GRACE;
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|error| error::classify(&error)),
        Err(_) => Err(error::silent(limit)),
    }
}

/// Checks the URL's scheme: the client would find a wrong one only at the first statement.
fn url(config: &ClickhouseConfig) -> Result<&str> {
    let scheme = config.url.split_once("://").map_or("", |(scheme, _)| scheme);
    if matches!(scheme, "http" | "https") && !config.url.contains('@') {
        return Ok(&config.url);
    }
    let message =
        "the URL of a ClickHouse peer is http://host:port or https://host:port, without user and password";
    Err(Error::new(Code::InvalidArgument, message).with("field", "url"))
}

/// Host and port of a URL; the host of an IPv6 address without its brackets.
fn host_and_port(url: &str) -> (&str, u16) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let standard = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    (host, port.and_then(|port| port.parse().ok()).unwrap_or(standard))
}

fn compression(config: &ClickhouseConfig) -> Compression {
    match config.compression {
        InsertCompression::None => Compression::None,
        InsertCompression::Lz4 => Compression::Lz4,
        InsertCompression::Auto if is_loopback(&config.url) => Compression::None,
        InsertCompression::Auto => Compression::Lz4,
    }
}

fn is_loopback(url: &str) -> bool {
    let (host, _) = host_and_port(url);
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

/// Year and month of a version.
fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_for_servers_elsewhere() {
        for here in [
            "http://127.0.0.1:8123",
            "http://localhost",
            "https://[::1]:8443/path",
            "http://[::1]",
            "http://localhost:1/",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["http://10.0.0.1:8123", "https://localhost.example:8443", "http://ch"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn hosts_are_read_off_urls() {
        assert_eq!(host_and_port("http://db:8123/path"), ("db", 8123));
        assert_eq!(host_and_port("https://[fe80::1]:8443"), ("fe80::1", 8443));
        assert_eq!(host_and_port("https://db"), ("db", 443));
        assert_eq!(host_and_port("http://[::1]?x"), ("::1", 80));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("24.8.1.2684"), Some((24, 8)));
        assert!(parse_version("24.10.1.1").unwrap() > VERSION_MIN);
        assert!(parse_version("24.3.9.1").unwrap() < VERSION_MIN);
        assert_eq!(parse_version("latest"), None);
    }
}
