//! What is done to the processes, and when. [`plan`] is pure; [`Faults`] does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::support::stack::{Pids, read_endpoints};

/// Where it hurts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Worker(usize),
    Server,
    Temporal,
    Clickhouse,
    /// The whole cluster.
    Source,
    /// A walsender: the source restarts all its sessions.
    Walsender,
    Catalog,
}

/// Who is hit how often.
const TARGETS: [(Target, u32); 8] = [
    (Target::Worker(0), 5),
    (Target::Worker(1), 5),
    (Target::Server, 1),
    (Target::Temporal, 3),
    (Target::Clickhouse, 4),
    (Target::Source, 2),
    (Target::Walsender, 2),
    (Target::Catalog, 3),
];

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after that time.
    Freeze(Duration),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Since the start.
    pub at: Duration,
    pub target: Target,
    pub action: Action,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, target, action } = self;
        match action {
            Action::Kill => write!(f, "{:>6.1} s  kill   {target:?}", at.as_secs_f64()),
            Action::Freeze(time) => {
                write!(f, "{:>6.1} s  freeze {target:?} for {:.1} s", at.as_secs_f64(), time.as_secs_f64())
            }
        }
    }
}

/// The faults of a run: the same for the same seed, as far as the run goes.
pub fn plan(seed: u64, length: Duration) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut at = Duration::ZERO;
    let mut faults = Vec::new();
    loop {
        // Mostly blow upon blow; sometimes there is time to get well.
        let pause =
            if rng.random_bool(0.08) { rng.random_range(8.0..15.0) } else { rng.random_range(0.2..3.5) };
        at += Duration::from_secs_f64(pause);
        if at >= length {
            return faults;
        }
        faults.push(Fault { at, target: target(&mut rng), action: action(&mut rng) });
    }
}

fn target(rng: &mut StdRng) -> Target {
    let mut left = rng.random_range(0..TARGETS.iter().map(|(_, weight)| weight).sum());
    for (target, weight) in TARGETS {
        if left < weight {
            return target;
        }
        left -= weight;
    }
    Target::Server
}

fn action(rng: &mut StdRng) -> Action {
    if rng.random_bool(0.7) {
        return Action::Kill;
    }
    // Shorter than a heartbeat, about as long as the lease (10 s), and longer.
    let time = match rng.random_range(0..10) {
        0..5 => rng.random_range(0.2..3.0),
        5..8 => rng.random_range(6.0..11.0),
        _ => rng.random_range(11.0..22.0),
    };
    Action::Freeze(Duration::from_secs_f64(time))
}

/// What was done, for the summary.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub kills: BTreeMap<String, u32>,
    pub freezes: BTreeMap<String, u32>,
    /// Faults whose target did not run just then.
    pub missed: u32,
}

/// Does it.
pub struct Faults {
    dir: PathBuf,
    /// `millrace dev`: only its descendants are touched.
    parent: i32,
    tally: Tally,
    frozen: Arc<Mutex<BTreeSet<i32>>>,
}

impl Faults {
    pub fn new(dir: PathBuf, parent: i32) -> Self {
        Self { dir, parent, tally: Tally::default(), frozen: Arc::default() }
    }

    /// Does all of the plan, and lets go of what is frozen. `log` gets a line for each fault.
    pub async fn run(mut self, plan: Vec<Fault>, log: impl Fn(String)) -> Tally {
        let start = Instant::now();
        for fault in plan {
            tokio::time::sleep_until(start + fault.at).await;
            let pids = self.pids(fault.target);
            if pids.is_empty() {
                self.tally.missed += 1;
                log(format!("{fault}: it does not run"));
                continue;
            }
            log(format!("{fault}: {pids:?}"));
            let name = format!("{:?}", fault.target).replace("(", "-").replace(")", "").to_lowercase();
            match fault.action {
                Action::Kill => {
                    signal(&pids[..1], Signal::SIGKILL);
                    *self.tally.kills.entry(name).or_default() += 1;
                }
                Action::Freeze(time) => {
                    self.freeze(pids, time);
                    *self.tally.freezes.entry(name).or_default() += 1;
                }
            }
        }
        let frozen: Vec<i32> = self.frozen.lock().unwrap().iter().copied().collect();
        signal(&frozen, Signal::SIGCONT);
        self.tally
    }

    fn freeze(&self, pids: Vec<i32>, time: Duration) {
        signal(&pids, Signal::SIGSTOP);
        self.frozen.lock().unwrap().extend(&pids);
        let frozen = self.frozen.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            signal(&pids, Signal::SIGCONT);
            frozen.lock().unwrap().retain(|pid| !pids.contains(pid));
        });
    }

    /// The processes of a target, its head first; none if it does not run.
    fn pids(&self, target: Target) -> Vec<i32> {
        let Some(endpoints) = read_endpoints(&self.dir) else { return Vec::new() };
        let Pids { server, workers, temporal, clickhouse, catalog, source } = endpoints.pids;
        let head = match target {
            Target::Worker(n) => workers[n],
            Target::Server => server,
            Target::Temporal => temporal,
            Target::Clickhouse => clickhouse,
            Target::Catalog => catalog,
            Target::Source | Target::Walsender => source,
        };
        // A pid of a process that has ended may be another's by now.
        if parent(head) != Some(self.parent) {
            return Vec::new();
        }
        match target {
            Target::Walsender => {
                children(head).into_iter().filter(|pid| is_walsender(*pid)).take(1).collect()
            }
            _ => std::iter::once(head).chain(children(head)).collect(),
        }
    }
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids {
        // It may have ended in between: its parent, which would reap it, is `millrace dev` or frozen.
        let _ended = kill(Pid::from_raw(*pid), signal);
    }
}

/// The parent of a process, if it runs.
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state, parent.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    if state == "Z" { None } else { Some(parent) }
}

fn children(of: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}

fn is_walsender(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("walsender"))
}
