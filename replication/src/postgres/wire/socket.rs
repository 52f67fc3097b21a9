//! A TCP connection whose reads can be paced. I/O.
//!
//! A walsender hands every change to the kernel on its own. A reader that waits for them is woken by each,
//! at the walsender's cost: a wake-up is dearer than a small change. So who reads a log and has just read
//! looks again after a pause, and the kernel is told not to wake him meanwhile, which takes the
//! connection out of the runtime's set. When a look finds nothing he waits as usual, and is woken at once.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Pause between two looks, and how soon after one read another makes a reader busy. Far below what
/// anybody notices; in it a walsender sends about a hundred kilobytes.
const PAUSE: Duration = Duration::from_millis(1);
/// Most bytes of one read of a paced connection.
const READ_BYTES: usize = 64 << 10;

/// Whether reads are paced; shared with who knows what is read.
pub(super) type Paced = Arc<AtomicBool>;

/// A TCP connection.
pub(super) struct Socket {
    state: State,
    paced: Paced,
    /// When something was read last.
    read_at: Instant,
    pause: Pin<Box<Sleep>>,
}

enum State {
    /// The runtime wakes who waits.
    Watched(TcpStream),
    /// Nobody is woken.
    Unwatched {
        stream: std::net::TcpStream,
        /// Until the pause is over.
        pausing: bool,
    },
    /// Between the two; stays so if the change failed.
    Lost,
}

impl Socket {
    /// Of an open connection.
    pub(super) fn new(stream: TcpStream, paced: Paced) -> Self {
        let now = Instant::now();
        let pause = Box::pin(tokio::time::sleep_until(now));
        Self { state: State::Watched(stream), paced, read_at: now - PAUSE, pause }
    }

    /// The connection as the runtime watches it.
    fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if let State::Unwatched { .. } = self.state
            && let State::Unwatched { stream, .. } = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Watched(TcpStream::from_std(stream)?);
        }
        match &mut self.state {
            State::Watched(stream) => Ok(stream),
            State::Unwatched { .. } | State::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Takes the connection out of what the runtime watches, for a pause at first.
    fn unwatch(&mut self, now: Instant) -> io::Result<()> {
        if let State::Watched(_) = self.state
            && let State::Watched(stream) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Unwatched { stream: stream.into_std()?, pausing: true };
            self.pause.as_mut().reset(now + PAUSE);
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Unwatched { stream, pausing } = &mut this.state {
            if *pausing {
                ready!(this.pause.as_mut().poll(cx));
                *pausing = false;
            }
            let room = buf.remaining().min(READ_BYTES);
            match stream.read(buf.initialize_unfilled_to(room)) {
                Ok(read) => {
                    buf.advance(read);
                    if read < room {
                        *pausing = true;
                        this.pause.as_mut().reset(Instant::now() + PAUSE);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(this.watched()?).poll_read(cx, buf))?;
        if this.paced.load(Ordering::Relaxed) && buf.filled().len() > before {
            let now = Instant::now();
            if now - this.read_at < PAUSE {
                this.unwatch(now)?;
            }
            this.read_at = now;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let State::Unwatched { stream, .. } = &mut self.state {
            match stream.write(bytes) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self.watched()?).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // The kernel holds nothing back.
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.watched()?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn everything_arrives_whether_paced_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(stream, Arc::new(AtomicBool::new(true)));
        let expected: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = expected.clone();
        let sending = tokio::spawn(async move {
            // Small pieces, a large one, and a silence in which the reader stops looking.
            let (small, large) = sent.split_at(10_000);
            for piece in small.chunks(100) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(10 * PAUSE).await;
            server.write_all(large).await.unwrap();
            let mut answer = [0; 2];
            server.read_exact(&mut answer).await.unwrap();
            answer
        });
        let mut received = vec![0; expected.len()];
        socket.read_exact(&mut received).await.unwrap();
        assert!(received == expected);
        socket.write_all(b"ok").await.unwrap();
        assert_eq!(&sending.await.unwrap(), b"ok");
        assert_eq!(socket.read(&mut received).await.unwrap(), 0);
    }
}
