//! The replication connection: its messages as events. I/O.

use std::time::Duration;

use futures::FutureExt;
use millrace_terms::{Code, Error, Lsn, Result, quote_ident};
use pgwire_replication::{Lsn as WireLsn, ReplicationClient, ReplicationEvent};
use tokio::time::Instant;

use super::config::StreamConfig;
use crate::pgoutput::{self, Begin, Commit, Message};
use crate::postgres::{PemFiles, System, from_replication, replication, within};

/// After so long without a word the walsender is looked for. It asks for a sign of life after half of
/// its own time-out of 15 s, and gives up at its end.
const SILENCE: Duration = Duration::from_secs(20);
/// Messages that wait for us in the library. It counts messages, not bytes, and a row may be large:
/// few, so that what is not yet counted in the worker's memory stays small.
const BUFFER_EVENTS: usize = 64;
/// How long the server may take to begin: it reads its slot's state first.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const DOING: &str = "streaming";
/// Key in an error's metadata: the server could not decode its log.
pub const UNDECODABLE: &str = "undecodable";

/// What comes from the server.
#[derive(Debug)]
pub(super) enum Event {
    Begin(Begin),
    Commit(Commit),
    /// A message, and the LSN of its record.
    Change {
        record: Lsn,
        message: Message,
    },
    /// There is nothing for us up to here.
    Idle {
        wal_end: Lsn,
        at: i64,
    },
    /// Nothing came for long.
    Silence,
}

/// Reads.
pub(super) struct Reader {
    client: ReplicationClient,
    /// The source, as this very connection said before the stream began.
    pub system: System,
    heard: Instant,
    _tls: PemFiles,
}

impl Reader {
    /// Starts the stream.
    ///
    /// # Errors
    /// `SLOT_IN_USE`, `SLOT_LOST`, `SOURCE_WAL_LEVEL`, `SOURCE_IN_RECOVERY` if it is not the server that was
    /// looked at before, and those of a connection.
    pub(super) async fn open(config: &StreamConfig, binary: bool) -> Result<Self> {
        let tls = PemFiles::write(&config.source.tls, &config.source.host)?;
        let mut settings = replication::settings(&config.source, &tls, &config.application)
            .with_start_lsn(WireLsn::from_u64(config.start.0))
            .with_buffer_size(BUFFER_EVENTS)
            .with_binary(binary);
        // The library puts both into its command as they are.
        settings.slot = quote_ident(&config.slot);
        settings.publication = quote_ident(&config.publication).into();
        within(START_TIMEOUT, DOING, async {
            let failed = |error| from_replication(DOING, &error);
            let mut client = replication::connect(&config.source, &settings, DOING).await?;
            // On this connection: the name may lead to another server by now.
            let system = replication::who(&mut client).await?;
            if !system.is_same_log(&config.system) {
                let what = "the source has become another one while the stream was set up";
                return Err(Error::new(Code::SourceInRecovery, what));
            }
            replication::start(&mut client).await.map_err(failed)?;
            Ok(Self { client, system, heard: Instant::now(), _tls: tls })
        })
        .await
    }

    /// The next event. May be dropped and called again.
    ///
    /// # Errors
    /// `SOURCE_UNREACHABLE` when the connection ends, `PROTOCOL_VIOLATION`, and what the server says.
    pub(super) async fn next(&mut self) -> Result<Event> {
        loop {
            let deadline = self.heard + SILENCE;
            let Ok(event) = tokio::time::timeout_at(deadline, self.client.recv()).await else {
                self.heard = Instant::now();
                return Ok(Event::Silence);
            };
            if let Some(event) = self.translate(event)? {
                return Ok(event);
            }
        }
    }

    /// The next event, if it is there.
    pub(super) fn next_now(&mut self) -> Option<Result<Event>> {
        loop {
            let event = self.client.recv().now_or_never()?;
            if let Some(event) = self.translate(event).transpose() {
                return Some(event);
            }
        }
    }

    fn translate(
        &mut self,
        event: Result<Option<ReplicationEvent>, pgwire_replication::PgWireError>,
    ) -> Result<Option<Event>> {
        self.heard = Instant::now();
        let lsn = |lsn: WireLsn| Lsn(lsn.as_u64());
        Ok(match event.map_err(|error| undecodable(from_replication(DOING, &error)))? {
            Some(ReplicationEvent::XLogData { wal_start, data, .. }) => {
                Some(Event::Change { record: lsn(wal_start), message: pgoutput::decode(data)? })
            }
            Some(ReplicationEvent::Begin { final_lsn, xid, commit_time_micros }) => {
                Some(Event::Begin(Begin { commit: lsn(final_lsn), time: commit_time_micros, xid }))
            }
            Some(ReplicationEvent::Commit { lsn: commit, end_lsn, commit_time_micros }) => {
                let (commit, end) = (lsn(commit), lsn(end_lsn));
                Some(Event::Commit(Commit { commit, end, time: commit_time_micros }))
            }
            Some(ReplicationEvent::KeepAlive { wal_end, server_time_micros, .. }) => {
                Some(Event::Idle { wal_end: lsn(wal_end), at: server_time_micros })
            }
            Some(ReplicationEvent::Message { .. }) => None,
            Some(ReplicationEvent::StoppedAt { .. }) | None => {
                return Err(Error::new(Code::SourceUnreachable, "the server ended the stream"));
            }
        })
    }

    /// Acknowledges everything up to `position` to the slot.
    pub(super) fn confirm(&self, position: Lsn) {
        self.client.update_applied_lsn(WireLsn::from_u64(position.0));
    }
}

/// Classes of SQLSTATEs of what fails again when it is done again (PostgreSQL documentation, appendix A): data
/// exceptions, features and objects that are not there, files that cannot be read, the server's own defects.
const LASTING: [&str; 5] = ["0A", "22", "42", "58", "XX"];

/// Marks an error of the walsender that may be one of the log itself: if it comes again at the same
/// position, decoding is stuck there.
fn undecodable(error: Error) -> Error {
    let class = error.metadata().get("sqlstate").and_then(|state| state.get(..2));
    match class {
        Some(class) if error.code() == Code::SourceError && LASTING.contains(&class) => {
            error.with(UNDECODABLE, "true")
        }
        _ => error,
    }
}
