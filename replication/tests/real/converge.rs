//! Copy and stream together, under writers who fight for the same keys: when they stop, both sides are
//! equal. The statements are random, from fixed seeds.

use std::time::Duration;

use millrace_replication::clickhouse::InsertId;
use millrace_replication::copy::{self, CopyJob, CopyLimits, CopyOutcome, CopyProgress};
use millrace_replication::postgres::{Session, describe, epoch, partition};
use millrace_replication::version::Version;
use millrace_terms::Lsn;
use tokio_util::sync::CancellationToken;

use crate::mirror::{Mirror, Running};

/// Numbers for a seed; the quality of a lottery is not needed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

const KEYS: u64 = 12;

/// One statement on the hot keys.
fn statement(random: &mut Random) -> String {
    let (a, b) = (random.below(KEYS), random.below(KEYS));
    let (v, cold) = (random.below(1000), KEYS + random.below(2000));
    let big = format!("repeat(md5('{v}'), {})", random.below(2) * 200 + 1);
    match random.below(12) {
        0 | 1 => format!("insert into hot values ({a}, {v}, {big})"),
        2 => {
            format!("insert into hot values ({a}, {v}, {big}) on conflict (id) do update set v = excluded.v")
        }
        3 => format!("insert into hot values ({a}, {v}, {big}), ({b}, {v}, 's') on conflict do nothing"),
        4 | 5 => format!("update hot set v = {v} where id = {a}"),
        6 => format!("update hot set id = {b} where id = {a}"),
        7 => format!("update hot set big = {big} where id = {a}"),
        8 => format!("delete from hot where id = {a}"),
        9 => format!("delete from hot where id = {a}; insert into hot values ({a}, {v}, {big})"),
        10 => format!("update hot set v = {v} where id = {cold}"),
        _ => format!(
            "delete from hot where id = {cold}; insert into hot values ({cold}, {v}, {big}) on conflict do nothing"
        ),
    }
}

/// Random transactions, some with savepoints, some rolled back, some open for long.
async fn write(session: Session, seed: u64, transactions: u32) {
    let mut random = Random(seed);
    session.batch_execute("set lock_timeout = '200ms'; set deadlock_timeout = '50ms'").await.unwrap();
    for _ in 0..transactions {
        let mut broken = session.batch_execute("begin").await.is_err();
        for _ in 0..=random.below(4) {
            let sql = statement(&mut random);
            let sql = match random.below(4) {
                0 => format!("savepoint s; {sql}; rollback to s"),
                1 => format!("savepoint s; {sql}; release s"),
                _ => sql,
            };
            // Deadlocks and taken keys are part of the game.
            broken |= session.batch_execute(&sql).await.is_err();
            if broken {
                break;
            }
        }
        if random.below(20) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let end = if broken || random.below(10) == 0 { "rollback" } else { "commit" };
        drop(session.batch_execute(end).await);
    }
}

/// Copies the table with an epoch of its own. Returns the version below which it is swept, and the
/// position that must be reached before.
pub async fn copy_table(mirror: &Mirror) -> (u128, Lsn) {
    copy_leaves(mirror, |_| true).await
}

/// As [`copy_table`], of the leaves of these names.
pub async fn copy_leaves(mirror: &Mirror, which: impl Fn(&str) -> bool) -> (u128, Lsn) {
    let session = mirror.source.session().await;
    let cancel = CancellationToken::new();
    let epoch = epoch::take(&session, &cancel, |_| ()).await.unwrap();
    let version = Version::epoch(0, epoch.0);
    let plan = mirror.plan(0);
    let mut shape = describe::describe(&session, std::slice::from_ref(&plan.source)).await.unwrap().remove(0);
    shape.leaves.retain(|leaf| which(&leaf.name.name));
    let mut end = Lsn::ZERO;
    for partition in partition::plan(&session, &shape.leaves, 64 << 10).await.unwrap() {
        let progress = CopyProgress::default();
        let job = CopyJob {
            session: &session,
            sink: &mirror.sink,
            plan: &plan,
            partition: &partition,
            version,
            id: InsertId {
                mirror: mirror.config.mirror.clone(),
                attempt: "copy".into(),
                table: plan.destination.clone(),
                position: partition.first_block.to_string(),
            },
            limits: CopyLimits::default(),
            progress: &progress,
            cancel: &cancel,
        };
        match copy::run(job, || true).await.unwrap() {
            CopyOutcome::Done { read_end, .. } => end = end.max(read_end),
            other => panic!("nobody touches the table: {other:?}"),
        }
    }
    (version.0, end)
}

pub async fn sweep(mirror: &Mirror, running: &mut Running, (below, end): (u128, Lsn)) {
    mirror.source.run("select pg_logical_emit_message(false, 'test', '')").await;
    running.reached(end).await;
    mirror.sink.purge(&mirror.plan(0), below, "").await.unwrap();
}

async fn converge(seed: u64) {
    let mut mirror = Mirror::new(
        "create table hot (id bigint primary key, v int, big text);
         alter table hot alter big set storage external;
         insert into hot select i, i, repeat('x', 100) from generate_series(0, 2000) i",
        &["hot"],
    )
    .await;
    mirror.config.limits.max_rows = 50;
    mirror.config.binary = seed.is_multiple_of(2);
    let writers: Vec<_> = {
        let mut writers = Vec::new();
        for n in 0..3 {
            writers.push(tokio::spawn(write(mirror.source.session().await, seed * 10 + n, 120)));
        }
        writers
    };
    let mut running = mirror.start_unconfirmed();
    let copied = copy_table(&mirror).await;
    sweep(&mirror, &mut running, copied).await;
    // A second attempt repeats what the first has written, while the table is copied again.
    running.stop().await;
    let mut running = mirror.start();
    let copied = copy_table(&mirror).await;
    sweep(&mirror, &mut running, copied).await;
    for writer in writers {
        writer.await.unwrap();
    }
    mirror.caught_up(&mut running).await;
    let row = "id::text || ' ' || v::text || ' ' || md5(big)";
    let sink = "concat(toString(id), ' ', toString(v), ' ', lower(hex(MD5(big))))";
    assert!(mirror.assert_same(0, row, sink).await > 1900, "seed {seed}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_and_stream_converge_under_writers() {
    for seed in [1, 2] {
        converge(seed).await;
    }
}
