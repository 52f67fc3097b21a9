//! The one `millrace dev` that all tests share. It is started by the first test that needs it, as a
//! user would start it, and found by its `endpoints.json`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::Deserialize;

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

struct Stack {
    endpoints: Endpoints,
    dir: PathBuf,
}

static STACK: OnceLock<Stack> = OnceLock::new();
static CHILD: Mutex<Option<Child>> = Mutex::new(None);

/// The shared stack's addresses; starts it if it does not run.
pub fn endpoints() -> &'static Endpoints {
    &STACK.get_or_init(start).endpoints
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_millrace"))
}

/// The state directory of the shared stack: its secret key and logs.
pub fn dir() -> &'static Path {
    &STACK.get_or_init(start).dir
}

fn start() -> Stack {
    let dir = std::env::temp_dir().join(format!("millrace-e2e-{}", std::process::id()));
    let child = Command::new(binary())
        .args(["dev", "--workers", "2", "--state-dir"])
        .arg(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if std::env::var_os("MILLRACE_TEST_VERBOSE").is_some() {
            Stdio::inherit()
        } else {
            log(&dir)
        })
        .spawn()
        .expect("millrace dev starts");
    *CHILD.lock().unwrap() = Some(child);
    let endpoints = wait_for_endpoints(&dir);
    Stack { endpoints, dir }
}

fn log(dir: &Path) -> Stdio {
    std::fs::create_dir_all(dir).expect("a state directory");
    Stdio::from(std::fs::File::create(dir.join("dev.log")).expect("a log file"))
}

fn wait_for_endpoints(dir: &Path) -> Endpoints {
    let start = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(dir.join("endpoints.json")) {
            return serde_json::from_str(&text).expect("endpoints.json has the documented form");
        }
        let ended = CHILD.lock().unwrap().as_mut().and_then(|child| child.try_wait().expect("a child"));
        let log = || std::fs::read_to_string(dir.join("dev.log")).unwrap_or_default();
        assert!(ended.is_none(), "millrace dev ended: {ended:?}\n{}", log());
        assert!(start.elapsed() < START_LIMIT, "millrace dev is not ready after {START_LIMIT:?}\n{}", log());
        #[allow(clippy::disallowed_methods)] // A plain thread: no runtime exists yet.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Stops the stack as a user would, and says so if it does not stop in the promised time.
pub fn stop() {
    let Some(mut child) = CHILD.lock().unwrap().take() else { return };
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal to millrace dev");
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > STOP_LIMIT {
            child.kill().expect("a signal to millrace dev");
            eprintln!("millrace dev did not stop within {STOP_LIMIT:?}");
            std::process::exit(1);
        }
        #[allow(clippy::disallowed_methods)] // A plain thread: the runtimes are gone.
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some(stack) = STACK.get()
        && std::env::var_os("MILLRACE_TEST_KEEP").is_none()
    {
        drop(std::fs::remove_dir_all(&stack.dir));
    }
}
