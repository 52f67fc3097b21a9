//! Random writes while random processes die or freeze; in the end every table equals its source.
//!
//! `MILLRACE_CHAOS_SECONDS` sets how long the faults go on (60), `MILLRACE_CHAOS_SEED` what is drawn (a
//! new seed each time; it is printed). The same seed gives the same faults at the same times and the same
//! transactions of each writer, in the same order; how they meet is up to the machine.
//!
//! - [`tables`], [`values`], [`transactions`]: what is written. [`writer`] writes it.
//! - [`shapes`]: how the tables themselves are changed.
//! - [`faults`]: what is done to the processes. [`operator`]: what a person does meanwhile.

mod faults;
mod operator;
mod shapes;
mod tables;
mod transactions;
mod values;
mod writer;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use millrace_proto::v1::{self as api, mirror};

use self::faults::{Faults, Tally};
use self::tables::TABLES;
use self::transactions::Transactions;
use self::writer::Done;
use crate::support::bed::Bed;
use crate::support::stack::Stack;
use crate::support::{self, equal, wait};

/// Sessions that write at once.
const WRITERS: u32 = 10;
/// How long the faults go on by default.
const SECONDS: u64 = 60;
/// Longest wait for everything to be up and equal, when the last fault is over: on a busy machine, with
/// time-outs of leases, heartbeats and retries one after the other.
const EQUAL_LIMIT: Duration = Duration::from_secs(240);

pub fn tests() -> Vec<Trial> {
    vec![Trial::test("chaos::everything_ends_equal", || {
        let _alone = support::alone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failed::from)?;
        let stack = Stack::start("chaos", &["--workers", "2", "--restart"]);
        runtime.block_on(everything_ends_equal(&stack));
        runtime.shutdown_background();
        let dir = stack.dir().to_owned();
        drop(stack);
        if std::env::var_os("MILLRACE_TEST_KEEP").is_none() {
            drop(std::fs::remove_dir_all(dir));
        }
        Ok(())
    })]
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
}

async fn everything_ends_equal(stack: &Stack) {
    let seconds = number("MILLRACE_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = number("MILLRACE_CHAOS_SEED").unwrap_or_else(rand::random);
    println!(
        "chaos: MILLRACE_CHAOS_SEED={seed} MILLRACE_CHAOS_SECONDS={seconds}; logs: {}",
        stack.dir().display()
    );
    let bed = Bed::on(stack.endpoints.clone(), "chaos").await;
    bed.sql(tables::TYPES).await;
    for table in TABLES {
        bed.sql(table.ddl).await;
    }
    for rows in Transactions::first_rows(seed) {
        bed.sql(&rows).await;
    }
    bed.create(request(&bed, seed)).await.expect("a mirror");
    let log = log(stack.dir());
    let plan = faults::plan(seed, Duration::from_secs(seconds));
    plan.iter().for_each(|fault| log(format!("plan: {fault}")));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Done::default()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(writer::run(bed.source_config(), seed, n, stop.clone(), done.clone())))
        .collect();
    let operator =
        tokio::spawn(operator::run(bed.mirrors(), bed.name.clone(), seed, stop.clone(), log.clone()));
    let shapes = tokio::spawn(shapes::run(bed.source_config(), seed, stop.clone(), log.clone()));
    let tally = Faults::new(stack.dir().to_owned(), stack.pid()).run(plan, log.clone()).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    operator.await.expect("the operator");
    shapes.await.expect("who changes shapes");
    let over = Instant::now();
    let rows = wait_equal(&bed).await;
    let summary = summary(&tally, &done, rows, over.elapsed());
    log(summary.clone());
    println!("chaos: seed {seed}, {seconds} s: {summary}");
    mirror_is_well(&bed, &log).await;
}

