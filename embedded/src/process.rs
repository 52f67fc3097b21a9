//! Child processes that never outlive their parent, not even one that is killed with SIGKILL.
//!
//! I/O rim.

// `CommandExt::pre_exec` is unsafe: its closure runs between fork and exec.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use millrace_terms::{Code, Error};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::account::Account;
use crate::unavailable;

/// Pause between two looks at whether a process has ended or is ready.
const LOOK: Duration = Duration::from_millis(25);
/// Bytes of the end of a log that an error quotes.
const TAIL_BYTES: u64 = 2 << 10;

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// A name for people, such as `temporal`.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables on top of our own; `None` hides one of ours.
    pub env: BTreeMap<String, Option<OsString>>,
    /// Where its stdout and stderr are appended to.
    pub log: PathBuf,
    /// The user to become, if not our own.
    pub account: Option<Account>,
    /// What ends the process when we end without having stopped it.
    pub death_signal: Signal,
}

impl Spec {
    /// A process as our own user that our end kills.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            log: log.into(),
            account: None,
            death_signal: Signal::SIGKILL,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.insert(name.to_owned(), Some(value.into()));
        self
    }

    /// Hides an environment variable of ours.
    #[must_use]
    pub fn hide(mut self, name: &str) -> Self {
        self.env.insert(name.to_owned(), None);
        self
    }

    fn command(&self) -> std::io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C on the terminal reaches only the parent, which stops its
        // children in the right order.
        command.process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid).current_dir("/");
        }
        tie(&mut command, self.death_signal);
        Ok(command)
    }
}

/// Has the command's process signalled when the thread that starts it ends, however that comes.
pub(crate) fn tie(command: &mut Command, signal: Signal) {
    let parent = Pid::this();
    // SAFETY: after fork only async-signal-safe calls are allowed; these are plain system calls
    // (prctl, getppid) without allocation. std changes the user before it runs the closure, and
    // a change of user after it would clear the death signal.
    unsafe {
        command.pre_exec(move || die_with(parent, signal));
    }
}

/// Asks the kernel to signal this process when its parent's thread ends.
#[cfg(target_os = "linux")]
fn die_with(parent: Pid, signal: Signal) -> std::io::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)?;
    // The parent may have died before the call above.
    if Pid::parent() != parent {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// Only Linux can tie processes together; elsewhere a killed parent leaves its children.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: Pid, _signal: Signal) -> std::io::Result<()> {
    Ok(())
}

type Order = (Spec, mpsc::SyncSender<std::io::Result<Child>>);

/// Starts all children on one thread that lives as long as this process: the kernel sends the death
/// signal when the *thread* that forked ends, and threads of a runtime come and go.
fn spawner() -> &'static mpsc::Sender<Order> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (spec, reply) in inbox {
                let _gone = reply.send(spec.command().and_then(|mut command| command.spawn()));
            }
        });
        orders
    })
}

/// A running child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    log_start: u64,
    child: Child,
}

impl Process {
    /// Starts a process.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE if the executable cannot be run.
    pub fn spawn(spec: Spec) -> Result<Self, Error> {
        let name = spec.name.clone();
        let log = spec.log.clone();
        let failed = |reason: String| unavailable(format!("{name} cannot be started: {reason}"));
        let log_start = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let program = spec.program.display().to_string();
        let (reply, answer) = mpsc::sync_channel(1);
        spawner().send((spec, reply)).map_err(|_| failed("no thread to start it".to_owned()))?;
        let child = answer
            .recv()
            .map_err(|_| failed("no thread to start it".to_owned()))?
            .map_err(|e| failed(format!("{program}: {e}")))?;
        Ok(Self { name, log, log_start, child })
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id: the process itself, never a wrapper.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a signal. A process that has ended is left alone: its pid may be another's by now.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // It may end in between; the child is not reaped until then, so the pid is still ours.
            let _ended = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Asks it to end by `signal`, and kills it when `patience` is over. Whether it ended by itself.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> bool {
        self.signal(signal);
        let in_time = tokio::time::timeout(patience, self.wait()).await.is_ok();
        if !in_time {
            self.signal(Signal::SIGKILL);
            self.wait().await;
        }
        in_time
    }

    /// Waits until `probe` says that the process is ready.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE with the end of its log if it ends, or is not ready within `limit`.
    pub async fn ready<P>(&mut self, limit: Duration, mut probe: impl FnMut() -> P) -> Result<(), Error>
    where
        P: Future<Output = bool>,
    {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Err(self.failure(&format!("ended while starting ({status})")));
            }
            if tokio::time::timeout_at(deadline, probe()).await == Ok(true) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&format!("was not ready within {} s", limit.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A failure of this process, with the end of what it logged.
    pub fn failure(&self, what: &str) -> Error {
        let tail = self.log_tail();
        let quoted = if tail.is_empty() { String::new() } else { format!("; its last words:\n{tail}") };
        Error::new(Code::EmbeddedUnavailable, format!("{} {what}{quoted}", self.name))
            .with_remedy(format!("See the whole log: {}", self.log.display()))
            .with("process", self.name.clone())
    }

    /// The end of what it logged since it was started.
    pub fn log_tail(&self) -> String {
        tail(&self.log, self.log_start).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        // Reaped here, so that no zombie keeps the pid.
        let _status = self.child.wait();
    }
}

fn tail(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(start)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Spec {
        Spec::new("script", "/bin/sh", dir.join("log")).args(["-c", script])
    }

    #[tokio::test]
    async fn a_process_that_ends_early_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::spawn(shell(dir.path(), "echo no such luck; exit 3")).unwrap();
        let error = process.ready(Duration::from_secs(10), || std::future::ready(false)).await.unwrap_err();
        assert!(error.message().contains("no such luck"), "{error}");
        assert!(error.remedy().contains("log"));
    }

    #[tokio::test]
    async fn a_process_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let deaf = "trap '' TERM; echo up; while :; do sleep 0.01; done";
        let mut process = Process::spawn(shell(dir.path(), deaf)).unwrap();
        let log = dir.path().join("log");
        process
            .ready(Duration::from_secs(10), || std::future::ready(tail(&log, 0).is_ok_and(|t| t == "up")))
            .await
            .unwrap();
        assert!(!process.stop(Signal::SIGTERM, Duration::from_millis(100)).await);
        assert!(process.ended().is_some());
    }

    #[test]
    fn a_tied_command_ends_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let mut command = Command::new("/bin/sleep");
            command.arg("1000");
            tie(&mut command, Signal::SIGTERM);
            command.spawn().unwrap()
        });
        let ended = started.join().unwrap().wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(Signal::SIGTERM as i32));
    }

    #[test]
    fn a_missing_executable_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            Process::spawn(Spec::new("ghost", "/nonexistent/ghost", dir.path().join("log"))).unwrap_err();
        assert!(error.message().contains("/nonexistent/ghost"), "{error}");
    }
}
