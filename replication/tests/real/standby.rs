//! A source that waits for a synchronous standby. It is a setting of the whole cluster, so each test
//! has one of its own.

use std::time::Duration;

use millrace_embedded::postgres::Cluster;
use millrace_replication::postgres::{dial, epoch};
use tokio_util::sync::CancellationToken;

use crate::mirror::Mirror;
use crate::servers::{Source, own_cluster};

async fn cluster(name: &str) -> (Cluster, Source) {
    let (cluster, config) = own_cluster(name).await;
    let sql = dial(&config, "test").await.unwrap();
    sql.batch_execute("set search_path = public").await.unwrap();
    (cluster, Source { config, sql, word: format!("{name}_{}", std::process::id()) })
}

/// Waits until so many commits wait for the standby.
async fn waiting_commits(mirror: &Mirror, count: i64) {
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    for _ in 0..500 {
        if mirror.source.sql.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no commit waits for the standby");
}

/// From here on commits wait for a standby that is not there. Gives the session that finds that out.
async fn commits_wait(mirror: &Mirror) -> tokio::task::JoinHandle<()> {
    mirror.source.run("alter system set synchronous_standby_names = 'nobody'").await;
    mirror.source.run("select pg_reload_conf()").await;
    // The setting holds when a commit waits: until then they go through.
    let probe = mirror.source.session().await;
    let probing = tokio::spawn(async move {
        for _ in 0..10_000 {
            probe.batch_execute("select pg_logical_emit_message(true, 'probe', '')").await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waiting_commits(mirror, 1).await;
    probing
}

/// B4: the server sends a transaction before new snapshots see it. A large value that is read then is
/// from before the change.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_not_read_before_its_change_is_visible() {
    let (_cluster, source) = cluster("reselect").await;
    let ddl = "create table docs (id int primary key, v int, big text);
               alter table docs alter big set storage external;
               insert into docs values (1, 0, repeat('old', 2000))";
    let mirror = Mirror::on(source, ddl, &["docs"]).await;
    let mut stream = mirror.start();
    let probing = commits_wait(&mirror).await;
    let writer = mirror.source.session().await;
    // Too large to be remembered within the transaction, so that the second change asks the source.
    let large = "begin; update docs set big = repeat('new', 3000000); update docs set v = 1; commit";
    let writing = tokio::spawn(async move { writer.batch_execute(large).await });
    waiting_commits(&mirror, 2).await;
    let reading = "select big like 'new%' from docs";
    assert!(!mirror.source.sql.query_one(reading, &[]).await.unwrap().get::<_, bool>(0), "not visible yet");
    // Long enough for a reader who does not look at his snapshot to write what he read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let written = format!("select count() from {} where v = 1", mirror.sink.qualified("docs"));
    assert_eq!(mirror.sink.query_one::<u64>(&written).await.unwrap(), 0);

    mirror.source.run("alter system reset synchronous_standby_names").await;
    mirror.source.run("select pg_reload_conf()").await;
    probing.abort();
    writing.await.unwrap().unwrap();
    mirror.caught_up(&mut stream).await;
    let row = "id::text || ' ' || v::text || ' ' || md5(big)";
    let sink = "concat(toString(id), ' ', toString(v), ' ', lower(hex(MD5(big))))";
    assert_eq!(mirror.assert_same(0, row, sink).await, 1);
    stream.stop().await;
}

/// B3: a commit lies in the log, below the epoch, and nobody sees it yet: a copy that began now would not find
/// it, and its version would be above the commit's.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_begins_when_the_commits_below_its_epoch_are_visible() {
    let (_cluster, source) = cluster("epoch").await;
    let mirror = Mirror::on(source, "create table docs (id int primary key)", &["docs"]).await;
    let session = mirror.source.session().await;
    let probing = commits_wait(&mirror).await;
    let writer = mirror.source.session().await;
    let writing = tokio::spawn(async move { writer.batch_execute("insert into docs values (1)").await });
    waiting_commits(&mirror, 2).await;

    let taking = tokio::spawn(async move {
        epoch::take(&session, &CancellationToken::new(), |_| ()).await.unwrap();
        let rows = session.query_one("select count(*) from public.docs", &[]).await.unwrap();
        rows.get::<_, i64>(0)
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!taking.is_finished(), "the row is committed, and not visible");
    mirror.source.run("alter system reset synchronous_standby_names").await;
    mirror.source.run("select pg_reload_conf()").await;
    probing.abort();
    writing.await.unwrap().unwrap();
    assert_eq!(taking.await.unwrap(), 1);
}
