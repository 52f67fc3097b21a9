//! Following a mirror until it is where it should be.
//!
//! I/O rim; [`Goal::verdict`] is pure.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use millrace_proto::v1::{self, Mirror, WatchMirrorRequest, WatchMirrorResponse, mirror, table};
use millrace_terms::{Class, Code, Error};

use super::create::with_unit;
use super::progress;
use super::watch::Progress;
use crate::client::{Client, figures};
use crate::failure::Failure;

/// Time for which a server that went away is waited for: a restart takes less.
const RECONNECT_MAX: Duration = Duration::from_secs(60);

/// Time between two attempts to reach it.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// Every table is copied.
    Snapshot,
    /// Every table streams.
    Streaming,
}

impl Goal {
    /// Whether the mirror is there; an error if it will not get there by itself.
    fn verdict(self, mirror: &Mirror) -> Result<bool, Failure> {
        use mirror::State;
        if let Some(failure) = &mirror.error {
            return Err(of(failure, format!("mirror {}", mirror.name)));
        }
        let broken = mirror.tables.iter().find_map(|table| Some((table, table.error.as_ref()?)));
        if let Some((table, failure)) = broken {
            return Err(of(failure, format!("table {}", table.source)));
        }
        if let Some(table) = mirror.tables.iter().find(|table| table.copy_cancelled) {
            return Err(Failure::from(&cancelled(&mirror.name, &table.source)));
        }
        match mirror.state() {
            State::Paused | State::Dropping | State::Failed => {
                let message = format!("mirror {} is {}", mirror.name, mirror.state().as_str_name());
                Err(Failure::from(&Error::new(Code::MirrorState, message)))
            }
            State::Running | State::Completed => Ok(true),
            State::Snapshot => Ok(self == Goal::Snapshot && mirror.tables.iter().all(is_over)),
            State::Setup | State::Degraded | State::Unspecified => Ok(false),
        }
    }
}

fn cancelled(mirror: &str, table: &str) -> Error {
    Error::new(Code::MirrorState, format!("the copy of table {table} is cancelled"))
        .with_remedy(format!("Go on with it by `millrace table resume {mirror} '{table}'`."))
}

fn is_over(table: &v1::Table) -> bool {
    table.state() == table::State::Dropped || progress::is_copied(table)
}

/// A failure of the server's own, as one of this command.
fn of(failure: &v1::Failure, what: String) -> Failure {
    let known: Option<Code> = failure.code.parse().ok();
    Failure {
        code: failure.code.clone(),
        class: known.map_or(Class::Internal, Code::class),
        message: format!("{what}: {}", failure.message),
        remedy: Some(failure.remedy.clone()).filter(|remedy| !remedy.is_empty()),
        faults: Vec::new(),
        line: None,
    }
}

/// Whether a command waits, for what and for how long.
#[derive(Debug, Clone, Args)]
pub struct WaitArguments {
    /// Wait until the tables are copied, or until all of them stream; progress goes to stderr
    #[arg(long, value_name = "GOAL", num_args = 0..=1, require_equals = true, default_missing_value = "streaming")]
    wait: Option<Goal>,
    /// Time to wait at most, such as 90s, 10min or 2h; the work goes on after it
    #[arg(long, value_name = "TIME", value_parser = limit, requires = "wait")]
    timeout: Option<Duration>,
}

impl WaitArguments {
    /// Whether the command waits.
    pub fn is_set(&self) -> bool {
        self.wait.is_some()
    }

