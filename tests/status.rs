//! How far a mirror is and how it fares: the figures are right, wherever they are shown.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use libtest_mimic::Trial;
use millrace_proto::v1::stream::Verdict;
use millrace_proto::v1::system_service_client::SystemServiceClient;
use millrace_proto::v1::{self as api, mirror, table};
use serde_json::Value;

use crate::support::bed::{Bed, SOON};
use crate::support::cell::Cell;
use crate::support::{http, stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("status::operations_are_counted_and_batches_listed", operations_and_batches),
        test("status::a_slot_is_measured", slot_is_measured),
        test("status::a_quiet_mirror_beside_a_busy_database_does_not_lag", quiet_beside_busy),
        test("status::copies_tell_their_rate_and_their_end", copies_tell_rate_and_end),
        test("status::idle_is_told_from_busy_and_from_paused", idle_and_busy),
        test("status::a_stream_that_nobody_holds_is_stalled", nobody_streams),
        test("status::the_system_is_seen_at_a_glance", system_at_a_glance),
        test("status::every_event_has_a_code", events_have_codes),
        test("status::temporal_shows_the_figures", temporal_shows_figures),
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
        let seconds = |at: &Option<millrace_proto::Timestamp>| at.as_ref().map(|at| (at.seconds, at.nanos));
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

async fn copies_tell_rate_and_end(bed: Bed) {
    bed.sql("create table t (id int primary key, v text)").await;
    bed.sql("insert into t select i, repeat('x', 200) from generate_series(1, 200000) i; analyze t").await;
    let snapshot = api::SnapshotSettings {
        parallel_partitions: Some(1),
        partition_bytes: Some(1 << 20),
        ..Default::default()
    };
    let settings = api::Settings { snapshot: Some(snapshot), ..Default::default() };
    bed.create(api::Mirror { settings: Some(settings), ..bed.mirror(&["public.t"]) })
        .await
        .expect("a mirror");
    let request = api::WatchMirrorRequest { name: bed.name.clone() };
    let watched = bed.mirrors().watch_mirror(request).await.expect("a watch").into_inner();
    let watched = tokio::spawn(watch_copy(watched));
    // The copy is held in its middle, however fast it is, until its rate and its end are told.
    bed.wait_for("a partition is copied", |mirror| mirror.tables[0].rows_copied > 0).await;
    let held = bed.session().await;
    held.batch_execute("begin; lock table t in access exclusive mode").await.expect("a lock");
    let told = |mirror: &api::Mirror| {
        let (table, progress) = (&mirror.tables[0], mirror.progress.as_ref().expect("its progress"));
        [table.rows_per_second, progress.copy_rows_per_second, table.eta_seconds, progress.eta_seconds]
    };
    let copying = bed
        .wait_for("its rate and its end", |mirror| told(mirror).iter().all(|figure| figure > &Some(0.0)))
        .await;
    let [table_rate, rate, table_end, end] = told(&copying);
    assert_eq!((table_rate, table_end), (rate, end), "it is the only table");
    held.batch_execute("rollback").await.expect("the lock's end");

    let rows = watched.await.expect("all that is told");
    assert_eq!(rows.last(), Some(&(200_000, 200_000)));
    assert!(rows.windows(2).all(|pair| pair[0].0 <= pair[1].0), "progress never goes back: {rows:?}");
}

/// Rows copied and estimated, as they were told until the mirror ran.
async fn watch_copy(mut watched: tonic::Streaming<api::WatchMirrorResponse>) -> Vec<(i64, i64)> {
    let mut rows = Vec::new();
    loop {
        let message = watched.message().await.expect("it goes on").expect("a message");
        let mirror = message.mirror.expect("a mirror");
        let (table, progress) = (&mirror.tables[0], mirror.progress.as_ref().expect("its progress"));
        rows.push((table.rows_copied, table.rows_estimated));
        assert_eq!(
            (progress.rows_copied, progress.rows_estimated),
            (table.rows_copied, table.rows_estimated)
        );
        if mirror.state() == mirror::State::Running {
            let left = (table.rows_per_second, table.eta_seconds);
            assert_eq!(left, (None, None), "nothing is copied any more");
            assert_eq!((progress.tables, progress.tables_streaming), (1, 1));
            return rows;
        }
    }
}

async fn idle_and_busy(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let verdict = |mirror: &api::Mirror| mirror.streams[0].verdict();
    bed.wait_for("nothing to do", |mirror| verdict(mirror) == Verdict::Idle).await;
    bed.sql("insert into t select generate_series(1, 1000)").await;
    bed.wait_for("rows per second", |mirror| mirror.streams[0].rows_per_second > 0.0).await;
    let busy = bed.wait_for("changes arrive", |mirror| verdict(mirror) == Verdict::Healthy).await;
    assert_eq!(busy.progress.expect("its progress").verdict(), Verdict::Healthy);
    bed.mirrors()
        .pause_mirror(api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() })
        .await
        .expect("a pause");
    let paused = bed.get().await.expect("the mirror");
    let failure = paused.streams[0].failure.clone().expect("a reason");
    assert_eq!((verdict(&paused), failure.code.as_str()), (Verdict::Stalled, "MIRROR_STATE"));
    assert!(failure.remedy.contains(&format!("mirror resume {}", bed.name)), "{failure:?}");
}

