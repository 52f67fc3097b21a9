//! Replication connections, opened as all others are: the same pins, the same trust. I/O.

use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig};
use secrecy::ExposeSecret;

use super::history::left_at;
use super::{
    CONNECT_TIMEOUT, NO_ENCODING, PemFiles, RAW_BYTES, Session, SourceConfig, cut, dial, from_replication,
    from_sql, session_options, within,
};

/// When the server gives up on a silent replication connection; it asks for a sign of life at half
/// of it. Short, so that a slot is free again soon after a worker's machine went away.
const WAL_SENDER_TIMEOUT: &str = "15s";
/// Most often we tell the server what is confirmed.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often we tell it unasked that we live. Longer than its time-out, so that it asks: its question
/// tells us that *it* lives, and how far its log goes.
const WAKEUP_INTERVAL: Duration = Duration::from_secs(60);

/// The settings of a replication connection of which nothing is asked yet.
pub(crate) fn settings(config: &SourceConfig, tls: &PemFiles, application: &str) -> ReplicationConfig {
    ReplicationConfig::new(
        config.host.as_str(),
        config.user.as_str(),
        config.password.expose_secret(),
        config.database.as_str(),
        "",
        "",
    )
    .with_port(config.port)
    .with_tls(tls.config.clone())
    .with_application_name(cut(application))
    .with_options(session_options(&[("wal_sender_timeout", WAL_SENDER_TIMEOUT)]))
    .with_status_interval(STATUS_INTERVAL)
    .with_wakeup_interval(WAKEUP_INTERVAL)
}

/// Opens a replication connection of which nothing is asked yet, to the first of the source's addresses that
/// answers. `settings` are those of [`settings`], and more.
///
/// # Errors
/// `ADDRESS_DENIED`, and those of [`from_replication`].
pub(crate) async fn connect(
    config: &SourceConfig,
    settings: &ReplicationConfig,
    doing: &str,
) -> Result<ReplicationClient> {
    let mut last = None;
    for address in config.addresses().await? {
        let mut settings = settings.clone();
        // The certificate is compared with the name, which the TLS settings hold. A socket's path stays.
        if !config.host.starts_with('/') {
            settings.host = address.ip().to_string();
        }
        match ReplicationClient::connect_gated(settings).await {
            Ok(client) => return Ok(client),
            Err(error @ PgWireError::Io(_)) => last = Some(error),
            Err(error) => return Err(from_replication(doing, &error)),
        }
    }
    let none = || Error::new(Code::SourceUnreachable, format!("{doing}: {} has no address", config.host));
    Err(last.map_or_else(none, |error| from_replication(doing, &error)))
}

/// Starts the stream of a connection that waits for it, after it was told how the database's bytes are sent.
pub(crate) async fn start(client: &mut ReplicationClient) -> std::result::Result<(), PgWireError> {
    let rows = client.simple_query("show server_encoding").await?;
    let encoding = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
    if encoding == Some(NO_ENCODING.as_bytes()) {
        client.simple_query(RAW_BYTES).await?;
    }
    client.start().await?;
    client.wait_started().await
}

/// A replication connection for commands. The files of its certificates are read while it connects.
pub(super) struct CommandSession {
    client: ReplicationClient,
    _tls: PemFiles,
}

impl CommandSession {
    pub(super) async fn open(config: &SourceConfig, application: &str) -> Result<Self> {
        let tls = PemFiles::write(&config.tls, &config.host)?;
        let settings = settings(config, &tls, application);
        let client = connect(config, &settings, "opening a replication connection").await?;
        Ok(Self { client, _tls: tls })
    }

    /// Runs a command and returns the text values of its first row.
    pub(super) async fn run(&mut self, doing: &str, command: &str) -> Result<Vec<Option<String>>> {
        first_row(&mut self.client, doing, command).await
    }
}

async fn first_row(
    client: &mut ReplicationClient,
    doing: &str,
    command: &str,
) -> Result<Vec<Option<String>>> {
    let rows = client.simple_query(command).await.map_err(|error| from_replication(doing, &error))?;
    let text = |value: Option<bytes::Bytes>| value.map(|v| String::from_utf8_lossy(&v).into_owned());
    Ok(rows.into_iter().next().unwrap_or_default().into_iter().map(text).collect())
}

