//! Tables that are altered while they are being copied, and between the moment they are planned and
//! that when their copy begins.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("reshaped::between_plan_and_epoch", between_plan_and_epoch),
        test("reshaped::in_the_middle_of_a_copy", in_the_middle_of_a_copy),
        test("reshaped::renamed_in_the_middle_of_a_copy", renamed_in_the_middle_of_a_copy),
        test("reshaped::append_only_tables", append_only_tables),
    ]
}

/// Statements that alter a table, each with writes that only its new shape can hold. What they do to
/// tables whose rows nothing touches afterwards is told by no change.
const CHANGES: [(&str, &str); 12] = [
    ("added", "alter table added add c int; update added set c = id where id % 2 = 0"),
    (
        "constant",
        "alter table constant add c int not null default 5; update constant set c = id where id % 2 = 0",
    ),
    ("volatile", "alter table volatile add r float8 not null default random()"),
    ("dropped", "alter table dropped drop a"),
    ("readded", "alter table readded drop a, add a text; update readded set a = 'new' where id % 2 = 0"),
    ("widened", "alter table widened alter n type bigint; update widened set n = 5000000000 + id"),
    ("retyped", "alter table retyped alter n type text; update retyped set n = n || '!'"),
    ("precise", "alter table precise alter d type numeric(14, 2); update precise set d = 10000000000 + id"),
    ("longer", "alter table longer alter v type text; update longer set v = repeat(v, 10)"),
    ("nulled", "alter table nulled alter n drop not null; update nulled set n = null where id % 2 = 0"),
    ("moved", "alter table moved rename to \"Moved Away\"; update \"Moved Away\" set n = -id"),
    ("renamed", "alter table renamed rename a to b; update renamed set b = 'new' where id % 2 = 0"),
];

/// A table of every name, of so many rows, each so wide.
async fn make(bed: &Bed, rows: u32, width: u32) {
    for (name, _) in CHANGES {
        bed.sql(&format!(
            "create table {name} (id bigint primary key, a text, n int not null, d numeric(10, 2), v varchar(100), filler text);
             alter table {name} alter filler set storage plain;
             insert into {name} select i, 'old', i, i / 7.0, 'v' || i, repeat('x', {width}) from generate_series(1, {rows}) i"
        ))
        .await;
    }
}

fn name_now(name: &str) -> String {
    if name == "moved" { "\"Moved Away\"".to_owned() } else { name.to_owned() }
}

