//! Temporal: the development server of its command line, which is the real server on SQLite.
//!
//! I/O rim.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use millrace_terms::Error;
use nix::sys::signal::Signal;

use crate::cache::Cache;
use crate::process::{self, Process, Spec};
use crate::progress::Progress;
use crate::unavailable;

/// The Go module that pins the tool and everything it is built from.
const GO_MOD: &str = include_str!("../temporal/go.mod");
const GO_SUM: &str = include_str!("../temporal/go.sum");
const PACKAGE: &str = "github.com/temporalio/cli/cmd/temporal";

/// The namespace that the server makes at its start.
pub const NAMESPACE: &str = "default";

/// Longest wait for a start: the first one makes the database.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What stops the server in order.
pub const STOP_SIGNAL: Signal = Signal::SIGTERM;
/// Longest wait for that.
pub const STOP_LIMIT: Duration = Duration::from_secs(8);
/// Longest wait for one probe.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// Characters of the compiler's output that an error quotes.
const QUOTE: usize = 2000;

/// Dynamic configuration. Without it each activity costs 100 ms and each timer up to one second,
/// limits made for clusters that thousands of tenants share.
const DYNAMIC_CONFIG: [&str; 6] = [
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxTimeShift=\"1ms\"",
    // With few pollers, several partitions send tasks through the database.
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    "system.enableActivityEagerExecution=true",
];

/// Finds a `temporal` on PATH, or builds the pinned one once, with Go. Blocks: for minutes, if it
/// builds.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if there is neither, or the build fails.
pub fn install(cache: &Cache) -> Result<PathBuf, Error> {
    if let Some(found) = on_path("temporal") {
        return Ok(found);
    }
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let dir = cache.entry(&format!("temporal-{}-{platform}", version(GO_MOD)), build)?;
    Ok(dir.join("temporal"))
}

/// The version of the tool that the module pins.
fn version(go_mod: &str) -> &str {
    let pin = go_mod.lines().find_map(|line| line.trim().strip_prefix("github.com/temporalio/cli "));
    pin.and_then(|rest| rest.split_whitespace().next()).unwrap_or("unknown")
}

fn on_path(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let is_executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(is_executable)
}

fn build(draft: &Path) -> Result<(), Error> {
    let go = on_path("go").ok_or_else(|| {
        unavailable("the embedded Temporal needs `temporal` or Go on PATH, and there is neither").with_remedy(
            "Install the Temporal CLI (https://docs.temporal.io/cli) or Go 1.25 or later (https://go.dev/dl).",
        )
    })?;
    let failed = |e: std::io::Error| unavailable(format!("Temporal cannot be built: {e}"));
    let module = tempfile::tempdir().map_err(failed)?;
    fs::write(module.path().join("go.mod"), GO_MOD).map_err(failed)?;
    fs::write(module.path().join("go.sum"), GO_SUM).map_err(failed)?;
    let progress = Progress::start("building Temporal, once (about 3 minutes)", None);
    let output = draft.join("temporal");
    let mut command = Command::new(go);
    command
        .current_dir(module.path())
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&output)
        .arg(PACKAGE)
        // Settings of the user's own projects must not reach this build.
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null());
    if std::env::var_os("HOME").is_none() {
        command.env("GOPATH", module.path().join("path")).env("GOCACHE", module.path().join("cache"));
    }
    // A `dev` that is stopped meanwhile leaves no build behind: this thread ends with it. What the
    // compiler is just at ends by itself within seconds.
    process::tie(&mut command, Signal::SIGTERM);
    let result = command.output().map_err(failed)?;
    if !result.status.success() {
        let text = String::from_utf8_lossy(&result.stderr);
        let quote: String = text.chars().skip(text.chars().count().saturating_sub(QUOTE)).collect();
        return Err(unavailable(format!("Temporal cannot be built: {}", quote.trim())).with_remedy(
            "Check the network (proxy.golang.org), or install the Temporal CLI: https://docs.temporal.io/cli.",
        ));
    }
    progress.finish();
    Ok(())
}

/// A server to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The SQLite file, made at the first start.
    pub database: PathBuf,
    /// Port of the gRPC interface, on the loopback interface.
    pub port: u16,
    /// Port of the user interface.
    pub ui_port: u16,
    /// Where its log is appended to.
    pub log: PathBuf,
    /// Search attributes of type Keyword.
    pub search_attributes: Vec<String>,
}

/// A running server. Dropping it kills it; its database stays.
#[derive(Debug)]
pub struct Server {
    process: Process,
}

impl Server {
    /// Starts the server and waits until its namespace answers.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE with the end of its log.
    pub async fn start(program: &Path, settings: &Settings) -> Result<Self, Error> {
        let mut process = Process::spawn(server(program, settings))?;
        let address = format!("127.0.0.1:{}", settings.port);
        process.ready(START_LIMIT, || answers(program, &address)).await?;
        Ok(Self { process })
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it in order.
    pub async fn stop(&mut self) -> bool {
        self.process.stop(STOP_SIGNAL, STOP_LIMIT).await
    }

    /// The process, for one who keeps several alike.
    pub fn into_process(self) -> Process {
        self.process
    }
}

fn server(program: &Path, settings: &Settings) -> Spec {
    let mut args: Vec<OsString> =
        ["server", "start-dev", "--ip", "127.0.0.1", "--log-level", "warn"].map(OsString::from).into();
    let mut flag = |name: &str, value: OsString| args.extend([name.into(), value]);
    flag("--db-filename", settings.database.clone().into());
    flag("--port", settings.port.to_string().into());
    flag("--ui-port", settings.ui_port.to_string().into());
    for value in DYNAMIC_CONFIG {
        flag("--dynamic-config-value", value.into());
    }
    for name in &settings.search_attributes {
        flag("--search-attribute", format!("{name}=Keyword").into());
    }
    Spec::new("temporal", program, &settings.log).args(args)
}

/// Whether the server answers a request that reads its database.
async fn answers(program: &Path, address: &str) -> bool {
    if tokio::net::TcpStream::connect(address).await.is_err() {
        return false;
    }
    let mut command = tokio::process::Command::new(program);
    command.args(["operator", "namespace", "describe", "--namespace", NAMESPACE, "--address", address]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let status = tokio::time::timeout(PROBE_LIMIT, command.status()).await;
    matches!(status, Ok(Ok(status)) if status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_read_from_the_module() {
        assert_eq!(version(GO_MOD), "v1.5.1");
        assert!(GO_MOD.contains(&format!("tool {PACKAGE}")));
    }
}