    /// Waits for the mirrors of these names, one after the other, for all have begun already, and returns
    /// them. Without a goal it returns none at once.
    ///
    /// # Errors
    /// What a mirror or one of its tables fails with meanwhile; MIRROR_STATE if it is paused or dropped;
    /// REQUEST_TIMEOUT.
    pub async fn run(&self, client: &mut Client, names: &[String]) -> anyhow::Result<Vec<Mirror>> {
        let Some(goal) = self.wait else { return Ok(Vec::new()) };
        let until = self.timeout.map(|limit| (Instant::now() + limit, limit));
        let mut mirrors = Vec::with_capacity(names.len());
        for name in names {
            let mut progress = Progress::new()?;
            let reached = reach(client, name, goal, until, &mut progress).await;
            progress.clear();
            mirrors.push(reached?);
        }
        Ok(mirrors)
    }
}

async fn reach(
    client: &mut Client,
    name: &str,
    goal: Goal,
    until: Option<(Instant, Duration)>,
    progress: &mut Progress,
) -> anyhow::Result<Mirror> {
    let mut watch = Watch::new(client, name);
    let mut seen = None;
    loop {
        let next = match until {
            None => watch.next().await?,
            Some((deadline, limit)) => match tokio::time::timeout_at(deadline.into(), watch.next()).await {
                Ok(next) => next?,
                Err(_) => return Err(late(name, seen.as_ref(), limit).into()),
            },
        };
        let Some(mirror) = next else {
            return Err(
                Error::new(Code::MirrorNotFound, format!("mirror {name} was dropped meanwhile")).into()
            );
        };
        progress.show(&mirror);
        if goal.verdict(&mirror)? {
            return Ok(mirror);
        }
        seen = Some(mirror);
    }
}

fn late(name: &str, seen: Option<&Mirror>, limit: Duration) -> Error {
    let state = match seen {
        Some(mirror) => {
            let there = mirror.tables.iter().filter(|table| table.state() == table::State::Streaming).count();
            format!("is {}: {there} of {} tables stream", mirror.state().as_str_name(), mirror.tables.len())
        }
        None => "was not seen".to_owned(),
    };
    let text = format!("after {} mirror {name} {state}", figures::duration(limit.as_secs_f64()));
    Error::new(Code::RequestTimeout, text)
        .with_remedy(format!("The work goes on by itself; follow it with `millrace mirror watch {name}`."))
}

/// Reads a time limit.
fn limit(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000)];
    // A plain number means seconds, not the smallest unit.
    let text = if text.bytes().all(|b| b.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() };
    with_unit(&text, &units)
        .map(Duration::from_millis)
        .ok_or_else(|| "a time looks like 90s, 10min or 2h".into())
}

/// Waits until the mirror is gone.
///
/// # Errors
/// If the server cannot be reached.
pub(super) async fn gone(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let mut watch = Watch::new(client, name);
    while watch.next().await?.is_some() {}
    Ok(())
}

