//! The state directory: what was chosen at its first start and stays: addresses, passwords, the key.
//!
//! I/O rim.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use millrace_terms::{Code, Error};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Ports are chosen here: below the range that systems take the ports of outgoing connections from,
/// so that none of those sits on one of ours at the next start.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// Tries to find a free port before giving up.
const PORT_TRIES: u32 = 1_000;
/// Characters of a password.
const PASSWORD_LENGTH: usize = 24;
/// Id of the key that seals the peers' secrets.
const KEY_ID: &str = "dev";
/// Bytes of that key: AES-256.
const KEY_BYTES: usize = 32;
/// Mode of files that hold secrets.
const SECRET: u32 = 0o600;

/// What was chosen at the first start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// Ports on the loopback interface.
    pub ports: Ports,
    /// Password of the superuser of both clusters.
    pub postgres_password: String,
    /// Password of ClickHouse's user.
    pub clickhouse_password: String,
}

/// Ports on the loopback interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub server_metrics: u16,
    /// One for each worker that was ever started here.
    pub worker_metrics: Vec<u16>,
    pub temporal: u16,
    pub temporal_ui: u16,
    pub catalog: u16,
    pub source: u16,
    pub clickhouse: u16,
}

/// A state directory, held by this process alone.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    choices: Choices,
    /// Held until the process ends.
    _lock: File,
}

impl State {
    /// Opens or makes the directory, with an address for each of `workers` workers.
    ///
    /// # Errors
    /// If it cannot be written, or another process holds it.
    pub fn open(dir: &Path, workers: usize) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir)?;
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let lock = File::create(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process runs the stack of {}", dir.display());
                let error = Error::new(Code::EmbeddedUnavailable, message)
                    .with_remedy("Stop that one, or give another --state-dir.");
                return Err(error.into());
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let path = dir.join("state.json");
        let mut choices = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?
            }
            // Only at the first start: other passwords would not open what was made with these.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => choose()?,
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        while choices.ports.worker_metrics.len() < workers {
            let port = free_port(&mut choices.ports.all())?;
            choices.ports.worker_metrics.push(port);
        }
        write(&path, &serde_json::to_vec_pretty(&choices)?, SECRET)?;
        let keys = dir.join("secret-keys");
        if !keys.exists() {
            write(&keys, key().as_bytes(), SECRET)?;
        }
        Ok(Self { dir, choices, _lock: lock })
    }

    /// What was chosen.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// The directory or file of that name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }
}

/// Writes a file that others see whole or not at all.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)
        .with_context(|| format!("writing {}", draft.display()))?;
    // The mode of a draft that was left behind is not changed by opening it.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path).with_context(|| format!("writing {}", path.display()))
}

fn choose() -> anyhow::Result<Choices> {
    let mut drawn = Vec::new();
    let mut draw = || free_port(&mut drawn);
    let ports = Ports {
        grpc: draw()?,
        http: draw()?,
        server_metrics: draw()?,
        worker_metrics: Vec::new(),
        temporal: draw()?,
        temporal_ui: draw()?,
        catalog: draw()?,
        source: draw()?,
        clickhouse: draw()?,
    };
    Ok(Choices { ports, postgres_password: password(), clickhouse_password: password() })
}

impl Ports {
    /// Every port of the stack.
    fn all(&self) -> Vec<u16> {
        let Self {
            grpc,
            http,
            server_metrics,
            worker_metrics,
            temporal,
            temporal_ui,
            catalog,
            source,
            clickhouse,
        } = self;
        let mut all =
            vec![*grpc, *http, *server_metrics, *temporal, *temporal_ui, *catalog, *source, *clickhouse];
        all.extend(worker_metrics);
        all
    }
}

/// A port that nobody listens on and that is not `drawn` yet, to which it is added. At random, so that
/// no two stacks that are started at the same moment are likely to draw the same.
fn free_port(drawn: &mut Vec<u16>) -> anyhow::Result<u16> {
    for _ in 0..PORT_TRIES {
        let port = rand::rng().random_range(PORTS);
        if !drawn.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            drawn.push(port);
            return Ok(port);
        }
    }
    anyhow::bail!("no free port between {} and {}", PORTS.start, PORTS.end)
}

/// A password that needs no quoting in a URL.
fn password() -> String {
    let mut rng = rand::rng();
    (0..PASSWORD_LENGTH).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect()
}

fn key() -> String {
    use base64::Engine;
    let bytes: [u8; KEY_BYTES] = rand::rng().random();
    format!("{KEY_ID}:{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_stays_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::open(dir.path(), 1).unwrap();
        let again = State::open(dir.path(), 1).unwrap_err();
        assert!(again.to_string().contains("another process"), "{again}");
        let (ports, key) = (first.choices().ports.clone(), fs::read(first.path("secret-keys")).unwrap());
        drop(first);
        let second = State::open(dir.path(), 3).unwrap();
        assert_eq!(second.choices().ports.grpc, ports.grpc);
        assert_eq!(second.choices().ports.worker_metrics[0], ports.worker_metrics[0]);
        assert_eq!(second.choices().ports.worker_metrics.len(), 3);
        assert_eq!(fs::read(second.path("secret-keys")).unwrap(), key);
        for name in ["state.json", "secret-keys"] {
            assert_eq!(fs::metadata(second.path(name)).unwrap().permissions().mode() & 0o777, SECRET);
        }
    }
}
