//! The replication connection: its messages as events. I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use millrace_terms::{Code, Error, Lsn, Result, quote_ident};
use postgres_protocol::message::backend;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::config::StreamConfig;
use super::status::{self, Listening};
use crate::pgoutput::{self, Begin, Commit, Message};
use crate::postgres::wire::{Frame, Reading, refusal};
use crate::postgres::{System, replication, within};

/// After so long without a word the walsender is looked for. It asks for a sign of life after half of
/// its own time-out of 15 s, and gives up at its end.
const SILENCE: Duration = Duration::from_secs(20);
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
    /// A message, the LSN of its record, and when it was sent, in microseconds since 2000-01-01.
    Change {
        record: Lsn,
        message: Message,
        sent: i64,
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
    input: Reading,
    /// The source, as this very connection said before the stream began.
    pub system: System,
    heard: Instant,
    listening: Listening,
    confirmed: watch::Sender<Lsn>,
    asked: Arc<Notify>,
    _status: AbortOnDropHandle<()>,
}

impl Reader {
    /// Starts the stream.
    ///
    /// # Errors
    /// `SLOT_IN_USE`, `SLOT_LOST`, `SOURCE_WAL_LEVEL`, `SOURCE_IN_RECOVERY` if it is not the server that was
    /// looked at before, and those of a connection.
    pub(super) async fn open(config: &StreamConfig, binary: bool) -> Result<Self> {
        within(START_TIMEOUT, DOING, async {
            let mut wire = replication::connect(&config.source, &config.application).await?;
            // On this connection: the name may lead to another server by now.
            let system = replication::who(&mut wire).await?;
            if !system.is_same_log(&config.system) {
                let what = "the source has become another one while the stream was set up";
                return Err(Error::new(Code::SourceInRecovery, what));
            }
            replication::settle_encoding(&mut wire, DOING).await?;
            let (input, writing) = wire.copy_both(&command(config, binary), DOING).await?;
            let listening = Arc::new(AtomicBool::new(false));
            let asked = Arc::new(Notify::new());
            let (confirmed, told) = watch::channel(config.start);
            let status = status::keep_telling(writing, told, asked.clone(), listening.clone());
            let status = AbortOnDropHandle::new(tokio::spawn(status));
            Ok(Self { input, system, heard: Instant::now(), listening, confirmed, asked, _status: status })
        })
        .await
    }

    /// The next event. May be dropped and called again.
    ///
    /// # Errors
    /// `SOURCE_UNREACHABLE` when the connection ends, `PROTOCOL_VIOLATION`, and what the server says.
    pub(super) async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.next_now() {
                return event;
            }
            let deadline = self.heard + SILENCE;
            let filled = {
                let _ear = Ear::open(&self.listening);
                tokio::time::timeout_at(deadline, self.input.fill(DOING)).await
            };
            self.heard = Instant::now();
            match filled {
                Ok(filled) => filled?,
                Err(_) => return Ok(Event::Silence),
            }
        }
    }

    /// The next event, if it is there.
    #[inline]
    pub(super) fn next_now(&mut self) -> Option<Result<Event>> {
        loop {
            let event = match self.input.next_now() {
                Ok(frame) => self.event(frame?),
                Err(error) => Err(error),
            };
            if let Some(event) = event.transpose() {
                return Some(event);
            }
        }
    }

    fn event(&mut self, frame: Frame) -> Result<Option<Event>> {
        match frame.tag {
            backend::COPY_DATA_TAG => self.message(frame.body),
            backend::ERROR_RESPONSE_TAG => Err(undecodable(refusal(DOING, &frame.body))),
            backend::COPY_DONE_TAG | backend::COMMAND_COMPLETE_TAG => {
                Err(Error::new(Code::SourceUnreachable, "the server ended the stream"))
            }
            _ => Ok(None),
        }
    }

    /// What is in a message of the copy (PostgreSQL documentation, section 54.4): a piece of the log, or a
    /// sign of life.
    #[inline]
    fn message(&mut self, mut body: Bytes) -> Result<Option<Event>> {
        const LOG: u8 = b'w';
        const ALIVE: u8 = b'k';
        /// Kind, two positions of the log and a time.
        const LOG_HEAD: usize = 25;
        /// Kind, a position, a time, and whether an answer is wanted.
        const ALIVE_HEAD: usize = 18;
        match body.first() {
            Some(&LOG) if body.len() >= LOG_HEAD => {
                body.advance(1);
                let record = Lsn(body.get_u64());
                body.advance(8);
                let sent = body.get_i64();
                Ok(match pgoutput::decode(body)? {
                    Message::Begin(begin) => Some(Event::Begin(begin)),
                    Message::Commit(commit) => Some(Event::Commit(commit)),
                    Message::Logical(_) => None,
                    message => Some(Event::Change { record, message, sent }),
                })
            }
            Some(&ALIVE) if body.len() >= ALIVE_HEAD => {
                body.advance(1);
                let (wal_end, at) = (Lsn(body.get_u64()), body.get_i64());
                if body.get_u8() != 0 {
                    self.asked.notify_one();
                }
                Ok(Some(Event::Idle { wal_end, at }))
            }
            _ => Err(Error::new(
                Code::ProtocolViolation,
                "the replication stream holds a message of an unknown kind",
            )),
        }
    }

    /// Acknowledges everything up to `position` to the slot.
    pub(super) fn confirm(&self, position: Lsn) {
        self.confirmed.send_if_modified(|confirmed| {
            let is_later = position > *confirmed;
            *confirmed = position.max(*confirmed);
            is_later
        });
    }
}

/// Somebody listens, until this is dropped: with what waits, or instead of it.
struct Ear<'a>(&'a AtomicBool);

impl<'a> Ear<'a> {
    fn open(listening: &'a AtomicBool) -> Self {
        listening.store(true, Ordering::Relaxed);
        Self(listening)
    }
}

impl Drop for Ear<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn command(config: &StreamConfig, binary: bool) -> String {
    // A list of names, each quoted as a name is, as one text.
    let publications = quote_ident(&config.publication).replace('\'', "''");
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{publications}', messages 'true'{})",
        quote_ident(&config.slot),
        config.start,
        if binary { ", binary 'true'" } else { "" },
    )
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
