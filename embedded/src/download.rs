//! Fetching a pinned file over HTTPS.
//!
//! I/O rim.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use millrace_terms::Error;
use sha2::{Digest, Sha256, Sha512};
use ureq::tls::{RootCerts, TlsConfig};

use crate::progress::Progress;
use crate::unavailable;

/// Tries before giving up: registries shed load for seconds, not minutes.
const TRIES: u32 = 4;
/// Wait before the second try; doubled for each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Longest wait for a connection or for the answer's head.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Longest time of one whole transfer: 180 MB at 3 Mbit/s.
const TRANSFER_LIMIT: Duration = Duration::from_secs(480);
/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The checksum that a file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256, hexadecimal: what Maven Central publishes.
    Sha256(&'static str),
    /// SHA-512, base64: what npm calls integrity, without its `sha512-`.
    Sha512(&'static str),
}

/// A file of a public registry, pinned.
#[derive(Debug, Clone, Copy)]
pub struct Pinned {
    /// Where it is.
    pub url: &'static str,
    /// What it must be.
    pub checksum: Checksum,
}

/// Fetches the file to `target`, which is complete and right when this returns.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if it cannot be fetched, or is not the pinned file.
pub fn fetch(what: &'static str, file: &Pinned, target: &Path) -> Result<(), Error> {
    let progress = Progress::start(format!("fetching {what}"), Some(0));
    let mut wait = BACK_OFF;
    let mut tries = 1;
    loop {
        let reason = match transfer(file, target, &progress) {
            Ok(true) => {
                progress.finish();
                return Ok(());
            }
            Ok(false) => "its checksum is not the pinned one".to_owned(),
            Err(error) => error.to_string(),
        };
        if tries == TRIES {
            return Err(unavailable(format!("{what} cannot be fetched from {}: {reason}", file.url))
                .with_remedy("Check the network, and the proxy's variables HTTPS_PROXY and SSL_CERT_FILE."));
        }
        tracing::debug!(what, tries, reason, "fetching failed, trying again");
        pause(wait);
        progress.reset();
        wait *= 2;
        tries += 1;
    }
}

/// One try. Whether what came is the pinned file.
fn transfer(file: &Pinned, target: &Path, progress: &Progress) -> Result<bool, TransferError> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(CONNECT_LIMIT))
            .timeout_global(Some(TRANSFER_LIMIT))
            .build(),
    );
    let mut response = agent.get(file.url).call()?;
    if let Some(bytes) = response.body().content_length() {
        progress.set_total(bytes);
    }
    let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut output = File::create(target)?;
    let mut sum = Sum::of(file.checksum);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = body.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        sum.update(&chunk[..n]);
        output.write_all(&chunk[..n])?;
        progress.advance(n as u64);
    }
    output.sync_all()?;
    Ok(sum.is(file.checksum))
}

/// Waits on this thread. Fetching runs on threads that may block.
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

enum Sum {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Sum {
    fn of(checksum: Checksum) -> Self {
        match checksum {
            Checksum::Sha256(_) => Self::Sha256(Sha256::new()),
            Checksum::Sha512(_) => Self::Sha512(Box::new(Sha512::new())),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
        }
    }

    fn is(self, expected: Checksum) -> bool {
        use base64::Engine;
        match (self, expected) {
            (Self::Sha256(sum), Checksum::Sha256(text)) => hex::encode(sum.finalize()) == text,
            (Self::Sha512(sum), Checksum::Sha512(text)) => {
                base64::engine::general_purpose::STANDARD.encode(sum.finalize()) == text
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;

    /// Serves `body` to every request, the first `failures` of them with 503.
    fn serve(body: &'static str, failures: usize) -> &'static str {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let status = if i < failures { "503 Busy" } else { "200 OK" };
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        url.leak()
    }

    const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_busy_registry_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = Pinned { url: serve("abc", 1), checksum: Checksum::Sha256(SHA256_OF_ABC) };
        fetch("abc", &file, &dir.path().join("abc")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("abc")).unwrap(), "abc");
    }

    #[test]
    fn another_file_than_the_pinned_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = Pinned { url: serve("abd", 0), checksum: Checksum::Sha256(SHA256_OF_ABC) };
        let progress = Progress::start("abd", None);
        assert!(!transfer(&file, &dir.path().join("abd"), &progress).unwrap());
    }
}
