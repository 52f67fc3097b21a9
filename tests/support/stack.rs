//! The one `millrace dev` that all tests share. It is started by the first test that needs it, as a
//! user would start it, and found by its `endpoints.json`. A test may have a [`Stack`] of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::Deserialize;
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions};

/// First start on a bare machine: downloads (200 MB) and one Go build are part of it.
const START_LIMIT: Duration = Duration::from_secs(1_200);
/// The contract says 30 s.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// `endpoints.json`, the contract of `millrace dev`.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoints {
    pub grpc: String,
    pub http: String,
    pub metrics: Vec<String>,
    pub temporal: String,
    pub temporal_ui: String,
    pub catalog: String,
    pub source: String,
    pub clickhouse: String,
    pub pids: Pids,
}

/// The processes themselves, never wrappers.
#[derive(Debug, Clone, Deserialize)]
pub struct Pids {
    pub server: i32,
    pub workers: Vec<i32>,
    pub temporal: i32,
    pub clickhouse: i32,
    pub catalog: i32,
    pub source: i32,
}

/// A `millrace dev`, started as a user would. Dropping it stops it.
pub struct Stack {
    /// Addresses, and the pids of the start.
    pub endpoints: Endpoints,
    running: Running,
}

/// Its process and its state directory.
struct Running {
    child: Mutex<Option<Child>>,
    pid: i32,
    dir: PathBuf,
}

static STACK: OnceLock<Stack> = OnceLock::new();

/// The shared stack's addresses; starts it if it does not run.
pub fn endpoints() -> &'static Endpoints {
    &shared().endpoints
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_millrace"))
}

/// The state directory of the shared stack: its secret key and logs.
pub fn dir() -> &'static Path {
    shared().dir()
}

fn shared() -> &'static Stack {
    STACK.get_or_init(|| Stack::start("e2e", &["--workers", "2"]))
}

/// Stops the shared stack, and fails if it does not stop in the promised time.
pub fn stop() {
    let Some(stack) = STACK.get() else { return };
    if let Err(late) = stack.running.stop() {
        eprintln!("{late}");
        std::process::exit(1);
    }
    if std::env::var_os("MILLRACE_TEST_KEEP").is_none() {
        drop(std::fs::remove_dir_all(stack.dir()));
    }
}

impl Stack {
    /// Starts a stack with a new state directory of this name, and waits until it is ready. Blocks.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("millrace-{name}-{}", std::process::id()));
        let child = Command::new(binary())
            .args(["dev", "--state-dir"])
            .arg(&dir)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(if std::env::var_os("MILLRACE_TEST_VERBOSE").is_some() {
                Stdio::inherit()
            } else {
                log(&dir)
            })
            .spawn()
            .expect("millrace dev starts");
        let pid = child.id().try_into().expect("a pid");
        let running = Running { child: Mutex::new(Some(child)), pid, dir };
        Self { endpoints: running.wait_for_endpoints(), running }
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        &self.running.dir
    }

    /// The pid of `millrace dev` itself.
    pub fn pid(&self) -> i32 {
        self.running.pid
    }
}

fn log(dir: &Path) -> Stdio {
    std::fs::create_dir_all(dir).expect("a state directory");
    Stdio::from(std::fs::File::create(dir.join("dev.log")).expect("a log file"))
}

/// `endpoints.json` of a state directory, if the stack is ready.
pub fn read_endpoints(dir: &Path) -> Option<Endpoints> {
    let text = std::fs::read_to_string(dir.join("endpoints.json")).ok()?;
    Some(serde_json::from_str(&text).expect("endpoints.json has the documented form"))
}

impl Running {
    fn wait_for_endpoints(&self) -> Endpoints {
        let start = Instant::now();
        loop {
            if let Some(endpoints) = read_endpoints(&self.dir) {
                return endpoints;
            }
            let ended =
                self.child.lock().unwrap().as_mut().and_then(|child| child.try_wait().expect("a child"));
            let log = || std::fs::read_to_string(self.dir.join("dev.log")).unwrap_or_default();
            assert!(ended.is_none(), "millrace dev ended: {ended:?}\n{}", log());
            assert!(
                start.elapsed() < START_LIMIT,
                "millrace dev is not ready after {START_LIMIT:?}\n{}",
                log()
            );
            #[allow(clippy::disallowed_methods)] // A plain thread: no runtime exists yet.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it as a user would; fails if it does not stop in the promised time.
    fn stop(&self) -> Result<(), String> {
        let Some(mut child) = self.child.lock().unwrap().take() else { return Ok(()) };
        let pid = nix::unistd::Pid::from_raw(self.pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal to millrace dev");
        let start = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if start.elapsed() > STOP_LIMIT {
                child.kill().expect("a signal to millrace dev");
                return Err(format!("millrace dev did not stop within {STOP_LIMIT:?}"));
            }
            #[allow(clippy::disallowed_methods)] // A plain thread: the runtimes are gone.
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(late) = self.stop() {
            eprintln!("{late}");
        }
    }
}

/// A client of the stack's Temporal.
pub async fn temporal() -> Client {
    let address: url::Url = endpoints().temporal.parse().expect("a URL");
    let options = ConnectionOptions::new(address).identity("e2e").build();
    let connection = Connection::connect(options).await.expect("Temporal");
    Client::new(connection, ClientOptions::new("default").build()).expect("a client")
}
