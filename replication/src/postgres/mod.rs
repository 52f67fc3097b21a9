//! The source: everything that is asked of a PostgreSQL server outside its replication protocol.
//! I/O; what can be decided without a server is in pure functions with tests.
//!
//! - [`dial`]: the one place that opens a session; [`dial_log`] opens it on the server that writes a
//!   stream's log, and on no standby of it.
//! - [`identify`], [`left_timeline`]: whose log it is, and where it forked from another.
//! - [`describe`]: which tables there are, and the shape of those that are replicated.
//! - [`check`]: what must be so on a source before a mirror can be made, each with its remedy.
//! - [`plan`]: from the shape of a table to the plan by which it is replicated.
//! - [`publication`], [`slot`]: the objects a mirror makes.
//! - [`orphans`]: what mirrors that are gone left behind.
//! - `sessions`: ends what is left of a mirror that is dropped.
//! - [`epoch`]: the position that separates a table's copy from its stream.
//! - [`partition`]: the ranges of pages that are copied one by one.

pub mod check;
pub mod describe;
pub mod epoch;
mod error;
mod history;
pub mod orphans;
pub mod partition;
pub mod plan;
pub(crate) mod present;
pub mod publication;
pub(crate) mod replication;
mod sessions;
pub(crate) mod shape;
pub mod slot;
mod tls;
pub mod tree;
pub(crate) mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use postgres_types::PgLsn;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use crate::addresses::AddressRules;
pub use error::from_sql;
pub use replication::{System, dial_log, identify, left_timeline};
pub use sessions::end_sessions;
pub use tls::{Tls, TlsMode};

/// How long a server may take to accept a session, TLS and authentication included. Name servers and
/// TLS over a slow line take seconds; a firewall that drops packets would take minutes.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the kernel asks whether the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged, and keep-alives unanswered, before the connection is
/// taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// The most bytes of an `application_name` that the server keeps (NAMEDATALEN - 1).
const APPLICATION_BYTES_MAX: usize = 63;

/// How to reach a source.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Password; empty where the server asks for none.
    pub password: SecretString,
    /// Database.
    pub database: String,
    /// Transport security.
    pub tls: Tls,
    /// Where a peer may be.
    pub addresses: Arc<AddressRules>,
}

impl SourceConfig {
    /// Where it is now, if a peer may be there.
    async fn addresses(&self) -> Result<Vec<SocketAddr>> {
        self.addresses.resolve_database(&self.host, self.port, &self.database).await
    }
}

/// What every session is pinned to, whatever the server, the database or the role have set. The
/// first eight decide the text form of values and the meaning of names, and are those of the
/// replication session too; the rest keeps our statements from being cut short or changed.
const PINNED: &[(&str, &str)] = &[
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("client_encoding", "UTF8"),
    ("search_path", ""),
    // A time-out that an administrator set for people would end every long COPY.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // A copy in REPEATABLE READ that waited for a rewrite would read nothing (see `copy`).
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    // An error, rather than a copy that silently holds only the rows that a policy shows.
    ("row_security", "off"),
    // The server notices that we are gone while it waits for a lock or computes.
    ("client_connection_check_interval", "5s"),
    // Our statements are small: compiling them costs more than running them.
    ("jit", "off"),
];

/// What a database calls its encoding that knows none: it stores whatever bytes it is sent.
pub(crate) const NO_ENCODING: &str = "SQL_ASCII";
/// Makes a session of such a database hand out the bytes as they are. Asked for UTF-8, the server would
/// refuse to send those that are none. It cannot be among the [`PINNED`]: the libraries ask for UTF-8 later.
pub(crate) const RAW_BYTES: &str = "set client_encoding = 'SQL_ASCII'";

/// The `options` of a session: [`PINNED`] and what is added, as the server's command line takes them.
pub fn session_options(further: &[(&str, &str)]) -> String {
    let mut options = String::new();
    for (name, value) in PINNED.iter().chain(further) {
        if !options.is_empty() {
            options.push(' ');
        }
        // PostgreSQL documentation, section 54.2.1: blanks and backslashes are escaped by a backslash.
        let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
        options.push_str(&format!("-c {name}={value}"));
    }
    options
}

