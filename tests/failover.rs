//! Sources that are not what they were: a slot that is gone, a log that cannot be decoded, a standby
//! that was promoted. Changes are never skipped: all is copied again, or the stream goes on, or the
//! mirror says why it does not.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use millrace_embedded::cache::Cache;
use millrace_embedded::postgres::{Cluster, Settings, install};
use millrace_proto::v1::{self as api, mirror, peer, settings};
use nix::sys::signal::Signal;
use tokio_postgres::Client;

use crate::support::bed::{Bed, SOON, connect};
use crate::support::{equal, stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("failover::lost_slot_begins_anew", lost_slot_begins_anew),
        test("failover::lost_slot_waits_for_resume", lost_slot_waits_for_resume),
        test("failover::stuck_decoding_begins_anew", stuck_decoding_begins_anew),
        test("failover::standby_with_the_slot_goes_on", |bed| standby_with_the_slots(bed, 1)),
        test("failover::standby_with_the_slots_of_two_streams", |bed| standby_with_the_slots(bed, 2)),
        test("failover::standby_without_it_begins_anew", |bed| standby_without_them(bed, 1)),
        test("failover::standby_without_those_of_two_streams", |bed| standby_without_them(bed, 2)),
    ]
}

/// A mirror of these tables that begins anew by itself.
fn anew(bed: &Bed, tables: &[&str]) -> api::Mirror {
    let policy =
        api::Settings { on_slot_lost: settings::OnSlotLost::ResyncMirror.into(), ..Default::default() };
    api::Mirror { settings: Some(policy), ..bed.mirror(tables) }
}

/// Ends the walsender on the mirror's slot and drops the slot before the next attempt takes it.
async fn lose_slot(bed: &Bed) {
    let lose = "do $$ declare slot text := (select slot_name from pg_replication_slots where database = current_database());
        begin loop
            perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = slot;
            begin perform pg_drop_replication_slot(slot); return; exception when object_in_use then null; end;
        end loop; end $$";
    bed.sql(lose).await;
}

async fn told(bed: &Bed, code: &str) -> bool {
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.iter().any(|event| event.code == code)
}

async fn lost_slot_begins_anew(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 1000) i").await;
    bed.create(anew(&bed, &["public.t"])).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    lose_slot(&bed).await;
    // Whoever made only a new slot would never hear of these.
    bed.sql("delete from t where id <= 10; update t set v = -v where id > 990").await;
    assert_eq!(bed.wait_equal("t", "t").await, 990);
    bed.wait_state(mirror::State::Running).await;
    bed.sql("insert into t values (5000, 1)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 991);
    assert!(told(&bed, "SLOT_LOST").await);
}

async fn lost_slot_waits_for_resume(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    lose_slot(&bed).await;
    bed.sql("delete from t where id <= 10").await;
    let failed = bed.wait_state(mirror::State::Failed).await;
    let error = failed.error.expect("why");
    assert_eq!(error.code, "SLOT_LOST");
    assert!(error.remedy.contains("Resume"), "{error:?}");
    let request = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(request).await.expect("a resume");
    assert_eq!(bed.wait_equal("t", "t").await, 90);
    bed.wait_state(mirror::State::Running).await;
}

