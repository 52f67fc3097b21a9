//! Servers and workers of a test's own, to be killed: real processes with a catalog database and task
//! queues of their own, on the shared PostgreSQL, Temporal and ClickHouse.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace_terms::fault;

use super::bed::{Bed, connect};
use super::{http, stack, wait};

/// Longest wait for a process to answer: a debug build on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// One test's own installation.
pub struct Cell {
    /// The cell's catalog, as its processes are given it.
    pub catalog: String,
    /// Where the cell's server listens.
    pub grpc: String,
    /// Where it listens for HTTP.
    pub http: String,
    grpc_port: u16,
    http_port: u16,
    prefix: String,
    /// The secret keys that its processes are given from now on.
    pub keys: String,
    logs: PathBuf,
    processes: Vec<Process>,
}

/// A process of ours. It is killed when it is dropped.
pub struct Process {
    child: Child,
    metrics_port: u16,
}

impl Process {
    /// SIGKILL: the process gets no chance to tidy up.
    pub fn kill(&mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("its end");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// The most memory that the process has held so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kilobytes * 1024
    }

    /// SIGSTOP: the process holds its connections and says nothing.
    pub fn freeze(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    /// SIGCONT: it wakes up and goes on as if no time had passed.
    pub fn thaw(&self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("a signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A frozen process cannot be waited for before it is killed; an ended one is fine, too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Cell {
    /// Makes the catalog and starts a server; `bed` talks to it from now on. Workers are started by
    /// [`Cell::worker`].
    pub async fn new(bed: &mut Bed) -> Self {
        let stack = tokio::task::spawn_blocking(stack::endpoints).await.expect("the shared stack");
        let database = format!("cell_{}", bed.name.replace('-', "_"));
        let admin = connect(&stack.catalog, None).await;
        admin.batch_execute(&format!("create database {database}")).await.expect("a catalog database");
        let (base, _) = stack.catalog.rsplit_once('/').expect("a URL with a database");
        let mut cell = Self {
            catalog: format!("{base}/{database}"),
            grpc: String::new(),
            http: String::new(),
            grpc_port: free_port(),
            http_port: free_port(),
            prefix: bed.name.clone(),
            keys: "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
            logs: stack::dir().join("logs"),
            processes: Vec::new(),
        };
        cell.grpc = format!("http://127.0.0.1:{}", cell.grpc_port);
        cell.http = format!("http://127.0.0.1:{}", cell.http_port);
        let migrated = cell.command("migrate").output().expect("millrace migrate");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let first_worker = cell.worker().await;
        let server = cell.server().await;
        cell.processes.push(server);
        bed.use_server(&cell.grpc).await;
        drop(first_worker);
        cell
    }

    /// Starts the server; it is ready when this returns.
    pub async fn server(&self) -> Process {
        let process = self.spawn("server", &[]);
        let port = self.http_port;
        wait::until("the cell's server", START_LIMIT, || ready(port)).await;
        process
    }

    /// Starts a worker; it is ready when this returns.
    pub async fn worker(&self) -> Process {
        self.worker_with(&[]).await
    }

    /// Starts a worker with further environment variables.
    pub async fn worker_with(&self, environment: &[(&str, String)]) -> Process {
        let process = self.spawn("worker", environment);
        let port = process.metrics_port;
        wait::until("the cell's worker", START_LIMIT, || ready(port)).await;
        process
    }

    /// Starts a worker that dies at a fault point. It may have done so before it is ready.
    pub fn worker_that_dies_at(&self, point: fault::Point) -> Process {
        self.spawn("worker", &[(fault::VARIABLE, format!("{point:?}"))])
    }

    /// Kills the cell's server.
    pub fn kill_server(&mut self) {
        self.processes.pop().expect("a server").kill();
    }

    /// Starts the cell's server again, at the same address.
    pub async fn restart_server(&mut self) {
        let server = self.server().await;
        self.processes.push(server);
    }

    /// A command on the cell's catalog.
    pub fn command(&self, role: &str) -> Command {
        let stack = stack::endpoints();
        let mut command = Command::new(stack::binary());
        command
            .arg(role)
            .env("MILLRACE_CATALOG_URL", &self.catalog)
            .env("MILLRACE_TEMPORAL_ADDRESS", &stack.temporal)
            .env("MILLRACE_QUEUE_PREFIX", &self.prefix)
            .env("MILLRACE_SECRET_KEYS", &self.keys)
            .env("MILLRACE_INSECURE_NO_AUTH", "true")
            .env("MILLRACE_GRPC_LISTEN", format!("127.0.0.1:{}", self.grpc_port))
            .env("MILLRACE_HTTP_LISTEN", format!("127.0.0.1:{}", self.http_port))
            .stdin(Stdio::null());
        command
    }

    fn spawn(&self, role: &str, variables: &[(&str, String)]) -> Process {
        let metrics_port = free_port();
        std::fs::create_dir_all(&self.logs).expect("a directory for logs");
        let log = self.logs.join(format!("cell-{}-{role}-{metrics_port}.log", self.prefix));
        let log = std::fs::File::create(log).expect("a log file");
        let child = self
            .command(role)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("MILLRACE_METRICS_LISTEN", format!("127.0.0.1:{metrics_port}"))
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("a process");
        Process { child, metrics_port }
    }
}

/// `GET /readyz` answers 200.
async fn ready(port: u16) -> Result<(), String> {
    let answer = http::get(&format!("127.0.0.1:{port}"), "/readyz").await?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
