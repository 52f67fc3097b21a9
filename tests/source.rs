//! A source's own life: it restarts, in order and without, and it gives a slot up that keeps too much of
//! its log. And transactions that are open when a slot is made, or a table is copied again.

use std::time::Duration;

use libtest_mimic::Trial;
use millrace_embedded::cache::Cache;
use millrace_embedded::postgres::{Cluster, STOP_SIGNAL, Settings, USER, install};
use millrace_proto::v1::{self as api, mirror, peer, settings, stream, table};
use nix::sys::signal::Signal;
use tokio_postgres::Client;

use crate::support::bed::{Bed, SOON, connect};
use crate::support::{equal, stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("source::restarts_in_order_and_without", restarts_in_order_and_without),
        test("source::gives_up_a_slot_that_keeps_too_much", gives_up_a_slot_that_keeps_too_much),
        test("source::has_open_transactions_when_a_slot_is_made", open_when_a_slot_is_made),
        test("source::has_open_transactions_when_a_resync_begins", open_when_a_resync_begins),
    ]
}

/// A PostgreSQL of the test's own.
struct Own {
    cluster: Cluster,
    settings: Settings,
}

impl Own {
    async fn new(bed: &Bed, parameters: &[(&str, &str)]) -> Self {
        let dir = stack::dir().join(&bed.name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut settings = Settings {
            name: bed.name.clone(),
            dir: dir.join("data"),
            port: listener.local_addr().expect("its address").port(),
            password: "own".to_owned(),
            log: dir.join("source.log"),
            parameters: Settings::source_parameters(),
        };
        drop(listener);
        for (name, value) in parameters {
            settings.parameters.insert((*name).to_owned(), (*value).to_owned());
        }
        Self { cluster: start(&settings).await, settings }
    }

    async fn session(&self) -> Client {
        connect(&self.settings.url(), None).await
    }

    /// Creates a mirror of `public.t`, which begins anew by itself if its slot is lost.
    async fn mirror(&self, bed: &Bed) {
        let own = api::Peer {
            name: format!("{}-own", bed.name),
            config: Some(peer::Config::Postgres(api::PostgresConfig {
                host: "127.0.0.1".to_owned(),
                port: u32::from(self.settings.port),
                user: USER.to_owned(),
                password: Some("own".to_owned()),
                database: "postgres".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let source = own.name.clone();
        let request = api::CreatePeerRequest { peer: Some(own), ..Default::default() };
        bed.peers().create_peer(request).await.expect("a peer");
        let settings = api::Settings {
            on_slot_lost: settings::OnSlotLost::ResyncMirror.into(),
            snapshot: Some(api::SnapshotSettings { partition_bytes: Some(1 << 20), ..Default::default() }),
            ..Default::default()
        };
        let request = api::Mirror { source, settings: Some(settings), ..bed.mirror(&["public.t"]) };
        bed.create(request).await.expect("a mirror");
    }

    /// Stops it and starts it again.
    async fn restart(&mut self, signal: Signal) {
        assert!(self.cluster.process().stop(signal, Duration::from_secs(20)).await, "{signal} stops it");
        self.cluster = start(&self.settings).await;
    }

    async fn wait_equal(&self, bed: &Bed) -> u64 {
        let source = self.session().await;
        wait::until("t equal", SOON, || equal::compare(&source, &bed.clickhouse, "t", "t")).await
    }
}

async fn start(settings: &Settings) -> Cluster {
    let binaries = install(&Cache::open().expect("a cache")).expect("PostgreSQL");
    Cluster::start(&binaries, settings).await.expect("a source")
}

async fn events(bed: &Bed) -> Vec<String> {
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.into_iter().map(|event| format!("{} {}", event.code, event.message)).collect()
}

/// During the copy and while it streams; what was committed before each is there afterwards, and nothing
/// is copied a second time.
async fn restarts_in_order_and_without(bed: Bed) {
    let mut own = Own::new(&bed, &[]).await;
    let sql = own.session().await;
    sql.batch_execute("create table t (id int primary key, v int, filler text); insert into t select i, i, repeat('x', 1000) from generate_series(1, 8000) i").await.expect("a table");
    own.mirror(&bed).await;
    bed.wait_for("a partition is copied", |mirror| mirror.tables[0].partitions_done > 0).await;
    for signal in [Signal::SIGQUIT, STOP_SIGNAL] {
        let sql = own.session().await;
        sql.batch_execute("update t set v = -v where id % 3 = 0; delete from t where id % 100 = 7")
            .await
            .expect("writes");
        drop(sql);
        own.restart(signal).await;
        let sql = own.session().await;
        sql.batch_execute(
            "update t set v = v + 1 where id % 5 = 0; insert into t select max(id) + 1, 0, 'late' from t",
        )
        .await
        .expect("writes");
        bed.wait_state(mirror::State::Running).await;
        own.wait_equal(&bed).await;
    }
    let copied = events(&bed).await.iter().filter(|event| event.starts_with("COPY_FINISHED ")).count();
    assert_eq!(copied, 1, "nothing had to be copied again");
}

async fn gives_up_a_slot_that_keeps_too_much(bed: Bed) {
    let own = Own::new(
        &bed,
        &[("max_slot_wal_keep_size", "1MB"), ("min_wal_size", "32MB"), ("max_wal_size", "48MB")],
    )
    .await;
    let sql = own.session().await;
    sql.batch_execute("create table t (id int primary key, v int); create table other (v text); insert into t select i, i from generate_series(1, 1000) i").await.expect("a table");
    own.mirror(&bed).await;
    bed.wait_state(mirror::State::Running).await;
    let pause = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(pause).await.expect("a pause");
    // What is lost with the log: an update, a delete, and a key that comes and goes.
    sql.batch_execute("update t set v = -v where id < 10; delete from t where id between 10 and 20; insert into t values (5000, 1)").await.expect("writes");
    wait::until("the slot is lost", SOON, || async {
        let fill = "insert into other select repeat('x', 1000) from generate_series(1, 10000)";
        for statement in [fill, "delete from t where id = 5000", "select pg_switch_wal()", "checkpoint"] {
            sql.batch_execute(statement).await.map_err(|error| error.to_string())?;
        }
        let status = "select coalesce(string_agg(wal_status, ','), '') from pg_replication_slots";
        let status: String = sql.query_one(status, &[]).await.map_err(|error| error.to_string())?.get(0);
        if status == "lost" { Ok(()) } else { Err(status) }
    })
    .await;
    let resume = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(resume).await.expect("a resume");
    assert_eq!(own.wait_equal(&bed).await, 989);
    bed.wait_state(mirror::State::Running).await;
    sql.batch_execute("insert into t values (6000, 1)").await.expect("a write");
    assert_eq!(own.wait_equal(&bed).await, 990);
    assert!(events(&bed).await.iter().any(|event| event.starts_with("SLOT_LOST")));
}

/// What it wrote before is told by no change of a slot that is made meanwhile: slot and copy wait for it.
async fn open_when_a_slot_is_made(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 100) i").await;
    let open = bed.session().await;
    open.batch_execute("begin; insert into t values (-1, -1); update t set v = 7 where id = 7; delete from t where id = 8; savepoint s; update t set v = 9 where id = 9; rollback to s").await.expect("a transaction");
    bed.create(bed.mirror(&["public.t"])).await.expect("a mirror");
    bed.sql("update t set v = 1 where id > 50").await;
    // The mirror says whom its slot waits for, and no value.
    let pid: i32 = open.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get(0);
    open.batch_execute("/* secret */ select 4711").await.expect("a statement");
    let waits = bed
        .wait_for("the stream says whom its slot waits for", |mirror| {
            mirror.streams.iter().any(|stream| stream.reason.contains(&format!("process {pid} ")))
        })
        .await;
    assert_eq!((waits.state(), waits.streams[0].verdict()), (mirror::State::Setup, stream::Verdict::Stalled));
    let reason = &waits.streams[0].reason;
    assert!(reason.starts_with("SOURCE_BLOCKED: ") && !reason.contains("4711"), "{reason}");
    open.batch_execute("update t set v = 10 where id = 10; commit").await.expect("its end");
    bed.wait_state(mirror::State::Running).await;
    let went_on = bed.get().await.expect("the mirror");
    assert_ne!(went_on.streams[0].verdict(), stream::Verdict::Stalled, "{went_on:?}");
    assert_eq!(bed.wait_equal("t", "t").await, 100);
}

async fn open_when_a_resync_begins(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    let open = bed.session().await;
    open.batch_execute("set application_name = 'the one who holds it up'; begin; insert into t values (-1, -1); update t set v = 7 where id = 7; delete from t where id = 8").await.expect("a transaction");
    let request = api::ResyncTableRequest {
        name: bed.name.clone(),
        table: "public.t".to_owned(),
        ..Default::default()
    };
    bed.mirrors().resync_table(request).await.expect("a resync");
    bed.wait_for("the table says who holds it up", |mirror| {
        mirror.tables[0].blocked_by.contains("the one who holds it up")
    })
    .await;
    bed.sql("update t set v = 1 where id > 50; insert into t values (200, 0)").await;
    open.batch_execute("update t set v = 10 where id = 10; commit").await.expect("its end");
    bed.wait_table("public.t", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("t", "t").await, 101);
}
