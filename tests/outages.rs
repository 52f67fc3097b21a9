//! Outages of what is not ours, and a clock that lies: nothing is lost, and it goes on by itself.

use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, peer, stream, table};

use crate::support::bed::Bed;
use crate::support::cell::Cell;
use crate::support::proxy::Proxy;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("outages::clickhouse_is_gone_for_a_while", clickhouse_is_gone_for_a_while),
        test("outages::clickhouse_has_too_many_parts", clickhouse_has_too_many_parts),
        test("outages::the_source_is_gone_for_a_while", the_source_is_gone_for_a_while),
        test(
            "outages::a_mirror_is_dropped_while_its_source_is_gone",
            a_mirror_is_dropped_while_its_source_is_gone,
        ),
        test("outages::a_stepped_clock_changes_nothing", a_stepped_clock_changes_nothing),
    ]
}

async fn create_peer(bed: &Bed, mut peer: api::Peer) -> String {
    peer.name = format!("{}-proxied", bed.name);
    let name = peer.name.clone();
    let request = api::CreatePeerRequest { peer: Some(peer), ..Default::default() };
    bed.peers().create_peer(request).await.expect("a peer");
    name
}

async fn wait_stalled(bed: &Bed) -> api::Mirror {
    bed.wait_for("the stream is stalled", |mirror| {
        mirror.streams.iter().any(|s| s.verdict() == stream::Verdict::Stalled && !s.reason.is_empty())
    })
    .await
}

/// Rows of several partitions.
const MANY_ROWS: &str = "create table t (id int primary key, v text, filler text); insert into t select i, 'old', repeat('x', 500) from generate_series(1, 20000) i";

/// Cuts a mirror of [`MANY_ROWS`] off one of its peers while it copies, and again while it streams; rows
/// are written each time. The second cut stays.
async fn cut_twice(bed: &Bed, proxy: &Proxy, mut request: api::Mirror) {
    let snapshot = api::SnapshotSettings { partition_bytes: Some(1 << 20), ..Default::default() };
    request.settings = Some(api::Settings { snapshot: Some(snapshot), ..Default::default() });
    bed.create(request).await.expect("a mirror");
    bed.wait_for("a partition is copied", |mirror| mirror.tables[0].partitions_done > 0).await;
    proxy.cut();
    bed.sql("update t set v = 'new' where id % 10 = 0; delete from t where id % 100 = 1").await;
    proxy.mend();
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("t", "t").await, 19_800);
    proxy.cut();
    bed.sql("insert into t select i, 'while it is gone', '' from generate_series(30001, 31000) i; update t set id = -id where id % 7 = 0").await;
}

async fn clickhouse_is_gone_for_a_while(bed: Bed) {
    bed.sql(MANY_ROWS).await;
    let target = stack::endpoints().clickhouse.rsplit_once('@').expect("a user").1.to_owned();
    let proxy = Proxy::start(&target).await;
    let mut destination = bed.destination_peer();
    let Some(peer::Config::Clickhouse(config)) = &mut destination.config else {
        unreachable!("a destination")
    };
    config.url = format!("http://{}", proxy.address);
    let mut request = bed.mirror(&["public.t"]);
    request.destination = create_peer(&bed, destination).await;
    cut_twice(&bed, &proxy, request).await;
    let stalled = wait_stalled(&bed).await;
    assert!(
        stalled.tables.iter().all(|table| table.state() == table::State::Streaming),
        "an outage is no error of a table"
    );
    proxy.mend();
    assert_eq!(bed.wait_equal("t", "t").await, 20_800);
}

/// ClickHouse refuses inserts into a table whose parts are not merged: they wait, the others go on.
async fn clickhouse_has_too_many_parts(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); create table other (id int primary key)").await;
    bed.mirror_streaming(&["public.t", "public.other"]).await;
    bed.clickhouse.query("system stop merges t").await.expect("no merges");
    bed.clickhouse.query("alter table t modify setting parts_to_delay_insert = 1, parts_to_throw_insert = 2, max_delay_to_insert = 1").await.expect("a limit of parts");
    for id in 1..=4 {
        bed.sql(&format!("insert into t values ({id}, 0)")).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    bed.sql("insert into other select generate_series(1, 100); update t set v = 1").await;
    assert_eq!(bed.wait_equal("other", "other").await, 100, "another table is not held up");
    let held = wait_stalled(&bed).await;
    assert_eq!(held.state(), mirror::State::Running, "{held:?}");
    bed.clickhouse.query("system start merges t").await.expect("merges");
    bed.clickhouse.query("optimize table t final").await.expect("a merge");
    assert_eq!(bed.wait_equal("t", "t").await, 4);
}

