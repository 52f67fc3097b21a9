//! Bodies between the asynchronous server and the blocking engine: bounded channels, read and
//! written as streams of bytes.
//!
//! I/O rim.

use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Pieces of a body on their way. Small: a client faster than the engine is throttled, not buffered.
pub(super) const PIECES: usize = 4;

/// A request's body. Its channel ends with an empty piece; without one, the client went away.
pub(super) struct BodyReader {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
    is_over: bool,
}

impl BodyReader {
    pub fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, current: Bytes::new(), is_over: false }
    }
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() && !self.is_over {
            self.current =
                self.pieces.blocking_recv().ok_or(io::Error::from(io::ErrorKind::ConnectionAborted))?;
            self.is_over = self.current.is_empty();
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// A piece of an answer's body. An error breaks the connection, so that the client sees that it did
/// not get all.
pub(super) type Piece = Result<Bytes, io::Error>;

/// An answer's body.
pub(super) struct BodyWriter {
    pieces: mpsc::Sender<Piece>,
}

impl BodyWriter {
    pub fn new(pieces: mpsc::Sender<Piece>) -> Self {
        Self { pieces }
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.pieces.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