async fn codes(bed: &Bed) -> Vec<String> {
    let request =
        api::ListMirrorEventsRequest { name: bed.name.clone(), page_size: 1000, ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.into_iter().map(|event| format!("{} {}", event.code, event.message)).collect()
}

/// Waits until the mirror runs and every table is equal; nothing may be in ERROR on the way.
async fn wait_all_equal(bed: &Bed) {
    for (name, _) in CHANGES {
        let source = name_now(name);
        let now = format!("public.{source}");
        bed.wait_for(&format!("{now} streams"), |mirror| {
            let table = mirror
                .tables
                .iter()
                .find(|table| table.source == now || table.source == format!("public.{name}"));
            let table = table.expect("the table");
            assert!(table.state() != table::State::Error, "{table:?}");
            table.state() == table::State::Streaming
        })
        .await;
        bed.wait_equal(&source, name).await;
    }
    bed.wait_state(mirror::State::Running).await;
}

async fn between_plan_and_epoch(bed: Bed) {
    make(&bed, 50, 10).await;
    // No slot is made, and no epoch taken, while a transaction is open.
    let open = bed.session().await;
    open.batch_execute("begin; select pg_current_xact_id()").await.expect("a transaction");
    let names: Vec<String> = CHANGES.iter().map(|(name, _)| format!("public.{name}")).collect();
    let mut request = bed.mirror(&names.iter().map(String::as_str).collect::<Vec<_>>());
    request.settings = Some(api::Settings {
        snapshot: Some(api::SnapshotSettings { parallel_tables: Some(12), ..Default::default() }),
        ..Default::default()
    });
    bed.create(request).await.expect("a mirror");
    for (_, change) in CHANGES {
        bed.sql(change).await;
    }
    open.batch_execute("rollback").await.expect("its end");
    bed.wait_for("copied", |mirror| {
        mirror.tables.iter().all(|table| table.state() == table::State::Streaming)
    })
    .await;
    // A renamed column is followed with the next change; so is what is only dropped.
    bed.sql("insert into renamed select 1000, 'late', 1").await;
    wait_all_equal(&bed).await;
    let codes = codes(&bed).await;
    assert!(
        codes.iter().any(|code| code.starts_with("TABLE_SCHEMA_CHANGED") && code.contains("new column c")),
        "{codes:#?}"
    );
}

async fn alter_during_copy(bed: &Bed, changes: &[(&str, &str)]) {
    let names: Vec<String> = changes.iter().map(|(name, _)| format!("public.{name}")).collect();
    let mut request = bed.mirror(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let snapshot = api::SnapshotSettings {
        parallel_tables: Some(12),
        parallel_partitions: Some(12),
        partition_bytes: Some(1 << 20),
    };
    request.settings = Some(api::Settings { snapshot: Some(snapshot), ..Default::default() });
    bed.create(request).await.expect("a mirror");
    for (name, change) in changes {
        let source = format!("public.{name}");
        bed.wait_for(&format!("{source} is being copied"), |mirror| {
            let table = mirror.tables.iter().find(|table| table.source == source).expect("the table");
            table.partitions_done > 0
        })
        .await;
        bed.sql(change).await;
    }
}

async fn in_the_middle_of_a_copy(bed: Bed) {
    make(&bed, 4_000, 2_000).await;
    alter_during_copy(&bed, &CHANGES).await;
    for (name, _) in CHANGES {
        bed.sql(&format!("insert into {} (id, n, filler) values (100000, 1, 'late')", name_now(name))).await;
    }
    wait_all_equal(&bed).await;
}

/// Again and again, so that some of it meets an insert under way.
async fn renamed_in_the_middle_of_a_copy(bed: Bed) {
    bed.sql(
        "create table t (id bigint primary key, a text, n numeric(10, 2), filler text);
         alter table t alter filler set storage plain;
         insert into t select i, 'a' || i, i, repeat('x', 2000) from generate_series(1, 16000) i",
    )
    .await;
    alter_during_copy(&bed, &[("t", "alter table t rename a to a0; update t set a0 = 'new' where id = 1")])
        .await;
    for round in 1..6 {
        bed.sql(&format!(
            "alter table t rename a{} to a{round}; update t set a{round} = 'round {round}' where id % 1000 = {round}",
            round - 1
        ))
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    bed.wait_table("public.t", table::State::Streaming).await;
    bed.wait_equal("t", "t").await;
}

async fn append_only_tables(bed: Bed) {
    bed.sql("create table log (a text, n int); insert into log select 'x', i from generate_series(1, 100) i")
        .await;
    let open = bed.session().await;
    open.batch_execute("begin; select pg_current_xact_id()").await.expect("a transaction");
    let mut request = bed.mirror(&["public.log"]);
    request.tables[0].append_only = true;
    bed.create(request).await.expect("a mirror");
    bed.sql(
        "alter table log add c int; insert into log values ('y', 0, 5); alter table log rename to \"Log 2\"",
    )
    .await;
    open.batch_execute("rollback").await.expect("its end");
    wait::until("copied", SOON, || async {
        let mirror = bed.get().await.map_err(|status| status.to_string())?;
        let table = &mirror.tables[0];
        if table.state() == table::State::Streaming { Ok(()) } else { Err(format!("{table:?}")) }
    })
    .await;
    let lines = bed
        .clickhouse
        .query_lines("select concat(toString(count()), ' ', toString(sum(c))) as line from log")
        .await;
    assert_eq!(lines.expect("a count"), ["101 5"]);
}