async fn the_source_is_gone_for_a_while(bed: Bed) {
    bed.sql(MANY_ROWS).await;
    let mut source = bed.source_peer();
    let Some(peer::Config::Postgres(config)) = &mut source.config else { unreachable!("a source") };
    let proxy = Proxy::start(&format!("{}:{}", config.host, config.port)).await;
    config.port = proxy.address.port().into();
    let mut request = bed.mirror(&["public.t"]);
    request.source = create_peer(&bed, source).await;
    cut_twice(&bed, &proxy, request).await;
    proxy.mend();
    assert_eq!(bed.wait_equal("t", "t").await, 20_800);
}

/// The mirror is kept, unless it is to go by force: then what cannot be removed is named, and is removed
/// when the source is back.
async fn a_mirror_is_dropped_while_its_source_is_gone(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let mut source = bed.source_peer();
    let Some(peer::Config::Postgres(config)) = &mut source.config else { unreachable!("a source") };
    let proxy = Proxy::start(&format!("{}:{}", config.host, config.port)).await;
    config.port = proxy.address.port().into();
    let mut request = bed.mirror(&["public.t"]);
    request.source = create_peer(&bed, source).await;
    bed.create(request).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    proxy.cut();
    let slot = &mirror.streams[0].slot;
    let delete = |force| api::DeleteMirrorRequest { name: bed.name.clone(), force, ..Default::default() };
    let kept = bed.mirrors().delete_mirror(delete(false)).await.expect_err("the slot would stay");
    assert_eq!(kept.code(), tonic::Code::Unavailable);
    assert!(kept.message().contains(slot) && kept.message().contains("not dropped"), "{kept:?}");
    assert_eq!(bed.get().await.expect("it is kept").state(), mirror::State::Dropping);
    let dropped = bed.mirrors().delete_mirror(delete(true)).await.expect("an answer").into_inner();
    assert!(dropped.done && dropped.leftovers.iter().any(|left| left.contains(slot)), "{dropped:?}");
    assert_eq!(bed.get().await.expect_err("it is gone").code(), tonic::Code::NotFound);

    proxy.mend();
    let clean_up =
        |validate_only| api::CleanupPeerRequest { name: format!("{}-pg", bed.name), validate_only };
    let mut peers = bed.peers();
    let found = peers.cleanup_peer(clean_up(true)).await.expect("an answer").into_inner();
    let expected = [format!("replication slot {slot}"), format!("publication {slot}")];
    assert_eq!((found.removed.as_slice(), found.leftovers.len()), (&expected[..], 0));
    let removed = peers.cleanup_peer(clean_up(false)).await.expect("an answer").into_inner();
    assert_eq!(removed, found, "it was only looked at before");
    let none = peers.cleanup_peer(clean_up(false)).await.expect("an answer").into_inner();
    assert_eq!(none, api::CleanupPeerResponse::default());
}

/// Answers what time it is wrongly, by `CLOCK_STEP` seconds.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(id, now);
    const char *step = getenv("CLOCK_STEP");
    if (answer == 0 && id == CLOCK_REALTIME && step) now->tv_sec += atol(step);
    return answer;
}
"#;

/// A library that, loaded first, sets a process' wall clock by `CLOCK_STEP`.
fn lying_clock() -> PathBuf {
    let (code, library) = (stack::dir().join("clock.c"), stack::dir().join("clock.so"));
    std::fs::write(&code, CLOCK).expect("a file");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &code])
        .arg("-ldl")
        .output()
        .expect("a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    library
}

/// The worker that copies is a year ahead, the one that streams its changes a year behind: newer rows
/// win all the same, because versions are positions of the log.
async fn a_stepped_clock_changes_nothing(mut bed: Bed) {
    const YEAR: &str = "31536000";
    let library = lying_clock();
    let library = library.to_str().expect("a path").to_owned();
    let cell = Cell::new(&mut bed).await;
    bed.sql("create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 1000) i").await;
    let mut ahead =
        cell.worker_with(&[("LD_PRELOAD", library.clone()), ("CLOCK_STEP", YEAR.to_owned())]).await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("update t set v = 1 where id % 2 = 0; insert into t values (2000, 1)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1_001);
    let synced = "select max(_synced_at) > now() + interval 300 day from t";
    assert_eq!(bed.clickhouse.query(synced).await.expect("a time").trim(), "1", "the clock is ahead");
    ahead.kill();
    let _behind = cell.worker_with(&[("LD_PRELOAD", library), ("CLOCK_STEP", format!("-{YEAR}"))]).await;
    bed.sql("update t set v = 2 where id % 3 = 0; delete from t where id % 5 = 0; update t set id = id + 5000 where id % 7 = 0").await;
    assert_eq!(bed.wait_equal("t", "t").await, 800);
    let synced = "select min(_synced_at) < now() - interval 300 day from t";
    assert_eq!(bed.clickhouse.query(synced).await.expect("a time").trim(), "1", "the clock is behind");
}
