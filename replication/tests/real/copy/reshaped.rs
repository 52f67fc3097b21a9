//! Tables that are altered between two reads of a copy, while they stream.

use std::sync::Arc;
use std::time::Duration;

use millrace_replication::clickhouse::InsertId;
use millrace_replication::copy::{self, CopyJob, CopyLimits, CopyOutcome, CopyProgress, covers};
use millrace_replication::postgres::partition::Partition;
use millrace_replication::postgres::{Session, describe, epoch, partition};
use millrace_replication::stream::Report;
use millrace_replication::table::TablePlan;
use millrace_replication::version::Version;
use millrace_terms::{Code, Lsn};
use tokio_util::sync::CancellationToken;

use crate::mirror::{Mirror, Running};

const T: &str =
    "create table t (id bigint primary key, a text not null, n int, d numeric(10, 2), filler text);
    alter table t alter filler set storage plain;
    insert into t select i, 'old', i, i, repeat('x', 1000) from generate_series(1, 400) i";

/// A copy of the first table of a mirror, read partition by partition.
struct Copying<'a> {
    mirror: &'a Mirror,
    session: Session,
    version: Version,
    partitions: Vec<Partition>,
    read_end: Lsn,
}

impl<'a> Copying<'a> {
    async fn begin(mirror: &'a Mirror) -> Self {
        let session = mirror.source.session().await;
        let epoch = epoch::take(&session, &CancellationToken::new(), |_| ()).await.unwrap();
        let plan = mirror.plan(0);
        let shape = describe::describe(&session, std::slice::from_ref(&plan.source)).await.unwrap().remove(0);
        covers(&plan, &shape).unwrap();
        let (version, partitions) = (Version::epoch(0, epoch.0), Vec::new());
        let mut copying = Self { mirror, session, version, partitions, read_end: Lsn::ZERO };
        copying.plan().await;
        copying
    }

    async fn plan(&mut self) {
        let name = self.mirror.plan(0).source.clone();
        let shape = describe::describe(&self.session, &[name]).await.unwrap().remove(0);
        self.partitions = partition::plan(&self.session, &shape.leaves, 64 << 10).await.unwrap();
        assert!(self.partitions.len() > 4, "{}", self.partitions.len());
    }

    async fn copy(&mut self, at: usize, plan: &Arc<TablePlan>) -> CopyOutcome {
        let (progress, cancel) = (CopyProgress::default(), CancellationToken::new());
        let job = CopyJob {
            session: &self.session,
            sink: &self.mirror.sink,
            plan,
            partition: &self.partitions[at],
            version: self.version,
            id: InsertId {
                mirror: self.mirror.config.mirror.clone(),
                attempt: "copy".into(),
                table: plan.destination.clone(),
                position: at.to_string(),
            },
            limits: CopyLimits::default(),
            progress: &progress,
            cancel: &cancel,
        };
        let outcome = copy::run(job, || true).await.unwrap();
        if let CopyOutcome::Done { read_end, .. } = outcome {
            self.read_end = self.read_end.max(read_end);
        }
        outcome
    }

    /// The rest, by the plan that the stream has told last.
    async fn copy_rest(&mut self, from: usize, running: &Running) {
        for at in from..self.partitions.len() {
            let plan = last_plan(self.mirror, running).await;
            let outcome = self.copy(at, &plan).await;
            assert!(matches!(outcome, CopyOutcome::Done { .. }), "{outcome:?}");
        }
    }

    async fn finish(self, running: &mut Running) {
        self.mirror.source.run("select pg_logical_emit_message(false, 'test', '')").await;
        running.reached(self.read_end).await;
        self.mirror.sink.purge(&self.mirror.plan(0), self.version.0, "").await.unwrap();
    }
}

