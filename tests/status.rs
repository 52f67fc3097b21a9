//! How far a mirror is and how it fares: the figures are right, wherever they are shown.

use std::time::Duration;

use jiff::Timestamp;
use libtest_mimic::Trial;
use millrace_proto::v1 as api;
use serde_json::Value;

use crate::support::bed::{Bed, SOON};
use crate::support::{http, stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("status::operations_are_counted_and_batches_listed", operations_and_batches),
        test("status::a_slot_is_measured", slot_is_measured),
        test("status::a_quiet_mirror_beside_a_busy_database_does_not_lag", quiet_beside_busy),
    ]
}

async fn batches(bed: &Bed, page_size: i32, page_token: String) -> api::ListBatchesResponse {
    let request =
        api::ListBatchesRequest { name: bed.name.clone(), page_size, page_token, ..Default::default() };
    bed.mirrors().list_batches(request).await.expect("batches").into_inner()
}

/// What a command prints.
fn output_of(arguments: &[&str]) -> String {
    let output = std::process::Command::new(stack::binary())
        .args(arguments)
        .env("MILLRACE_ADDRESS", &stack::endpoints().grpc)
        .output()
        .expect("millrace runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What REST answers to a `GET`.
async fn rest(path: &str) -> Value {
    let address = stack::endpoints().http.strip_prefix("http://").expect("an http URL");
    let answer =
        http::request(address.trim_end_matches('/'), "GET", path, &[], b"").await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn counts(mirror: &api::Mirror, source: &str) -> [i64; 4] {
    let table = mirror.tables.iter().find(|table| table.source == source).expect("the table");
    [table.inserts, table.updates, table.deletes, table.truncates]
}

async fn operations_and_batches(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); create table u (id int primary key)").await;
    bed.mirror_streaming(&["public.t", "public.u"]).await;
    bed.sql("insert into t select i, 'a' from generate_series(1, 5) i; insert into u values (1)").await;
    bed.sql("update t set v = 'b' where id <= 2").await;
    bed.sql("delete from t where id = 5").await;
    bed.sql("truncate t").await;
    bed.sql("insert into t values (9, 'c')").await;
    bed.wait_for("the counts", |mirror| {
        counts(mirror, "public.t") == [6, 2, 1, 1] && counts(mirror, "public.u") == [1, 0, 0, 0]
    })
    .await;
    bed.wait_equal("t", "t").await;

    let sum = |all: &[api::Batch]| {
        let sum = |of: fn(&api::Batch) -> i64| all.iter().map(of).sum::<i64>();
        [sum(|b| b.inserts), sum(|b| b.updates), sum(|b| b.deletes), sum(|b| b.truncates)]
    };
    let all = wait::until("the batches", SOON, || async {
        let all = batches(&bed, 0, String::new()).await.batches;
        if sum(&all) == [7, 2, 1, 1] { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .await;
    let tables = all.iter().map(|batch| batch.tables).max();
    assert!(tables.is_some_and(|tables| (1..=2).contains(&tables)), "{all:?}");
    for batch in &all {
        let seconds = |at: &Option<pbjson_types::Timestamp>| at.as_ref().map(|at| (at.seconds, at.nanos));
        assert!(batch.start_time.is_some() && seconds(&batch.start_time) <= seconds(&batch.write_time));
        assert!(seconds(&batch.first_commit_time) <= seconds(&batch.last_commit_time), "{batch:?}");
        assert!(!batch.start_position.is_empty() && !batch.end_position.is_empty(), "{batch:?}");
    }
    assert!(all.iter().any(|batch| batch.last_commit_time.is_some()), "{all:?}");

    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let page = batches(&bed, 1, token).await;
        paged.extend(page.batches);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all, "page by page it is the same");
    let listed = rest(&format!("/v1/mirrors/{}/batches?stream=0", bed.name)).await;
    assert_eq!(listed["batches"].as_array().map(Vec::len), Some(all.len()), "{listed}");
    let none = rest(&format!("/v1/mirrors/{}/batches?stream=1", bed.name)).await;
    assert!(none["batches"].as_array().is_none_or(Vec::is_empty), "{none}");

    let text = output_of(&["mirror", "batches", &bed.name]);
    assert!(text.starts_with("WRITTEN") && text.lines().count() == all.len() + 1, "{text}");
    let missing = api::ListBatchesRequest { name: "nobody".into(), ..Default::default() };
    let status = bed.mirrors().list_batches(missing).await.expect_err("no such mirror");
    assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
}

async fn slot_is_measured(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let measured = bed.wait_for("a measurement", |mirror| mirror.streams[0].replication_slot.is_some()).await;
    let stream = &measured.streams[0];
    let slot = stream.replication_slot.as_ref().expect("a slot");
    assert_eq!((slot.name.as_str(), slot.wal_status.as_str()), (stream.slot.as_str(), "reserved"));
    assert!(!slot.restart_position.is_empty() && !slot.confirmed_position.is_empty(), "{slot:?}");
    assert_eq!((slot.limit_bytes, slot.seconds_to_limit), (None, None), "the source sets no limit");

    let request = |slot: &str| api::GetReplicationSlotRequest {
        name: format!("{}-pg", bed.name),
        slot: slot.to_owned(),
    };
    let now = wait::until("rates", SOON, || async {
        let answer = bed.peers().get_replication_slot(request(&stream.slot)).await.expect("the slot");
        let slot = answer.into_inner();
        let is_known = slot.wal_bytes_per_second.is_some() && slot.growth_bytes_per_second.is_some();
        if is_known { Ok(slot) } else { Err(format!("{slot:?}")) }
    })
    .await;
    assert!(now.active && now.active_pid > 0 && now.wal_status == "reserved", "{now:?}");
    assert!(now.retained_bytes >= now.lag_bytes && !now.current_position.is_empty(), "{now:?}");
    let missing = bed.peers().get_replication_slot(request("nowhere")).await.expect_err("no such slot");
    assert_eq!(missing.code(), tonic::Code::NotFound, "{missing:?}");
    let path = format!("/v1/peers/{}-pg/slots/{}", bed.name, stream.slot);
    assert_eq!(rest(&path).await["wal_status"], "reserved");
    let text = output_of(&["mirror", "get", &bed.name]);
    assert!(text.contains("of the log, without a limit"), "{text}");
}

/// What is not replicated fills the log; everything up to now is confirmed all the same.
async fn quiet_beside_busy(bed: Bed) {
    bed.sql("create table t (id int primary key); create table other (v text)").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("insert into t values (1)").await;
    let last = bed.wait_for("its commit", |mirror| mirror.streams[0].last_commit_time.is_some()).await;
    let committed = last.streams[0].last_commit_time.expect("a time").seconds;
    let age = || Timestamp::now().as_second() - committed;
    let mut looks = 0;
    while looks < 20 {
        bed.sql("insert into other select repeat('x', 1000) from generate_series(1, 200)").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if age() < 30 {
            continue;
        }
        looks += 1;
        let mirror = bed.get().await.expect("the mirror");
        let lag = mirror.streams[0].lag_seconds.expect("a lag");
        assert!(lag < age() as f64 / 2.0, "its last commit is {} s old, its lag {lag} s", age());
    }
}