/// A type whose values can be stored but not shown: every attempt to decode the row ends at it.
async fn stuck_decoding_begins_anew(bed: Bed) {
    bed.sql(
        "create type dumb; create function dumb_in(cstring) returns dumb language internal immutable strict as 'int4in';
         create function dumb_out(dumb) returns cstring language internal immutable strict as 'enum_out';
         create type dumb (input = dumb_in, output = dumb_out, internallength = 4, passedbyvalue, alignment = int4);
         create table t (id int primary key, d dumb); insert into t select i from generate_series(1, 100) i",
    )
    .await;
    let mut request = anew(&bed, &["public.t"]);
    request.tables[0].exclude = vec!["d".to_owned()];
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("insert into t values (200, '7')").await;
    wait::until("DECODING_STUCK", SOON, || async {
        told(&bed, "DECODING_STUCK").await.then_some(()).ok_or_else(String::new)
    })
    .await;
    bed.sql("insert into t values (201)").await;
    wait::until("row 201", SOON, || async {
        let seen = bed.clickhouse.query("select count() from t final where id in (200, 201)").await?;
        if seen.trim() == "2" { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// A primary with a standby, at two ports of their own.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    primary_settings: Settings,
    standby_settings: Settings,
}

impl Pair {
    async fn new(name: &str) -> Self {
        let dir = stack::dir().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let settings = |part: &str| Settings {
            name: format!("{name}-{part}"),
            dir: dir.join(part),
            port: std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .expect("a port")
                .port(),
            password: "pair".to_owned(),
            log: dir.join(format!("{part}.log")),
            parameters: Settings::source_parameters(),
        };
        let (primary_settings, mut standby_settings) = (settings("primary"), settings("standby"));
        let binaries = install(&Cache::open().expect("a cache")).expect("PostgreSQL");
        let mut primary = Cluster::start(&binaries, &primary_settings).await.expect("a primary");
        let sql = connect(&primary_settings.url(), None).await;
        sql.batch_execute("select pg_create_physical_replication_slot('standby')").await.expect("a slot");
        drop(sql);
        assert!(primary.stop().await);
        let copied =
            Command::new("cp").arg("-a").arg(&primary_settings.dir).arg(&standby_settings.dir).status();
        assert!(copied.expect("cp").success());
        std::fs::write(standby_settings.dir.join("standby.signal"), "").expect("a signal file");
        let conninfo = format!(
            "host=127.0.0.1 port={} user={} password=pair dbname=postgres",
            primary_settings.port,
            millrace_embedded::postgres::USER
        );
        for (name, value) in [
            ("primary_conninfo", conninfo.as_str()),
            ("primary_slot_name", "standby"),
            ("hot_standby_feedback", "on"),
        ] {
            standby_settings.parameters.insert(name.to_owned(), value.to_owned());
        }
        let primary = Cluster::start(&binaries, &primary_settings).await.expect("the primary again");
        let standby = Cluster::start(&binaries, &standby_settings).await.expect("a standby");
        Self { primary, standby, primary_settings, standby_settings }
    }

    async fn on_primary(&self) -> Client {
        connect(&self.primary_settings.url(), None).await
    }

    async fn on_standby(&self) -> Client {
        connect(&self.standby_settings.url(), None).await
    }

    /// Waits until the standby has everything that the primary has now.
    async fn caught_up(&self) {
        let (primary, standby) = (self.on_primary().await, self.on_standby().await);
        let end: String =
            primary.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.expect("an end").get(0);
        let sql = format!("select pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
        wait::until("the standby", SOON, || async {
            let there: bool = standby.query_one(&sql, &[]).await.map_err(|error| error.to_string())?.get(0);
            there.then_some(()).ok_or_else(String::new)
        })
        .await;
    }

    /// The primary dies; the standby is promoted and takes over its address.
    async fn fail_over(&mut self) {
        kill(&mut self.primary).await;
        let sql = self.on_standby().await;
        sql.batch_execute("select pg_promote()").await.expect("a promotion");
        drop(sql);
        assert!(self.standby.stop().await);
        self.standby_settings.port = self.primary_settings.port;
        let binaries = install(&Cache::open().expect("a cache")).expect("PostgreSQL");
        self.standby = Cluster::start(&binaries, &self.standby_settings).await.expect("the new primary");
    }

    /// Mirrors `t` and `u`, in so many streams.
    async fn mirror(&self, bed: &Bed, streams: u32) {
        let own = api::Peer {
            name: format!("{}-own", bed.name),
            config: Some(peer::Config::Postgres(api::PostgresConfig {
                host: "127.0.0.1".to_owned(),
                port: u32::from(self.primary_settings.port),
                user: millrace_embedded::postgres::USER.to_owned(),
                password: Some("pair".to_owned()),
                database: "postgres".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let source = own.name.clone();
        let request = api::CreatePeerRequest { peer: Some(own), ..Default::default() };
        bed.peers().create_peer(request).await.expect("a peer");
        let mut request = api::Mirror { source, ..anew(bed, &["public.t", "public.u"]) };
        request.settings.get_or_insert_default().streams = Some(streams);
        bed.create(request).await.expect("a mirror");
        bed.wait_state(mirror::State::Running).await;
    }

    async fn wait_equal(&self, bed: &Bed) -> u64 {
        let source = self.on_primary().await;
        wait::until("u equal", SOON, || equal::compare(&source, &bed.clickhouse, "u", "u")).await;
        wait::until("t equal", SOON, || equal::compare(&source, &bed.clickhouse, "t", "t")).await
    }
}

/// Without a shutdown: what was not sent is not sent any more.
async fn kill(cluster: &mut Cluster) {
    assert!(cluster.process().stop(Signal::SIGQUIT, Duration::from_secs(10)).await);
}

/// Number of copies that came to their end.
async fn copies(bed: &Bed) -> u32 {
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.iter().filter(|event| event.code == "COPY_FINISHED").count() as u32
}

async fn standby_with_the_slots(bed: Bed, streams: u32) {
    let mut pair = Pair::new(&bed.name).await;
    let sql = pair.on_primary().await;
    sql.batch_execute("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 1000) i; create table u as table t; alter table u add primary key (id)").await.expect("tables");
    pair.mirror(&bed, streams).await;
    sql.batch_execute(
        "update t set v = 0 where id < 10; delete from t where id = 10; delete from u where id = 10",
    )
    .await
    .expect("writes");
    pair.wait_equal(&bed).await;
    // The slot is on the standby, as far as it is on the primary.
    let standby = pair.on_standby().await;
    wait::until("the slot on the standby", SOON, || async {
        sql.batch_execute("select pg_log_standby_snapshot()").await.map_err(|error| error.to_string())?;
        standby
            .batch_execute("select pg_sync_replication_slots()")
            .await
            .map_err(|error| error.to_string())?;
        let ready = "select count(*) from pg_replication_slots where synced and not temporary";
        let ready: i64 = standby.query_one(ready, &[]).await.map_err(|error| error.to_string())?.get(0);
        if ready == i64::from(streams) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    drop(standby);
    pair.caught_up().await;
    drop(sql);
    pair.fail_over().await;
    let sql = pair.on_primary().await;
    sql.batch_execute(
        "insert into t values (5000, 1); delete from t where id = 11; update u set v = -1 where id < 9",
    )
    .await
    .expect("writes");
    assert_eq!(pair.wait_equal(&bed).await, 999);
    assert_eq!(copies(&bed).await, 2, "nothing had to be copied again");
    assert!(told(&bed, "SOURCE_TIMELINE").await);
}

async fn standby_without_them(bed: Bed, streams: u32) {
    let mut pair = Pair::new(&bed.name).await;
    let sql = pair.on_primary().await;
    sql.batch_execute("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 1000) i; create table u as table t; alter table u add primary key (id)").await.expect("tables");
    pair.mirror(&bed, streams).await;
    pair.caught_up().await;
    // Of these the standby hears nothing: they are in ClickHouse, and never were.
    kill(&mut pair.standby).await;
    sql.batch_execute("insert into t select i, -i from generate_series(2000, 2100) i; update t set v = 77 where id = 5; delete from t where id = 6; delete from u where id > 500").await.expect("writes");
    pair.wait_equal(&bed).await;
    drop(sql);
    kill(&mut pair.primary).await;
    let binaries = install(&Cache::open().expect("a cache")).expect("PostgreSQL");
    pair.standby = Cluster::start(&binaries, &pair.standby_settings).await.expect("the standby again");
    pair.fail_over().await;
    let sql = pair.on_primary().await;
    sql.batch_execute("insert into t values (3000, 3); insert into u values (3000, 3)")
        .await
        .expect("writes");
    assert_eq!(pair.wait_equal(&bed).await, 1001);
    assert!(told(&bed, "SOURCE_TIMELINE").await);
}
