//! The connection to the catalog: a bounded pool with time limits, and TLS as its URL asks for.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use jiff::Timestamp;
use millrace_terms::check::Skew;
use millrace_terms::{Code, Error, Result};
use millrace_tls::{Given, Verify};
use tokio::sync::OnceCell;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::errors;
use crate::names::Installation;
use crate::sealing::SecretKeys;
use crate::sql::{self, Columns};

/// Most connections of one process: a statement takes a millisecond, so ten serve thousands a
/// second, and ten processes fit into PostgreSQL's default of 100 connections.
pub const POOL_SIZE_MAX: usize = 10;

/// PostgreSQL's port where a URL names none.
const DEFAULT_PORT: u16 = 5432;

/// How long a request waits for a free connection.
pub(crate) const POOL_WAIT: Duration = Duration::from_secs(10);

/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sent bytes may go unacknowledged: a catalog that vanished without a word is noticed
/// well before a stream's lease is over.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before the other end is asked whether it lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Limits of every session, in milliseconds. A statement that takes 30 s, a lock not given in 10 s
/// or a transaction left open for 30 s is a defect, and must not hold up the others.
const SESSION_LIMITS: &str =
    "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=30000";

/// The form of a catalog's URL.
const URL_FORM: &str = "Give MILLRACE_CATALOG_URL as \
    postgres://USER:PASSWORD@HOST:PORT/DATABASE[?sslmode=disable|prefer|require|verify-ca|verify-full&sslrootcert=FILE], \
    special characters percent-encoded.";

/// The catalog. Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct Catalog {
    pool: Pool,
    pub(crate) keys: SecretKeys,
    installation: Arc<OnceCell<Installation>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Connects, once, to see that the URL is right; later connections are made as they are needed,
    /// again after the catalog was away. The schema is not looked at: see
    /// [`Catalog::check_version`].
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a malformed URL, CATALOG_UNREACHABLE. Neither holds the password.
    pub async fn connect(url: &str, keys: SecretKeys) -> Result<Self> {
        let (config, tls) = settings(url, SESSION_LIMITS)?;
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, tls, manager_config))
            .max_size(POOL_SIZE_MAX)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(POOL_WAIT),
                create: Some(CONNECT_TIMEOUT * 2), // the dial, TLS and the log-in
                recycle: Some(CONNECT_TIMEOUT),
            })
            .build()
            .map_err(|error| errors::internal(format!("the catalog's pool: {error}")))?;
        let catalog = Self { pool, keys, installation: Arc::default() };
        drop(catalog.client().await?);
        Ok(catalog)
    }

    /// The installation that this catalog is of.
    pub async fn installation(&self) -> Result<Installation> {
        let read = async || {
            let row = sql::one(&self.client().await?, "select id from installation", &[]).await?;
            Ok(Installation(Columns(&row).text("id")?))
        };
        self.installation.get_or_try_init(read).await.cloned()
    }

    /// Proves that the catalog answers: for readiness.
    pub async fn ping(&self) -> Result<()> {
        sql::one(&self.client().await?, "select 1", &[]).await.map(drop)
    }

    /// How far the catalog's clock is from ours.
    pub async fn clock(&self) -> Result<Skew> {
        let client = self.client().await?;
        let asked = Timestamp::now().as_microsecond();
        let sql = "select (extract(epoch from clock_timestamp()) * 1e6)::int8 as it";
        let theirs = Columns(&sql::one(&client, sql, &[]).await?).get("it")?;
        Ok(Skew::new(theirs, asked, Timestamp::now().as_microsecond()))
    }

    pub(crate) async fn client(&self) -> Result<Object> {
        self.pool.get().await.map_err(errors::pool)
    }
}

/// Where the catalog of a URL is, as host, port and database; several for a URL that names several hosts.
///
/// # Errors
/// INVALID_ARGUMENT for a malformed URL.
pub fn addresses(url: &str) -> Result<Vec<(String, u16, String)>> {
    let (config, _) = settings(url, "")?;
    let name = config.get_dbname().or(config.get_user()).unwrap_or_default();
    let ports = config.get_ports();
    let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    let hosts = config.get_hosts().iter().enumerate().map(|(n, host)| {
        let host = match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(path) => path.to_string_lossy().into_owned(),
        };
        (host, port(n), name.to_owned())
    });
    Ok(hosts.collect())
}

