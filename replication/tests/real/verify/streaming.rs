//! Comparing and mending while a stream runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_replication::postgres::Session;
use millrace_replication::verify::Kind;

use super::{Checked, found};
use crate::mirror::Mirror;

const DDL: &str = "create table t (id int primary key, v text, n int)";

/// Changes rows all over the table until it is told to stop; some of them all the time.
async fn write(session: Session, stop: Arc<AtomicBool>) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let sql = format!(
            "update t set n = n + 1 where id % 97 = {round} % 97; update t set v = v || 'x' where id = 500 and {round} % 15 = 0;
             delete from t where id = 2000 + {round} % 7; insert into t values (2000 + {round} % 7, 'again', {round}) on conflict do nothing;
             begin; update t set id = -id where id = 1000 + {round} % 5; update t set id = -id where id = -(1000 + {round} % 5); commit"
        );
        session.batch_execute(&sql).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_written_to_is_equal_and_what_is_spoilt_in_it_is_found_and_mended() {
    let mirror = Mirror::new(DDL, &["t"]).await;
    let mut running = mirror.start();
    mirror.source.run("insert into t select i, 'v' || i, 0 from generate_series(1, 1500) i; analyze t").await;
    mirror.caught_up(&mut running).await;
    let session = mirror.source.session().await;
    let checked = Checked::streamed(&session, mirror.plan(0), 3, running.position()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(mirror.source.session().await, stop.clone()));

    let answer = checked.compare(&session, &mirror.sink).await;
    assert_eq!((found(&answer.differences), answer.unsettled), (vec![], 0));

    let table = mirror.sink.qualified("t");
    for sql in [
        "delete from {table} where id in (1, 700, 1499)",
        "insert into {table} select * replace ('spoilt' as v, _version + 1 as _version) from {table} final where id in (3, 701, 1497)",
        "insert into {table} (id, v, n, _version, _is_deleted) values (-7, 'extra', 1, 1, 0), (100000, 'extra', 1, toUInt128('170141183460469231731687303715884105727'), 0)",
    ] {
        mirror.sink.execute(&sql.replace("{table}", &table)).await.unwrap();
    }
    let spoilt = |kind, keys: &[&str], columns: &str| -> Vec<(Kind, String, String)> {
        keys.iter().map(|key| (kind, (*key).to_owned(), columns.to_owned())).collect()
    };
    let mut expected = [
        spoilt(Kind::Missing, &["1", "1499", "700"], ""),
        spoilt(Kind::Extra, &["-7"], ""),
        spoilt(Kind::Extra, &["100000"], "_version"),
    ]
    .concat();
    // Of the rows that are updated meanwhile some are mended by that.
    let answer = checked.compare(&session, &mirror.sink).await;
    let mut lines = found(&answer.differences);
    lines.retain(|(kind, ..)| *kind != Kind::Different);
    let writers: Vec<_> = expected.iter().filter(|line| !lines.contains(line)).cloned().collect();
    expected.retain(|line| lines.contains(line));
    assert_eq!(lines, expected);
    assert!(writers.iter().all(|(kind, ..)| *kind == Kind::Missing), "{writers:?} were not found");

    checked.mend(&session, &mirror.sink).await;
    let answer = checked.compare(&session, &mirror.sink).await;
    assert_eq!((found(&answer.differences), answer.unsettled), (vec![], 0), "mended while it streams");
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    mirror.caught_up(&mut running).await;
    let answer = checked.compare(&session, &mirror.sink).await;
    assert_eq!((found(&answer.differences), answer.source_rows), (vec![], answer.destination_rows));
    running.stop().await;
}

/// What a transaction that is open has written is nobody's business, and keeps no difference from being
/// certain that it cannot have made.
#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_neither_show_nor_hide_differences() {
    let mirror = Mirror::new(DDL, &["t"]).await;
    let mut running = mirror.start();
    mirror.source.run("insert into t select i, 'v' || i, 0 from generate_series(1, 100) i").await;
    mirror.caught_up(&mut running).await;
    let open = mirror.source.session().await;
    open.batch_execute("begin; update t set v = 'open' where id < 10; insert into t values (500, 'open', 0)")
        .await
        .unwrap();
    let session = mirror.source.session().await;
    let checked = Checked::streamed(&session, mirror.plan(0), 1, running.position()).await;
    assert_eq!(found(&checked.compare(&session, &mirror.sink).await.differences), []);
    let table = mirror.sink.qualified("t");
    mirror.sink.execute(&format!("delete from {table} where id = 50")).await.unwrap();
    let answer = checked.compare(&session, &mirror.sink).await;
    assert_eq!(found(&answer.differences), [(Kind::Missing, "50".to_owned(), String::new())]);
    open.batch_execute("commit").await.unwrap();
    running.stop().await;
}
