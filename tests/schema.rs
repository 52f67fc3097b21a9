//! Schema changes on the source while a mirror runs.

use libtest_mimic::Trial;
use millrace_proto::v1::verification::{State, Verdict};
use millrace_proto::v1::{self as api, mirror, settings, table};

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("schema::columns_come_go_and_are_renamed", columns_come_go_and_are_renamed),
        test("schema::rewritten_rows_are_copied_again", rewritten_rows_are_copied_again),
        test("schema::a_renamed_table_can_be_resynced", a_renamed_table_can_be_resynced),
        test("schema::a_last_change_waits_for_a_row_or_a_resync", a_last_change_waits_for_a_row_or_a_resync),
        test("schema::an_error_is_asked_for_instead_of_a_resync", an_error_is_asked_for_instead_of_a_resync),
    ]
}

async fn codes(bed: &Bed) -> Vec<String> {
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.into_iter().map(|event| event.code).collect()
}

async fn columns_come_go_and_are_renamed(bed: Bed) {
    bed.sql("create table t (id bigint primary key, a text, \"Mixed Case\" int); insert into t select i, 'x', i from generate_series(1, 1000) i").await;
    let mut asked = bed.mirror(&["public.t"]);
    let drop = settings::OnColumnDropped::DropColumn.into();
    asked.settings = Some(api::Settings { on_column_dropped: drop, ..Default::default() });
    bed.create(asked).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    for change in [
        "alter table t add b int not null default 5, add c timestamptz",
        "alter table t drop a",
        "alter table t rename \"Mixed Case\" to \"Other Case\"",
        "alter table t add a text, drop c",
        "alter table t alter b drop not null",
    ] {
        bed.sql(change).await;
        bed.sql("insert into t (id) select max(id) + 1 from t").await;
        bed.wait_equal("t", "t").await;
    }
    let codes = codes(&bed).await;
    for code in ["COLUMN_ADDED", "COLUMN_DROPPED", "COLUMN_RENAMED", "COLUMN_NULLABLE"] {
        assert!(codes.iter().any(|found| found == code), "{code}: {codes:?}");
    }
}

async fn rewritten_rows_are_copied_again(bed: Bed) {
    bed.sql("create table t (id bigint primary key, n int); insert into t select i, i from generate_series(1, 1000) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    for change in [
        "alter table t add r float8 not null default random(); alter table t alter r drop default",
        "alter table t alter n type bigint using n * 2",
        "alter table t alter n type text",
        "alter table t rename id to number",
    ] {
        bed.sql(change).await;
        bed.sql("update t set n = n where n = (select min(n) from t)").await;
        bed.wait_equal("t", "t").await;
        bed.wait_table("public.t", table::State::Streaming).await;
    }
}

async fn a_renamed_table_can_be_resynced(bed: Bed) {
    bed.sql("create table t (id bigint primary key, n int); insert into t values (1, 1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("alter table t rename to \"New Name\"; insert into \"New Name\" values (2, 2)").await;
    bed.wait_equal("\"New Name\"", "t").await;
    let name = "public.\"New Name\"";
    bed.wait_table(name, table::State::Streaming).await;
    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: name.to_owned(), ..Default::default() };
    bed.mirrors().resync_table(request).await.expect("a resync");
    bed.sql("insert into \"New Name\" values (3, 3)").await;
    bed.wait_table(name, table::State::Streaming).await;
    bed.wait_equal("\"New Name\"", "t").await;
}

async fn an_error_is_asked_for_instead_of_a_resync(bed: Bed) {
    bed.sql("create table t (id bigint primary key); insert into t values (1)").await;
    let mut asked = bed.mirror(&["public.t"]);
    let stop = settings::OnRewrite::StopTable.into();
    asked.settings = Some(api::Settings { on_rewrite: stop, ..Default::default() });
    bed.create(asked).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("alter table t add id2 bigserial; insert into t values (2)").await;
    let failed = bed.wait_table("public.t", table::State::Error).await;
    let error = failed.tables[0].error.clone().expect("an error");
    assert_eq!(error.code, "TABLE_SCHEMA_CHANGED");
    wait::until("an event", crate::support::bed::SOON, || async {
        let codes = codes(&bed).await;
        if codes.contains(&"TABLE_SCHEMA_CHANGED".to_owned()) { Ok(()) } else { Err(format!("{codes:?}")) }
    })
    .await;
}

/// The log tells of a table's columns with its next row. What is there is right until then.
async fn a_last_change_waits_for_a_row_or_a_resync(bed: Bed) {
    bed.sql(
        "create table t (id bigint primary key, v text); insert into t select i, 'x' from generate_series(1, 100) i;
         create table other (id int primary key)",
    )
    .await;
    bed.mirror_streaming(&["public.t", "public.other"]).await;
    bed.sql("alter table t rename v to w; alter table t add r float8 default random(); insert into other values (1)").await;
    assert_eq!(bed.wait_equal("other", "other").await, 1);
    assert_eq!(count(&bed, "v = 'x'").await, 100);
    let request = api::VerifyMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let verification = bed.mirrors().verify_mirror(request).await.expect("a verification").into_inner();
    let verification = wait::until("its end", SOON, || async {
        let request = api::GetVerificationRequest {
            name: bed.name.clone(),
            id: verification.id.clone(),
            ..Default::default()
        };
        let found =
            bed.mirrors().get_verification(request).await.map_err(|error| error.to_string())?.into_inner();
        if found.state() == State::Running { Err(format!("{found:?}")) } else { Ok(found) }
    })
    .await;
    assert_eq!(
        (verification.state(), verification.verdict()),
        (State::Completed, Verdict::Equal),
        "{verification:?}"
    );

    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: "public.t".into(), ..Default::default() };
    bed.mirrors().resync_table(request).await.expect("a resync");
    bed.wait_table("public.t", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("t", "t").await, 100);
    bed.sql("alter table t rename w to x").await;
    bed.sql("insert into t values (1000, 'y', 1)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 101);
}

async fn count(bed: &Bed, condition: &str) -> u64 {
    let sql = format!("select count() from t final where {condition}");
    bed.clickhouse.query(&sql).await.expect("a count").trim().parse().expect("a number")
}