/// The mirror after every change. A server that goes away is waited for.
pub(super) struct Watch<'a> {
    client: &'a mut Client,
    name: &'a str,
    stream: Option<tonic::Streaming<WatchMirrorResponse>>,
    /// Whether anything was seen: the first call's error is the user's, such as a wrong name.
    has_begun: bool,
    lost_at: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(client: &'a mut Client, name: &'a str) -> Self {
        Self { client, name, stream: None, has_begun: false, lost_at: None }
    }

    /// The mirror as it is now, then after each change; none when it is gone.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Mirror>> {
        loop {
            match self.step().await {
                Ok(Some(WatchMirrorResponse { mirror: Some(mirror) })) => {
                    self.has_begun = true;
                    self.lost_at = None;
                    return Ok(Some(mirror));
                }
                Ok(Some(WatchMirrorResponse { mirror: None })) => {}
                Ok(None) => return Ok(None),
                // Dropped while the server was away.
                Err(status) if self.has_begun && status.code() == tonic::Code::NotFound => return Ok(None),
                Err(status) => self.lose(status).await?,
            }
        }
    }

    async fn step(&mut self) -> Result<Option<WatchMirrorResponse>, tonic::Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let request = WatchMirrorRequest { name: self.name.to_owned() };
                none.insert(self.client.mirrors.watch_mirror(request).await?.into_inner())
            }
        };
        stream.message().await
    }

    /// Pauses before another attempt, or gives up.
    async fn lose(&mut self, status: tonic::Status) -> Result<(), Failure> {
        self.stream = None;
        let since = *self.lost_at.get_or_insert_with(Instant::now);
        let failure = Failure::from(status);
        if !self.has_begun || failure.class != Class::Unavailable || since.elapsed() >= RECONNECT_MAX {
            return Err(failure);
        }
        tracing::warn!(cause = %failure.message, "the server went away; trying again");
        tokio::time::sleep(RECONNECT_PAUSE).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(state: mirror::State, tables: &[table::State]) -> Mirror {
        let tables = tables.iter().map(|state| v1::Table { state: (*state).into(), ..Default::default() });
        Mirror { name: "shop".into(), state: state.into(), tables: tables.collect(), ..Default::default() }
    }

    #[test]
    fn goals_are_reached_in_their_order() {
        use mirror::State::{Paused, Running, Setup, Snapshot};
        use table::State::{Copying, Streaming};
        let mut copied = mirror(Snapshot, &[Streaming, Copying]);
        assert_eq!(Goal::Snapshot.verdict(&copied), Ok(false));
        (copied.tables[1].partitions_total, copied.tables[1].partitions_done) = (3, 3);
        assert_eq!(
            (Goal::Snapshot.verdict(&copied), Goal::Streaming.verdict(&copied)),
            (Ok(true), Ok(false))
        );
        let running = mirror(Running, &[Streaming]);
        assert_eq!(
            (Goal::Snapshot.verdict(&running), Goal::Streaming.verdict(&running)),
            (Ok(true), Ok(true))
        );
        assert_eq!(Goal::Snapshot.verdict(&mirror(Setup, &[])), Ok(false));
        assert_eq!(Goal::Snapshot.verdict(&mirror(Paused, &[])).unwrap_err().code, "MIRROR_STATE");
    }

    #[test]
    fn a_wait_has_a_limit_and_says_how_far_it_came() {
        let read: Vec<_> =
            ["90", "90s", "2m", "2min", "1h", "5ms"].map(|text| limit(text).unwrap().as_millis()).into();
        assert_eq!(read, [90_000, 90_000, 120_000, 120_000, 3_600_000, 5]);
        assert!(limit("soon").is_err() && limit("").is_err());
        let slow = mirror(mirror::State::Snapshot, &[table::State::Streaming, table::State::Copying]);
        let error = late("shop", Some(&slow), Duration::from_secs(600));
        assert_eq!(error.message(), "after 10 min mirror shop is SNAPSHOT: 1 of 2 tables stream");
        assert_eq!(Failure::from(&error).exit_code(), 3);
    }

    #[test]
    fn a_table_in_error_ends_the_wait_with_its_code() {
        let mut degraded = mirror(mirror::State::Degraded, &[table::State::Error]);
        degraded.tables[0].source = "public.t".into();
        degraded.tables[0].error = Some(v1::Failure {
            code: "VALUE_UNREPRESENTABLE".into(),
            message: "column d".into(),
            ..Default::default()
        });
        let failure = Goal::Streaming.verdict(&degraded).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.exit_code()), ("VALUE_UNREPRESENTABLE", 2));
        assert_eq!(failure.message, "table public.t: column d");
    }

    #[test]
    fn a_copy_that_was_cancelled_ends_the_wait_and_says_how_to_go_on() {
        let mut waiting = mirror(mirror::State::Snapshot, &[table::State::Copying]);
        waiting.tables[0].source = "public.t".into();
        waiting.tables[0].copy_cancelled = true;
        let failure = Goal::Streaming.verdict(&waiting).unwrap_err();
        assert_eq!(failure.code, "MIRROR_STATE");
        assert!(failure.remedy.unwrap().contains("millrace table resume shop 'public.t'"));
    }
}
