//! A connection of our own, for what `tokio-postgres` does not speak: replication. I/O.
//!
//! The same pins, trust and time-outs as every other session. What the server sends is handed out
//! without copying it (`frames`), and reads are paced while there is much to read (`socket`).

mod frames;
mod login;
mod socket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use millrace_terms::{Code, Error, Result};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

pub(crate) use self::frames::Frame;
use self::frames::Frames;
use self::socket::Paced;
use super::SourceConfig;
use super::error::{from_io, from_state};

/// What a connection is made of: TCP or a local socket, with or without TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

type Stream = Box<dyn Duplex>;

/// An authenticated connection.
pub(crate) struct Wire {
    input: Input<Stream>,
    paced: Paced,
    /// What the server calls its database's encoding.
    server_encoding: String,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("server_encoding", &self.server_encoding).finish_non_exhaustive()
    }
}

/// What is read, message by message.
pub(crate) struct Input<S> {
    stream: S,
    frames: Frames,
}

/// The reading half of a connection whose copy runs in both directions.
pub(crate) type Reading = Input<ReadHalf<Stream>>;
/// The writing half.
pub(crate) type Writing = WriteHalf<Stream>;

/// A row of text values.
pub(crate) type TextRow = Vec<Option<String>>;

impl<S: AsyncRead + Unpin> Input<S> {
    /// The next message, if it is there.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION`.
    #[inline]
    pub(crate) fn next_now(&mut self) -> Result<Option<Frame>> {
        self.frames.next()
    }

    /// Waits for more bytes. May be dropped and called again.
    ///
    /// # Errors
    /// `SOURCE_UNREACHABLE` at the end of the connection.
    pub(crate) async fn fill(&mut self, doing: &str) -> Result<()> {
        match self.stream.read_buf(self.frames.room()).await {
            Ok(0) => Err(ended(doing)),
            Ok(_) => Ok(()),
            Err(error) => Err(from_io(doing, &error)),
        }
    }

    /// The next message.
    async fn next(&mut self, doing: &str) -> Result<Frame> {
        loop {
            if let Some(frame) = self.next_now()? {
                return Ok(frame);
            }
            self.fill(doing).await?;
        }
    }
}

fn ended(doing: &str) -> Error {
    Error::new(Code::SourceUnreachable, format!("{doing}: the server ended the connection"))
}

impl Wire {
    /// Opens a connection. `parameters` are those of the startup message beside user and database.
    ///
    /// # Errors
    /// `SOURCE_UNREACHABLE`, `SOURCE_AUTH`, `SOURCE_TLS`, and what the server says.
    pub(crate) async fn connect(config: &SourceConfig, parameters: &[(&str, &str)]) -> Result<Self> {
        let doing = format!("connecting to {}:{}", config.host, config.port);
        let paced = Arc::new(AtomicBool::new(false));
        let stream = login::reach(config, paced.clone(), &doing).await?;
        let input = Input { stream, frames: Frames::default() };
        let mut this = Self { input, paced, server_encoding: String::new() };
        login::authenticate(&mut this, config, parameters, &doing).await?;
        Ok(this)
    }

    /// What the server calls its database's encoding.
    pub(crate) fn server_encoding(&self) -> &str {
        &self.server_encoding
    }

    async fn send(&mut self, bytes: &BytesMut, doing: &str) -> Result<()> {
        self.input.stream.write_all(bytes).await.map_err(|error| from_io(doing, &error))?;
        self.input.stream.flush().await.map_err(|error| from_io(doing, &error))
    }

    async fn query(&mut self, sql: &str, doing: &str) -> Result<()> {
        let mut bytes = BytesMut::new();
        frontend::query(sql, &mut bytes).map_err(|error| from_io(doing, &error))?;
        self.send(&bytes, doing).await
    }

    /// Runs a statement or a replication command, and returns its rows. After an error the connection can
    /// be used again if the server reported it.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn simple_query(&mut self, sql: &str, doing: &str) -> Result<Vec<TextRow>> {
        self.query(sql, doing).await?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let frame = self.input.next(doing).await?;
            match frame.tag {
                backend::DATA_ROW_TAG => rows.push(text_row(frame.body).ok_or_else(|| malformed(doing))?),
                backend::ERROR_RESPONSE_TAG => failed = Some(refusal(doing, &frame.body)),
                backend::READY_FOR_QUERY_TAG => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Starts a copy in both directions: replication.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn copy_both(mut self, sql: &str, doing: &str) -> Result<(Reading, Writing)> {
        /// CopyBothResponse.
        const COPY_BOTH_TAG: u8 = b'W';
        self.query(sql, doing).await?;
        loop {
            let frame = self.input.next(doing).await?;
            match frame.tag {
                COPY_BOTH_TAG => break,
                backend::ERROR_RESPONSE_TAG => return Err(refusal(doing, &frame.body)),
                _ => {}
            }
        }
        self.paced.store(true, Ordering::Relaxed);
        let (reading, writing) = tokio::io::split(self.input.stream);
        Ok((Input { stream: reading, frames: self.input.frames }, writing))
    }
}

/// The error of an ErrorResponse: fields of a kind and a text that ends in a zero byte.
pub(crate) fn refusal(doing: &str, body: &[u8]) -> Error {
    let field = |wanted: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        fields
            .find_map(|field| field.split_first().filter(|(kind, _)| **kind == wanted).map(|(_, text)| text))
    };
    let text = |kind| String::from_utf8_lossy(field(kind).unwrap_or_default()).into_owned();
    from_state(doing, &text(b'C'), &text(b'M'))
}

/// A DataRow: the number of values, and each with its length in front, -1 for NULL.
fn text_row(mut body: Bytes) -> Option<TextRow> {
    let count = body.try_get_u16().ok()?;
    let mut row = Vec::new();
    for _ in 0..count {
        row.push(match usize::try_from(body.try_get_i32().ok()?) {
            Ok(length) if length <= body.len() => {
                Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
            }
            Ok(_) => return None,
            Err(_) => None,
        });
    }
    Some(row)
}

fn malformed(doing: &str) -> Error {
    Error::new(Code::ProtocolViolation, format!("{doing}: the answer is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read() {
        let error = refusal("streaming", b"SERROR\0C55006\0Mslot \"s\" is active\0Dsecret\0\0");
        assert_eq!(error.code(), Code::SlotInUse);
        assert!(error.message().contains("slot \"s\" is active") && !error.message().contains("secret"));
        assert_eq!(refusal("streaming", b"").code(), Code::SourceError);
    }

    #[test]
    fn rows_are_read() {
        let row = text_row(Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"));
        assert_eq!(row, Some(vec![Some("a".to_owned()), None]));
        assert_eq!(text_row(Bytes::from_static(b"\0\x01\0\0\0\x09a")), None);
    }
}
