//! The running stack: started in order, watched, restarted if that is asked for, stopped in order.
//!
//! I/O rim.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use millrace_embedded::process::Process;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::endpoints::{Endpoints, Pids};
use super::part::{Ground, Part};
use super::state;

/// Pause between two looks at the processes.
const LOOK: Duration = Duration::from_millis(100);
/// Pause before a process is started again, so that one that always fails does not take the machine.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Mode of `endpoints.json`: it holds passwords.
const MODE: u32 = 0o600;
/// Name of that file.
const ENDPOINTS: &str = "endpoints.json";

/// The parts that run, and what they are started from.
#[derive(Debug)]
pub struct Stack {
    ground: Arc<Ground>,
    slots: Vec<Slot>,
    workers: usize,
}

#[derive(Debug)]
struct Slot {
    part: Part,
    pid: u32,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Running(Process),
    Starting(JoinHandle<anyhow::Result<Process>>),
    Dead,
}

/// What a look at the processes found.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    None,
    Pid,
}

impl Stack {
    /// A stack of which nothing runs yet.
    pub fn new(ground: Ground, workers: usize) -> Self {
        Self { ground: Arc::new(ground), slots: Vec::new(), workers }
    }

    /// Starts everything; returns when all of it is ready. Stop it also if this fails or is dropped.
    ///
    /// # Errors
    /// What fails to start, with the end of its log.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        // Whoever waits for the file must not find that of an earlier run.
        let _none = std::fs::remove_file(self.ground.state.path(ENDPOINTS));
        self.add(&[Part::Source, Part::Catalog, Part::Temporal, Part::Clickhouse]).await?;
        self.ground.migrate().await?;
        let workers = (0..self.workers).map(Part::Worker);
        let ours: Vec<Part> = std::iter::once(Part::Server).chain(workers).collect();
        self.add(&ours).await?;
        self.publish()
    }

    async fn add(&mut self, parts: &[Part]) -> anyhow::Result<()> {
        let ground = &self.ground;
        let started = try_join_all(parts.iter().map(async |part| {
            let process = ground.start(*part).await?;
            Ok::<_, anyhow::Error>(Slot { part: *part, pid: process.pid(), life: Life::Running(process) })
        }));
        self.slots.extend(started.await?);
        Ok(())
    }

    /// Where everything is, as `endpoints.json` says.
    pub fn endpoints(&self) -> Endpoints {
        let mut pids = Pids::default();
        for slot in &self.slots {
            match slot.part {
                Part::Source => pids.source = slot.pid,
                Part::Catalog => pids.catalog = slot.pid,
                Part::Temporal => pids.temporal = slot.pid,
                Part::Clickhouse => pids.clickhouse = slot.pid,
                Part::Server => pids.server = slot.pid,
                Part::Worker(_) => pids.workers.push(slot.pid),
            }
        }
        self.ground.endpoints(self.workers, pids)
    }

    fn publish(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.endpoints())?;
        state::write(&self.ground.state.path(ENDPOINTS), &text, MODE)
    }

    /// Looks after the processes until `shutdown`. What ends is said; with `restart` it is started again.
    ///
    /// # Errors
    /// If the endpoints cannot be written any more.
    pub async fn watch(&mut self, restart: bool, shutdown: &CancellationToken) -> anyhow::Result<()> {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let mut change = Change::None;
            for i in 0..self.slots.len() {
                if self.look(i, restart).await == Change::Pid {
                    change = Change::Pid;
                }
            }
            if change == Change::Pid {
                self.publish()?;
            }
        }
        Ok(())
    }

    async fn look(&mut self, i: usize, restart: bool) -> Change {
        let slot = &mut self.slots[i];
        let name = slot.part.name();
        match &mut slot.life {
            Life::Running(process) => {
                let Some(status) = process.ended() else { return Change::None };
                let log = self.ground.state.log(&name);
                say(&format!("{name} (pid {}) ended: {status}; its log: {}", slot.pid, log.display()));
                slot.life = if restart { Life::Starting(again(&self.ground, slot.part)) } else { Life::Dead };
                Change::None
            }
            Life::Starting(start) if start.is_finished() => match flatten(start.await) {
                Ok(process) => {
                    slot.pid = process.pid();
                    say(&format!("{name} runs again, as pid {}", slot.pid));
                    slot.life = Life::Running(process);
                    Change::Pid
                }
                Err(error) => {
                    say(&format!("{name} cannot be started again: {error:#}"));
                    slot.life = Life::Starting(again(&self.ground, slot.part));
                    Change::None
                }
            },
            Life::Starting(_) | Life::Dead => Change::None,
        }
    }

    /// Stops everything in order: those who use the databases before the databases.
    pub async fn stop(mut self) {
        let _none = std::fs::remove_file(self.ground.state.path(ENDPOINTS));
        let order: [fn(Part) -> bool; 3] = [
            |part| matches!(part, Part::Worker(_)),
            |part| part == Part::Server,
            |part| matches!(part, Part::Source | Part::Catalog | Part::Temporal | Part::Clickhouse),
        ];
        for stage in order {
            let (now, later): (Vec<Slot>, Vec<Slot>) =
                std::mem::take(&mut self.slots).into_iter().partition(|slot| stage(slot.part));
            self.slots = later;
            join_all(now.into_iter().map(stop)).await;
        }
    }
}

async fn stop(slot: Slot) {
    match slot.life {
        Life::Running(mut process) => {
            let (signal, limit) = slot.part.stop();
            if !process.stop(signal, limit).await {
                say(&format!("{} did not end within {} s and was killed", slot.part.name(), limit.as_secs()));
            }
        }
        // Its process is killed when the task is dropped.
        Life::Starting(start) => start.abort(),
        Life::Dead => {}
    }
}

fn again(ground: &Arc<Ground>, part: Part) -> JoinHandle<anyhow::Result<Process>> {
    let ground = Arc::clone(ground);
    tokio::spawn(async move {
        tokio::time::sleep(RESTART_PAUSE).await;
        ground.start(part).await
    })
}

fn flatten(result: Result<anyhow::Result<Process>, tokio::task::JoinError>) -> anyhow::Result<Process> {
    result.map_err(anyhow::Error::from).and_then(|inner| inner)
}

/// Says something to the person at the terminal.
pub fn say(text: &str) {
    use std::io::Write;
    // A closed stderr is no reason to stop.
    let _closed = writeln!(std::io::stderr(), "millrace dev: {text}");
}
