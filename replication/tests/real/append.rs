//! Tables whose rows are only inserted: each row arrives exactly once.

use std::time::Duration;

use millrace_replication::stream::{AppendState, Cut, Limits, Report, Snapshot};
use millrace_terms::{Code, Lsn};

use crate::mirror::Mirror;
use crate::servers::APPLICATION;

const LOG: &str = "create table log (at int, line text)";
const LINE: &str = "at::text || coalesce(line, '-')";
const LINE_SINK: &str = "concat(toString(assumeNotNull(at)), ifNull(line, '-'))";

/// The next attempt, after one that was killed and had stored this cut.
fn next_attempt(mirror: &mut Mirror, lease: u32, cut: Option<Cut>) {
    mirror.config.application = format!("{APPLICATION}/0/{lease}");
    mirror.config.attempt = format!("0.{lease}");
    if let Some(append) = &mut mirror.config.tables[0].append {
        append.cut = cut.or(append.cut);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_arrive_as_often_as_they_were_inserted() {
    for binary in [false, true] {
        let mut mirror = Mirror::new(LOG, &["log"]).await;
        mirror.config.binary = binary;
        let mut stream = mirror.start();
        mirror.source.run("insert into log select i % 7, 'same' from generate_series(1, 500) i").await;
        mirror.source.run("begin; insert into log values (1, 'same'); savepoint s; insert into log values (1, 'undone'); rollback to s; commit").await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(mirror.assert_same(0, LINE, LINE_SINK).await, 501);
        mirror.source.run("truncate log; insert into log values (5, 'after'), (5, 'after')").await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(mirror.assert_same(0, LINE, LINE_SINK).await, 2);
        stream.stop().await;
    }
}

/// Nothing is acknowledged, so every attempt reads everything again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_arrive_once_though_the_stream_is_killed_again_and_again() {
    let mut mirror = Mirror::new(LOG, &["log"]).await;
    let writers: Vec<_> = {
        let mut writers = Vec::new();
        for writer in 0..3 {
            let session = mirror.source.session().await;
            writers.push(tokio::spawn(async move {
                for round in 0..150 {
                    let rows = 1 + (round * 7 + writer) % 40;
                    let sql = format!("insert into log select i % 3, 'w' from generate_series(1, {rows}) i");
                    session.batch_execute(&sql).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        writers
    };
    for attempt in 1..=10 {
        mirror.config.limits = Limits {
            max_rows: [3, 50, 1000][attempt as usize % 3],
            max_inserts_per_second: 1000,
            ..mirror.config.limits
        };
        let stream = mirror.start_unconfirmed();
        tokio::time::sleep(Duration::from_millis(40 * u64::from(attempt))).await;
        let cut = stream.kill().await;
        next_attempt(&mut mirror, attempt + 1, cut);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    mirror.config.limits.max_rows = 1000;
    let mut stream = mirror.start_unconfirmed();
    mirror.caught_up(&mut stream).await;
    assert!(mirror.assert_same(0, LINE, LINE_SINK).await > 5000);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_copy_saw_is_left_out() {
    let mut mirror = Mirror::new(LOG, &["log"]).await;
    let open = mirror.source.session().await;
    open.batch_execute("begin; insert into log values (1, 'open during the copy')").await.unwrap();
    mirror.source.run("insert into log values (1, 'copied')").await;
    let row = "select pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text";
    let row = mirror.source.sql.query_one(row, &[]).await.unwrap();
    let snapshot = Snapshot::parse(row.get(0)).unwrap();
    let seen_below: Lsn = row.get::<_, &str>(1).parse().unwrap();
    mirror.config.tables[0].append = Some(AppendState { run: 2, snapshot, seen_below, cut: None });
    open.batch_execute("commit").await.unwrap();
    mirror.source.run("insert into log values (2, 'later')").await;
    let mut stream = mirror.start();
    mirror.caught_up(&mut stream).await;
    let found: Vec<String> = mirror
        .sink
        .query(&format!("select assumeNotNull(line) from {} order by at", mirror.sink.qualified("log")))
        .await
        .unwrap();
    assert_eq!(found, ["open during the copy", "later"]);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_or_a_delete_is_told_and_stops_only_its_table() {
    for change in ["update log set line = 'x'", "delete from log"] {
        let mut mirror =
            Mirror::new(&format!("{LOG}; create table other (id int primary key)"), &["log", "other"]).await;
        mirror.source.run("alter table log replica identity full").await;
        mirror.config.limits.max_rows = 10;
        let mut stream = mirror.start();
        mirror
            .source
            .run(&format!("insert into log values (1, 'a'); {change}; insert into other values (1)"))
            .await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(stream.failed(), [(1, Code::TableUnsupported)]);
        let Report::TableFailed { error, .. } =
            stream.told(|report| matches!(report, Report::TableFailed { .. })).await
        else {
            unreachable!()
        };
        assert!(error.message().contains("public.log is declared append_only"), "{error}");
        assert!(error.remedy().contains("ADD PRIMARY KEY"), "{}", error.remedy());
        assert_eq!(mirror.assert_same(1, "id::text", "toString(id)").await, 1);
        stream.stop().await;
    }
}
