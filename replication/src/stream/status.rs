//! What the slot is told: how far everything is confirmed, and that we live. I/O.
//!
//! A task of its own: the server must hear of us also while nothing is read, because the destination is
//! away or the source is asked something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use millrace_terms::Lsn;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::config::POSTGRES_EPOCH_MICROS;
use crate::postgres::wire::Writing;

/// Most often the server is told what is confirmed.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is told that we live while nobody reads: its questions are not seen then. A third of its
/// time-out. Who reads waits for the questions, which tell that the *server* lives.
const UNASKED: Duration = Duration::from_secs(5);

/// Whether somebody waits for what the server sends.
pub(super) type Listening = Arc<AtomicBool>;

/// Tells until the connection ends.
pub(super) async fn keep_telling(
    mut writing: Writing,
    mut confirmed: watch::Receiver<Lsn>,
    asked: Arc<Notify>,
    listening: Listening,
) {
    loop {
        let message = message(*confirmed.borrow_and_update(), now());
        // The reader finds out by itself that the connection is broken.
        if writing.write_all(&message).await.is_err() || writing.flush().await.is_err() {
            return;
        }
        let told = Instant::now();
        let later = async {
            match confirmed.changed().await {
                Ok(()) => tokio::time::sleep_until(told + INTERVAL).await,
                Err(_) => std::future::pending().await,
            }
        };
        let unheard = async {
            loop {
                tokio::time::sleep(UNASKED).await;
                if !listening.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        tokio::select! {
            () = later => {}
            () = asked.notified() => {}
            () = unheard => {}
        }
    }
}

/// A standby status update in a CopyData (PostgreSQL documentation, section 54.4): what is written, flushed
/// and applied is what is confirmed.
fn message(confirmed: Lsn, at: i64) -> [u8; 39] {
    let mut bytes = [0; 39];
    bytes[0] = b'd';
    bytes[1..5].copy_from_slice(&38u32.to_be_bytes());
    bytes[5] = b'r';
    for field in [6, 14, 22] {
        bytes[field..field + 8].copy_from_slice(&confirmed.0.to_be_bytes());
    }
    bytes[30..38].copy_from_slice(&at.to_be_bytes());
    bytes
}

/// By our clock, as PostgreSQL counts.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_sub(POSTGRES_EPOCH_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_as_the_protocol_has_it() {
        let bytes = message(Lsn(0x0102), 0x0304);
        assert_eq!(&bytes[..6], b"d\0\0\0\x26r");
        assert_eq!(&bytes[6..14], &bytes[14..22]);
        assert_eq!(&bytes[22..], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4, 0]);
    }
}