fn request(bed: &Bed, seed: u64) -> api::Mirror {
    let names: Vec<String> = TABLES.iter().map(|table| format!("public.{}", table.name)).collect();
    let mut request = bed.mirror(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (asked, table) in request.tables.iter_mut().zip(TABLES) {
        asked.append_only = table.appended;
    }
    request.settings = Some(api::Settings {
        snapshot: Some(api::SnapshotSettings { partition_bytes: Some(1 << 20), ..Default::default() }),
        // One, two or three.
        streams: Some((seed % 3) as u32 + 1),
        ..Default::default()
    });
    request
}

/// Lines with their time, into a file beside the logs of the processes.
fn log(dir: &Path) -> impl Fn(String) + Clone + Send + Sync + 'static {
    let file = Arc::new(std::fs::File::create(dir.join("logs/chaos.log")).expect("a log file"));
    let start = Instant::now();
    move |line| {
        writeln!(&*file, "[{:>6.1}] {line}", start.elapsed().as_secs_f64()).expect("a line of the log");
    }
}

/// Waits until everything is up again and every table equal; gives the number of rows.
async fn wait_equal(bed: &Bed) -> u64 {
    let config = bed.source_config();
    wait::until("the prepared transactions ended", EQUAL_LIMIT, || async {
        writer::end_prepared(&writer::connect(&config).await?).await
    })
    .await;
    wait::until("every table touched", EQUAL_LIMIT, || async {
        shapes::touch(&writer::connect(&config).await?).await
    })
    .await;
    wait::until("the mirror resumed", EQUAL_LIMIT, || operator::resume(bed.mirrors(), &bed.name)).await;
    wait::until("its tables resumed", EQUAL_LIMIT, || operator::resume_tables(bed.mirrors(), &bed.name))
        .await;
    wait::until("the mirror RUNNING", EQUAL_LIMIT, || async {
        match bed.get().await {
            Ok(mirror) if mirror.state() == mirror::State::Running => Ok(()),
            Ok(mirror) => Err(states(&mirror)),
            Err(status) => Err(status.to_string()),
        }
    })
    .await;
    let mut rows = 0;
    for table in TABLES {
        rows += wait::until(&format!("{} equal", table.name), EQUAL_LIMIT, || async {
            let source = writer::connect(&config).await?;
            match table.appended {
                true => equal::compare_appended(&source, &bed.clickhouse, table.name, table.name).await,
                false => equal::compare(&source, &bed.clickhouse, table.name, table.name).await,
            }
        })
        .await;
    }
    rows
}

fn states(mirror: &api::Mirror) -> String {
    let mut text = format!("{:?} {:?}", mirror.state(), mirror.error);
    for table in &mirror.tables {
        write!(text, "\n  {} {:?} {:?}", table.source, table.state(), table.error).expect("a text");
    }
    text
}

/// Nothing went to ERROR on the way: no user did anything that would.
async fn mirror_is_well(bed: &Bed, log: impl Fn(String)) {
    let request =
        api::ListMirrorEventsRequest { name: bed.name.clone(), page_size: 1_000, ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.iter().rev().for_each(|event| log(format!("event: {event:?}")));
    let bad: Vec<_> = events.iter().filter(|event| event.severity() == api::event::Severity::Error).collect();
    assert!(bad.is_empty(), "the mirror reported errors: {bad:#?}");
}

fn summary(tally: &Tally, done: &Done, rows: u64, took: Duration) -> String {
    let total = |of: &std::collections::BTreeMap<String, u32>| of.values().sum::<u32>();
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    format!(
        "{} kills {:?}, {} freezes {:?}, {} missed; {} transactions committed, {} prepared, {} rolled back, failed {:?}; {rows} rows equal after {:.1} s",
        total(&tally.kills),
        tally.kills,
        total(&tally.freezes),
        tally.freezes,
        tally.missed,
        count(&done.committed),
        count(&done.prepared),
        count(&done.rolled_back),
        done.failed.lock().unwrap(),
        took.as_secs_f64()
    )
}
