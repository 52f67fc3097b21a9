//! How soon changes are visible again after the worker that streams them was killed. I/O.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Bed, DATABASE, LIMIT};
use crate::report::{Line, Rounds};
use crate::tables::Kind;
use crate::{Scope, say};

const TABLE: &str = "recovery";
const MIRROR: &str = "recovery";
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Kills the worker that streams, again and again.
///
/// # Errors
/// If something does not work.
pub async fn measure(bed: &mut Bed, scope: &Scope) -> anyhow::Result<Line> {
    bed.source.batch_execute(&Kind::Reference.create(TABLE)).await?;
    bed.api.create(MIRROR, &[TABLE.to_owned()]).await?;
    bed.api.wait_until_streaming(MIRROR).await?;
    let mut rounds = Rounds::default();
    for round in 1..=u64::from(scope.rounds) {
        visible(bed, 2 * round - 1).await?;
        let workers = bed.stack.endpoints().pids.workers.clone();
        let killed = streaming(bed, &workers).await?;
        let began = Instant::now();
        kill(Pid::from_raw(killed.cast_signed()), Signal::SIGKILL).context("killing a worker")?;
        visible(bed, 2 * round).await?;
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("recovery round {round}: {seconds:.1} s"));
        rounds.add(vec![("seconds", seconds)]);
        // The next one is killed where two are there.
        let deadline = Instant::now() + LIMIT;
        while bed.stack.endpoints().pids.workers.contains(&killed) {
            ensure!(Instant::now() < deadline, "the worker was not started again");
            tokio::time::sleep(LOOK).await;
            bed.stack.look_again()?;
        }
    }
    bed.api.delete(MIRROR).await?;
    Ok(rounds.line("recovery: one of 2 workers killed"))
}

/// Writes a row, and waits until it is visible.
async fn visible(bed: &Bed, id: u64) -> anyhow::Result<()> {
    bed.source.batch_execute(&Kind::Reference.insert(TABLE, id, id)).await?;
    let sql = format!("select max(id) from {DATABASE}.{TABLE}");
    bed.clickhouse.wait(&sql, LOOK, |highest| highest.parse::<u64>().is_ok_and(|n| n >= id)).await.map(drop)
}

/// The worker whose connection the walsender serves.
async fn streaming(bed: &Bed, workers: &[u32]) -> anyhow::Result<u32> {
    let port: u16 = bed.value("select client_port from pg_stat_replication").await?.parse()?;
    let socket = socket_of_port(port).context("the walsender's client has no socket")?;
    let socket = format!("socket:[{socket}]");
    let holds = |pid: &&u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&socket)))
    };
    workers.iter().find(holds).copied().context("no worker streams")
}

/// The inode of the socket that is bound to a local port and is connected: the second and tenth field of a
/// line of `/proc/net/tcp` (proc(5)).
fn socket_of_port(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let end = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&end);
        fields.get(9).filter(|_| is_it)?.parse().ok()
    })
}
