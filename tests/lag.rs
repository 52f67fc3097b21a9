//! How late rows are: told for each stream, and written with each row where that is asked for.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror};

use crate::support::bed::Bed;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![test("lag::of_the_first_row_is_told", of_the_first_row_is_told)]
}

async fn of_the_first_row_is_told(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let mut asked = bed.mirror(&["public.t"]);
    asked.settings = Some(api::Settings { audit_columns: true, ..Default::default() });
    let created = bed.create(asked).await.expect("a mirror");
    assert!(created.streams.iter().all(|stream| stream.last_commit_time.is_none()), "nothing has come");
    bed.wait_state(mirror::State::Running).await;

    let times = "select extract(epoch from clock_timestamp())::float8";
    let clock = || async { bed.source.query_one(times, &[]).await.expect("a clock").get::<_, f64>(0) };
    let before = clock().await;
    bed.sql("insert into t values (1)").await;
    let after = clock().await;
    assert_eq!(bed.wait_equal("t", "t").await, 1);
    let mirror = bed
        .wait_for("the lag of the first row", |mirror| {
            let stream = &mirror.streams[0];
            stream.last_commit_time.is_some() && stream.lag_seconds == Some(0.0) && stream.lag_bytes.is_some()
        })
        .await;
    let committed = mirror.streams[0].last_commit_time.expect("its time");
    let committed = committed.seconds as f64 + f64::from(committed.nanos) / 1e9;
    assert!(before <= committed && committed <= after, "{before} {committed} {after}");

    // The row itself tells when it was committed, and when it was sent.
    let row = "select toString(cdc_operation) || ' ' || toString(toUnixTimestamp64Micro(cdc_timestamp) / 1e6)
                   || ' ' || toString(toUnixTimestamp64Micro(_synced_at) >= toUnixTimestamp64Micro(cdc_timestamp)) as line from t final";
    let line = bed.clickhouse.query_lines(row).await.expect("a row").remove(0);
    let told: Vec<&str> = line.split(' ').collect();
    let at: f64 = told[1].parse().expect("a time");
    assert!(before <= at && at <= after && told[2] == "1", "{before} {line} {after}");
}