/// The plan that the stream told last, when ClickHouse's table fits it.
async fn last_plan(mirror: &Mirror, running: &Running) -> Arc<TablePlan> {
    loop {
        let told = running.reports.lock().unwrap().iter().rev().find_map(|report| match report {
            Report::Followed { plan, .. } => Some(plan.clone()),
            _ => None,
        });
        match told {
            None => return mirror.plan(0),
            Some(plan) if plan.seen.pending.is_empty() => return plan,
            Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Copies half of a table, alters it by `change`, and copies the rest: once before the stream is told
/// of the change, by a write of it (`later`), and once after it. Each time both sides are equal in `columns`.
async fn altered(change: &str, later: &str, columns: &[&str]) {
    for told_before in [false, true] {
        let mirror = Mirror::new(T, &["t"]).await;
        let mut running = mirror.start();
        let mut copying = Copying::begin(&mirror).await;
        for at in 0..2 {
            let plan = mirror.plan(0);
            copying.copy(at, &plan).await;
        }
        mirror.source.run(change).await;
        if told_before {
            mirror.source.run(later).await;
            mirror.caught_up(&mut running).await;
        }
        copying.copy_rest(2, &running).await;
        if !told_before {
            mirror.source.run(later).await;
        }
        mirror.caught_up(&mut running).await;
        // Not while a column is renamed: ClickHouse would lose its values.
        last_plan(&mirror, &running).await;
        copying.finish(&mut running).await;
        let source: Vec<_> = columns.iter().map(|c| format!("coalesce({c}::text, '-')")).collect();
        let sink: Vec<_> = columns.iter().map(|c| format!("ifNull(toString({c}), '-')")).collect();
        let session = &mirror.source.sql;
        let table: String =
            session.query_one("select $1::oid::regclass::text", &[&mirror.plan(0).oid]).await.unwrap().get(0);
        let sql = format!("select {} as row from {table} order by 1", source.join(" || ' ' || "));
        let mut expected: Vec<String> =
            session.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let sql =
            format!("select {} as row from {} final", sink.join(" || ' ' || "), mirror.sink.qualified("t"));
        let mut found: Vec<String> = mirror.sink.query(&sql).await.unwrap();
        expected.sort();
        found.sort();
        let differ: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).take(3).collect();
        assert!(expected == found, "{change}: {} and {}: {differ:?}", expected.len(), found.len());
        assert_eq!(running.failed(), []);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_added_are_whole_in_the_end() {
    let write = "update t set c = id where id % 3 = 0";
    altered("alter table t add c int", write, &["id", "a", "c"]).await;
    altered("alter table t add c int not null default 5", write, &["id", "a", "c"]).await;
    altered(
        "alter table t add c timestamptz default now()",
        "insert into t values (1000, 'late')",
        &["id", "a"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_tables_that_are_renamed_are_read_by_their_present_names() {
    altered("alter table t rename a to b", "update t set b = 'new' where id % 3 = 0", &["id", "b"]).await;
    altered(
        "alter table t rename to \"Moved\"; alter table \"Moved\" rename a to b; create table t (id int)",
        "update \"Moved\" set b = 'new' where id % 3 = 0",
        &["id", "b"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_dropped_are_not_read() {
    altered("alter table t drop a", "update t set n = 0 where id % 3 = 0", &["id", "n"]).await;
    altered("alter table t drop a, add a int", "update t set a = id where id % 3 = 0", &["id", "n", "a"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_a_new_null_are_left_to_the_stream() {
    altered(
        "alter table t alter a drop not null; update t set a = null where id % 2 = 0",
        "update t set n = 0 where id % 3 = 0",
        &["id", "n", "a"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_type_ends_the_copy_and_a_longer_text_does_not() {
    let mirror = Mirror::new("create table t (id bigint primary key, v varchar(5), n numeric(10, 2), filler text); insert into t select i, 'a', 1, repeat('x', 1000) from generate_series(1, 400) i", &["t"]).await;
    let mut copying = Copying::begin(&mirror).await;
    let plan = mirror.plan(0);
    mirror.source.run("alter table t alter v type text; update t set v = 'a long text'").await;
    assert!(matches!(copying.copy(0, &plan).await, CopyOutcome::Done { .. }));
    mirror.source.run("alter table t alter n type numeric(14, 2)").await;
    // Twice, because the session goes on.
    for _ in 0..2 {
        match copying.copy(0, &plan).await {
            CopyOutcome::Reshaped(why) => assert_eq!(why.code(), Code::TableSchemaChanged),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plan_does_not_cover_is_found_at_the_epoch() {
    let changes = [
        ("alter table t add c int", false),
        ("alter table t drop a, add a text", false),
        ("alter table t alter d type numeric(14, 2)", false),
        ("alter table t alter a drop not null", false),
        ("alter table t drop constraint t_pkey, add primary key (id, a)", false),
        ("alter table t drop constraint t_pkey", false),
        ("alter table t replica identity full", true),
        ("alter table t drop a", true),
        ("alter table t rename a to b", true),
        ("alter table t add v int generated always as (id + 1) virtual", true),
        ("vacuum full t", true),
    ];
    for (change, is_covered) in changes {
        let mirror = Mirror::new(T, &["t"]).await;
        mirror.source.run(change).await;
        let session = mirror.source.session().await;
        let plan = mirror.plan(0);
        let shape = describe::describe(&session, std::slice::from_ref(&plan.source)).await.unwrap().remove(0);
        assert_eq!(covers(&plan, &shape).is_ok(), is_covered, "{change}");
    }
}

/// Rows go to pages that were read already, and the table is written anew, which no change tells.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_between_two_reads_are_not_lost() {
    for rewrite in ["vacuum full t", "cluster t using t_pkey"] {
        let mirror = Mirror::new(T, &["t"]).await;
        let mut running = mirror.start();
        let plan = mirror.plan(0);
        let mut copying = Copying::begin(&mirror).await;
        for at in 0..2 {
            copying.copy(at, &plan).await;
        }
        for statement in [
            "delete from t where id <= 20",
            "vacuum t",
            "update t set a = 'moved' where id between 300 and 320; update t set id = id + 1000 where id > 390",
        ] {
            mirror.source.run(statement).await;
        }
        let sql = "select count(*) from t where a = 'moved' and ctid < '(2,0)'";
        let moved: i64 = mirror.source.sql.query_one(sql, &[]).await.unwrap().get(0);
        assert!(moved > 0, "rows are in pages that were read");
        copying.copy_rest(2, &running).await;

        // Of a rewritten table nothing counts that was read of it before.
        let old = copying.partitions.clone();
        mirror.source.run(rewrite).await;
        for at in [0, old.len() - 1] {
            assert_eq!(copying.copy(at, &plan).await, CopyOutcome::Rewritten, "{rewrite}");
        }
        copying.plan().await;
        copying.copy_rest(0, &running).await;
        copying.finish(&mut running).await;
        mirror.caught_up(&mut running).await;
        let (row, sink) = ("id::text || ' ' || a", "concat(toString(id), ' ', a)");
        assert_eq!(mirror.assert_same(0, row, sink).await, 380);
        running.stop().await;
    }
}

/// The log tells the old names, or a column that is gone; the source is asked for what the log left out.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_found_under_new_names() {
    let ddl = "create table t (id bigint primary key, v int, big text, gone text); alter table t alter big set storage external, alter gone set storage external";
    for binary in [false, true] {
        let mut mirror = Mirror::new(ddl, &["t"]).await;
        mirror.config.binary = binary;
        mirror
            .source
            .run(
                "insert into t select i, 0, repeat(md5(i::text), 200), repeat('g', 5000) from generate_series(1, 20) i",
            )
            .await;
        // Of its own transaction: what the same one has written is remembered.
        mirror.source.run("update t set v = id").await;
        mirror
            .source
            .run("alter table t drop gone; alter table t rename big to huge; alter table t rename id to number; alter table t rename to \"It's moved\"")
            .await;
        let mut running = mirror.start();
        mirror.caught_up(&mut running).await;
        let (rows, sum, digest): (u64, i64, u64) = mirror
            .sink
            .query_one(&format!(
                "select count(), toInt64(sum(assumeNotNull(v))), countIf(big = repeat(lower(hex(MD5(toString(id)))), 200)) from {} final",
                mirror.sink.qualified("t")
            ))
            .await
            .unwrap();
        assert_eq!((rows, sum, digest), (20, 210, 20));
        assert_eq!(running.failed(), []);
        running.stop().await;
    }
}