/// An open session. It ends, and with it whatever it had begun, when this is dropped.
#[derive(Debug)]
pub struct Session {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl Deref for Session {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Session {
    /// The server's version as a number, such as 180006 for 18.6.
    ///
    /// # Errors
    /// Those of [`from_sql`].
    pub async fn version(&self) -> Result<u32> {
        let row = self
            .query_one("select pg_catalog.current_setting('server_version_num')::int4", &[])
            .await
            .map_err(|error| from_sql("asking for the version", &error))?;
        Ok(row.get::<_, i32>(0).unsigned_abs())
    }

    /// Where the server's log ends, and by its clock a time, in microseconds since 1970, by which it ended
    /// there or before.
    ///
    /// # Errors
    /// Those of [`from_sql`].
    pub async fn log_end(&self) -> Result<(Lsn, i64)> {
        // The clock first: what is committed between the two is of later then, and in the log all the same.
        let asked = "select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8,
            pg_catalog.pg_current_wal_lsn()";
        let row =
            self.query_one(asked, &[]).await.map_err(|error| from_sql("asking for the log's end", &error))?;
        Ok((Lsn(row.get::<_, PgLsn>(1).into()), row.get(0)))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without this a COPY under way would be read to its end into nothing.
        self.connection.abort();
    }
}

/// Opens a session on the source, pinned to [`session_options`], within [`CONNECT_TIMEOUT`].
///
/// # Errors
/// `SOURCE_UNREACHABLE`, `SOURCE_AUTH`, `SOURCE_TLS`, `SOURCE_SLOTS_EXHAUSTED` (no connection left),
/// `ADDRESS_DENIED`.
pub async fn dial(config: &SourceConfig, application: &str) -> Result<Session> {
    let doing = format!("connecting to {}:{}", config.host, config.port);
    within(CONNECT_TIMEOUT, &doing, async {
        let connector = tls::connector(&config.tls, &config.host)?;
        let addresses = config.addresses().await?;
        let (client, connection) = client_config(config, &addresses, application)
            .connect(connector)
            .await
            .map_err(|e| from_sql(&doing, &e))?;
        let is_raw = connection.parameter("server_encoding") == Some(NO_ENCODING);
        // An error of the connection is seen by whoever waits for an answer of the session.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let session = Session { client, connection };
        if is_raw {
            session.batch_execute(RAW_BYTES).await.map_err(|error| from_sql(&doing, &error))?;
        }
        Ok(session)
    })
    .await
}

/// Ends a future that takes too long with `SOURCE_UNREACHABLE`.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: &str,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            Code::SourceUnreachable,
            format!("{doing}: no answer within {} s", limit.as_secs()),
        )),
    }
}

fn client_config(
    config: &SourceConfig,
    addresses: &[SocketAddr],
    application: &str,
) -> tokio_postgres::Config {
    let mut client = tokio_postgres::Config::new();
    if config.host.starts_with('/') {
        client.host(&config.host).port(config.port);
    } else {
        // The name for the certificate, the address that was looked at for the connection.
        for address in addresses {
            client.host(&config.host).hostaddr(address.ip()).port(config.port);
        }
    }
    client
        .user(&config.user)
        .dbname(&config.database)
        .application_name(cut(application))
        .options(session_options(&[]))
        .ssl_mode(match config.tls.mode {
            TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
            TlsMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                tokio_postgres::config::SslMode::Require
            }
        })
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_IDLE / 3)
        .keepalives_retries(3)
        .tcp_user_timeout(DEAD_AFTER);
    if !config.password.expose_secret().is_empty() {
        client.password(config.password.expose_secret());
    }
    client
}

/// The part of an `application_name` that the server keeps.
fn cut(application: &str) -> &str {
    &application[..application.floor_char_boundary(APPLICATION_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_escaped_as_the_server_reads_them() {
        let options = session_options(&[("wal_sender_timeout", "15s")]);
        assert!(options.starts_with("-c DateStyle=ISO -c IntervalStyle=postgres "), "{options}");
        assert!(options.contains(" -c search_path= -c "), "{options}");
        assert!(options.contains(" -c default_transaction_isolation=read\\ committed "), "{options}");
        assert!(options.ends_with(" -c wal_sender_timeout=15s"), "{options}");
    }

    #[test]
    fn long_application_names_are_cut_at_a_character() {
        assert_eq!(cut("millrace/a1b2c3/shop"), "millrace/a1b2c3/shop");
        assert_eq!(cut(&"é".repeat(40)).len(), 62);
    }
}
