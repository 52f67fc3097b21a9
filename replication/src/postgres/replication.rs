//! Replication connections, opened as all others are: the same pins, the same trust. I/O.

use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use pgwire_replication::{ReplicationClient, ReplicationConfig};
use secrecy::ExposeSecret;

use super::{CONNECT_TIMEOUT, PemFiles, SourceConfig, cut, from_replication, session_options, within};

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

/// A replication connection for commands. The files of its certificates are read while it connects.
pub(super) struct CommandSession {
    client: ReplicationClient,
    _tls: PemFiles,
}

impl CommandSession {
    pub(super) async fn open(config: &SourceConfig, application: &str) -> Result<Self> {
        let tls = PemFiles::write(&config.tls, &config.host)?;
        let client = ReplicationClient::connect_gated(settings(config, &tls, application))
            .await
            .map_err(|error| from_replication("opening a replication connection", &error))?;
        Ok(Self { client, _tls: tls })
    }

    /// Runs a command and returns the text values of its first row.
    pub(super) async fn run(&mut self, doing: &str, command: &str) -> Result<Vec<Option<String>>> {
        let rows =
            self.client.simple_query(command).await.map_err(|error| from_replication(doing, &error))?;
        let text = |value: Option<bytes::Bytes>| value.map(|v| String::from_utf8_lossy(&v).into_owned());
        Ok(rows.into_iter().next().unwrap_or_default().into_iter().map(text).collect())
    }
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

/// Asks a source who it is. That it answers also proves that the role may replicate.
///
/// # Errors
/// `SOURCE_PERMISSION` if the role may not replicate, and those of [`super::dial`].
pub async fn identify(config: &SourceConfig, application: &str) -> Result<System> {
    within(CONNECT_TIMEOUT, "asking the source who it is", async {
        let mut session = CommandSession::open(config, application).await?;
        let doing = "asking the source who it is";
        let row = session.run(doing, "IDENTIFY_SYSTEM").await?;
        let value = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let malformed = || Error::new(Code::ProtocolViolation, format!("{doing}: the answer is malformed"));
        Ok(System {
            id: value(0),
            timeline: value(1).parse().map_err(|_| malformed())?,
            position: value(2).parse().map_err(|_| malformed())?,
        })
    })
    .await
}