/// Connects outside the pool and without its time limits: migrations take as long as they take.
pub(crate) async fn dial(url: &str) -> Result<tokio_postgres::Client> {
    let (config, tls) = settings(url, "-c statement_timeout=0 -c lock_timeout=0")?;
    let (client, connection) = config.connect(tls).await.map_err(errors::database)?;
    // Ends with the client; its error reaches the caller through the statement that failed.
    tokio::spawn(connection);
    Ok(client)
}

/// Reads the URL. The driver knows neither `verify-ca`, `verify-full` nor `sslrootcert`.
fn settings(url: &str, limits: &str) -> Result<(Config, MakeRustlsConnect)> {
    // The driver's own words may quote the URL, which holds the password.
    let malformed =
        || Error::new(Code::InvalidArgument, "the catalog's URL is malformed").with_remedy(URL_FORM);
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(malformed());
    }
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut verify = Verify::Nothing;
    let mut root_file = None;
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", "verify-ca")) => verify = Verify::Authority,
            Some(("sslmode", "verify-full")) => verify = Verify::AuthorityAndHost,
            Some(("sslrootcert", "system")) => root_file = None,
            Some(("sslrootcert", path)) => root_file = Some(percent_decode(path).ok_or_else(malformed)?),
            _ => kept.push(pair),
        }
    }
    let mut config: Config = format!("{address}?{}", kept.join("&")).parse().map_err(|_| malformed())?;
    if config.get_hosts().is_empty() || config.get_user().is_none() {
        return Err(malformed());
    }
    if verify != Verify::Nothing {
        config.ssl_mode(SslMode::Require);
    } else if root_file.is_some() && config.get_ssl_mode() == SslMode::Require {
        // As libpq: an authority that is named is there to be checked.
        verify = Verify::Authority;
    }
    let options = match config.get_options() {
        Some(own) => format!("{limits} {own}"), // what the URL asks for wins
        None => limits.to_owned(),
    };
    config.options(options).connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(TCP_USER_TIMEOUT);
    config.keepalives_idle(KEEPALIVE_IDLE);
    if config.get_application_name().is_none() {
        config.application_name("millrace");
    }
    Ok((config, connector(verify, root_file.as_deref())?))
}

/// TLS by the `sslmode` and `sslrootcert` of the URL; the system's authorities where no file is named.
fn connector(verify: Verify, root_file: Option<&str>) -> Result<MakeRustlsConnect> {
    let given = Given { authorities: root_file.unwrap_or_default(), certificate: "", key: "" };
    let config = millrace_tls::client(verify, given).map_err(|unusable| {
        Error::new(Code::CatalogUnreachable, format!("TLS towards the catalog: {}", unusable.why))
            .with_remedy("Correct sslmode and sslrootcert in MILLRACE_CATALOG_URL.")
    })?;
    Ok(MakeRustlsConnect::new(config))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_how_the_server_is_verified() {
        let mode = |query: &str| {
            settings(&format!("postgres://u:p@h/d{query}"), "").map(|(config, _)| config.get_ssl_mode())
        };
        assert_eq!(mode("").unwrap(), SslMode::Prefer);
        assert_eq!(mode("?sslmode=disable").unwrap(), SslMode::Disable);
        assert_eq!(mode("?sslmode=require").unwrap(), SslMode::Require);
        let missing = mode("?sslmode=verify-full&sslrootcert=/no/such%20file").unwrap_err();
        assert!(missing.message().contains("/no/such file"), "{missing}");
    }

    #[test]
    fn urls_say_where_the_catalog_is() {
        let one = addresses("postgres://u:p@db/millrace").unwrap();
        assert_eq!(one, [("db".to_owned(), 5432, "millrace".to_owned())]);
        let two = addresses("postgres://u:p@a:1,b:2/d?sslmode=verify-full").unwrap();
        assert_eq!(two, [("a".to_owned(), 1, "d".to_owned()), ("b".to_owned(), 2, "d".to_owned())]);
    }

    #[test]
    fn malformed_urls_are_refused_without_showing_them() {
        for url in [
            "",
            "host=h",
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://h/d?hunter2=1",
        ] {
            let error = settings(url, "").err().unwrap();
            assert_eq!(error.code(), Code::InvalidArgument, "{url}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn the_session_limits_stand_before_what_the_url_asks_for() {
        let (config, _) = settings("postgres://u@h/d?options=-c%20statement_timeout%3D5", "-c a=b").unwrap();
        assert_eq!(config.get_options(), Some("-c a=b -c statement_timeout=5"));
    }
}