/// Who a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The cluster's identifier: another one means another log.
    pub id: String,
    /// The timeline it writes.
    pub timeline: u32,
    /// Where its log ends.
    pub position: Lsn,
}

impl System {
    /// Whether both write one and the same log.
    pub fn is_same_log(&self, other: &System) -> bool {
        self.id == other.id && self.timeline == other.timeline
    }
}

/// Asks a source who it is. That it answers also proves that the role may replicate.
///
/// # Errors
/// `SOURCE_IN_RECOVERY` from a standby, `SOURCE_PERMISSION` if the role may not replicate, and those of
/// [`super::dial`].
pub async fn identify(config: &SourceConfig, application: &str) -> Result<System> {
    within(CONNECT_TIMEOUT, WHO, async {
        let mut session = CommandSession::open(config, application).await?;
        who(&mut session.client).await
    })
    .await
}

const WHO: &str = "asking the source who it is";

/// Asks the server at the other end of a connection who it is. First whether it is a standby: one that
/// is promoted in between then tells its new timeline.
///
/// # Errors
/// `SOURCE_IN_RECOVERY` from a standby.
pub(crate) async fn who(client: &mut ReplicationClient) -> Result<System> {
    let recovers = first_row(client, WHO, "SELECT pg_catalog.pg_is_in_recovery()").await?;
    if recovers.first().and_then(Option::as_deref) != Some("f") {
        return Err(in_recovery());
    }
    let row = first_row(client, WHO, "IDENTIFY_SYSTEM").await?;
    let value = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let malformed = || Error::new(Code::ProtocolViolation, format!("{WHO}: the answer is malformed"));
    Ok(System {
        id: value(0),
        timeline: value(1).parse().map_err(|_| malformed())?,
        position: value(2).parse().map_err(|_| malformed())?,
    })
}

fn in_recovery() -> Error {
    Error::new(Code::SourceInRecovery, "the source is a standby, or is being promoted")
}

/// Where the log of `system`, which the source writes, left `timeline` for a later one; none if it does
/// not come from that timeline.
///
/// # Errors
/// Those of [`identify`].
pub async fn left_timeline(
    config: &SourceConfig,
    application: &str,
    system: &System,
    timeline: u32,
) -> Result<Option<Lsn>> {
    // A log that comes from none has no history.
    if system.timeline <= 1 {
        return Ok(None);
    }
    let doing = "reading the source's timeline history";
    within(CONNECT_TIMEOUT, doing, async {
        let mut session = CommandSession::open(config, application).await?;
        let row = session.run(doing, &format!("TIMELINE_HISTORY {}", system.timeline)).await?;
        let content = row.get(1).cloned().flatten().unwrap_or_default();
        Ok(left_at(&content, timeline))
    })
    .await
}

/// `pg_walfile_name` begins with the timeline, in eight hexadecimal digits.
const LOG: &str = "
select (select system_identifier from pg_catalog.pg_control_system()),
       case when not pg_catalog.pg_is_in_recovery()
            then left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) end";

/// Opens a session on the server that writes the log of `system`. What is read from another one, such as
/// a standby that lags or a primary that was replaced, is not what that log's changes belong to.
///
/// # Errors
/// `SOURCE_IN_RECOVERY` from another server, and those of [`super::dial`].
pub async fn dial_log(config: &SourceConfig, application: &str, system: &System) -> Result<Session> {
    let session = dial(config, application).await?;
    let row = session.query_one(LOG, &[]).await.map_err(|error| from_sql(WHO, &error))?;
    let (id, timeline): (i64, Option<&str>) = (row.get(0), row.get(1));
    let timeline = timeline.ok_or_else(in_recovery)?;
    // SQL has no unsigned integers.
    if id.cast_unsigned().to_string() == system.id && u32::from_str_radix(timeline, 16) == Ok(system.timeline)
    {
        return Ok(session);
    }
    let text = format!(
        "the source is system {} on timeline {timeline}, not system {} on timeline {}",
        id.cast_unsigned(),
        system.id,
        system.timeline
    );
    Err(Error::new(Code::SourceInRecovery, text))
}
