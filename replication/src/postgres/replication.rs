//! Replication connections, opened as all others are: the same pins, the same trust. I/O.

use millrace_terms::{Code, Error, Lsn, Result};

use super::history::left_at;
use super::wire::{TextRow, Wire};
use super::{
    CONNECT_TIMEOUT, NO_ENCODING, RAW_BYTES, Session, SourceConfig, cut, dial, from_sql, session_options,
    within,
};

/// When the server gives up on a silent replication connection; it asks for a sign of life at half
/// of it. Short, so that a slot is free again soon after a worker's machine went away.
const WAL_SENDER_TIMEOUT: &str = "15s";

/// Opens a replication connection of which nothing is asked yet.
///
/// # Errors
/// Those of [`Wire::connect`].
pub(crate) async fn connect(config: &SourceConfig, application: &str) -> Result<Wire> {
    let options = session_options(&[("wal_sender_timeout", WAL_SENDER_TIMEOUT)]);
    let parameters =
        [("replication", "database"), ("application_name", cut(application)), ("options", options.as_str())];
    Wire::connect(config, &parameters).await
}

/// Has a database that knows no encoding hand out its bytes as they are, before its log is streamed.
///
/// # Errors
/// What the server says.
pub(crate) async fn settle_encoding(wire: &mut Wire, doing: &str) -> Result<()> {
    if wire.server_encoding() == NO_ENCODING {
        wire.simple_query(RAW_BYTES, doing).await?;
    }
    Ok(())
}

/// Runs a command and returns the text values of its first row.
pub(super) async fn first_row(wire: &mut Wire, doing: &str, command: &str) -> Result<TextRow> {
    Ok(wire.simple_query(command, doing).await?.into_iter().next().unwrap_or_default())
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
    within(CONNECT_TIMEOUT, WHO, async { who(&mut connect(config, application).await?).await }).await
}

const WHO: &str = "asking the source who it is";

/// Asks the server at the other end of a connection who it is. First whether it is a standby: one that
/// is promoted in between then tells its new timeline.
///
/// # Errors
/// `SOURCE_IN_RECOVERY` from a standby.
pub(crate) async fn who(wire: &mut Wire) -> Result<System> {
    let recovers = first_row(wire, WHO, "SELECT pg_catalog.pg_is_in_recovery()").await?;
    if recovers.first().and_then(Option::as_deref) != Some("f") {
        return Err(in_recovery());
    }
    let row = first_row(wire, WHO, "IDENTIFY_SYSTEM").await?;
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
        let mut wire = connect(config, application).await?;
        let row = first_row(&mut wire, doing, &format!("TIMELINE_HISTORY {}", system.timeline)).await?;
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