async fn nobody_streams(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    let mut worker = cell.worker().await;
    bed.sql("create table t (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    worker.kill();
    let stalled =
        bed.wait_for("nobody streams", |mirror| mirror.streams[0].verdict() == Verdict::Stalled).await;
    let failure = stalled.streams[0].failure.clone().expect("a reason");
    assert_eq!(failure.code, "NO_WORKERS", "{failure:?}");
    assert!(!failure.remedy.is_empty() && failure.since.is_some(), "{failure:?}");

    let mut system = SystemServiceClient::new(bed.api.clone());
    let status =
        system.get_system_status(api::GetSystemStatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.mirrors, status.mirrors_by_verdict.get("STALLED")), (1, Some(&1)), "{status:?}");
    assert_eq!(status.stalled_streams[0].mirror, bed.name);

    let _worker = cell.worker().await;
    bed.wait_for("another streams", |mirror| mirror.streams[0].verdict() != Verdict::Stalled).await;
    bed.sql("insert into t values (1)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1);
}

async fn system_at_a_glance(bed: Bed) {
    bed.sql("create table good (id int primary key); create table bad (id int primary key)").await;
    bed.mirror_streaming(&["public.good", "public.bad"]).await;
    bed.clickhouse.query("drop table bad sync").await.expect("the destination table dropped by hand");
    bed.sql("insert into bad values (1)").await;
    bed.wait_table("public.bad", table::State::Error).await;

    let mut system = SystemServiceClient::new(bed.api.clone());
    let status =
        system.get_system_status(api::GetSystemStatusRequest {}).await.expect("a status").into_inner();
    let sum = |counts: &std::collections::BTreeMap<String, i32>| counts.values().sum::<i32>();
    assert_eq!(sum(&status.mirrors_by_state), status.mirrors, "{status:?}");
    assert_eq!(sum(&status.tables_by_state), status.tables, "{status:?}");
    assert!(status.mirrors_by_state.contains_key("DEGRADED") && status.peers >= 2, "{status:?}");
    let ours = |trouble: &&api::TableTrouble| trouble.mirror == bed.name;
    let trouble = status.failed_tables.iter().find(ours).expect("the table in error");
    let failure = trouble.failure.as_ref().expect("a reason");
    assert_eq!((trouble.table.as_str(), failure.code.as_str()), ("public.bad", "DESTINATION_TABLE_CHANGED"));
    let kinds: Vec<_> = status.queues.iter().map(|queue| queue.kind.as_str()).collect();
    assert_eq!(kinds, ["control", "snapshot", "stream"]);
    assert!(status.queues.iter().all(|queue| queue.workers > 0 && queue.failure.is_none()), "{status:?}");

    let shown = rest("/v1/status").await;
    assert_eq!((&shown["version"], &shown["queues"][2]["kind"]), (&status.version.into(), &"stream".into()));
    let text = output_of(&["status"]);
    assert!(text.contains("workers: control ") && text.contains("table public.bad: ERROR"), "{text}");
}

async fn events_have_codes(bed: Bed) {
    bed.sql("create table t (id int primary key); create table u (id int primary key)").await;
    bed.mirror_streaming(&["public.t", "public.u"]).await;
    let (name, table) = (bed.name.clone(), "public.t".to_owned());
    let pause = api::PauseTableRequest { name: name.clone(), table: table.clone(), ..Default::default() };
    bed.mirrors().pause_table(pause).await.expect("a pause");
    let resume = api::ResumeTableRequest { name: name.clone(), table, ..Default::default() };
    bed.mirrors().resume_table(resume).await.expect("a resume");
    bed.wait_table("public.t", table::State::Streaming).await;
    let pause = api::PauseMirrorRequest { name: name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(pause).await.expect("a pause");
    let resume = api::ResumeMirrorRequest { name: name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(resume).await.expect("a resume");
    bed.sql("alter table u add column v int; insert into u values (1, 2)").await;

    let list = async |code: &str| {
        let request =
            api::ListMirrorEventsRequest { name: name.clone(), code: code.to_owned(), ..Default::default() };
        bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events
    };
    for code in
        ["COPY_FINISHED", "TABLE_PAUSED", "RESYNC_BEGUN", "MIRROR_PAUSED", "MIRROR_RESUMED", "COLUMN_ADDED"]
    {
        wait::until(code, SOON, || async {
            match list(code).await.is_empty() {
                true => Err(format!("{:?}", list("").await)),
                false => Ok(()),
            }
        })
        .await;
    }
    let all = list("").await;
    assert!(all.iter().all(|event| !event.code.is_empty()), "{all:?}");
}

/// Temporal's own list of workflows can be asked for mirrors by their figures.
async fn temporal_shows_figures(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t select generate_series(1, 4321)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let client = stack::temporal().await;
    let query = format!(
        "MirrorName = '{}' and MirrorRowsCopied = 4321 and MirrorLagSeconds < 60 and MirrorVerdict in ('IDLE', 'HEALTHY')",
        bed.name
    );
    wait::until("the mirror's workflow", Duration::from_secs(240), || async {
        let mut listed = client.list_workflows(query.clone(), Default::default());
        match listed.next().await {
            Some(Ok(workflow)) if workflow.id() == format!("mirror/{}", bed.name) => Ok(()),
            Some(Ok(workflow)) => Err(workflow.id().to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("not listed".to_owned()),
        }
    })
    .await;
}
