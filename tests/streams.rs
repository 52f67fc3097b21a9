//! Mirrors of several streams: each has a slot, a publication and tables of its own, and none waits for
//! another.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, settings, table};
use millrace_terms::Lsn;
use pbjson_types::FieldMask;
use tonic::{Code, Status};

use crate::shared::wait_rows;
use crate::support::bed::{Bed, SOON, connect};
use crate::support::cell::Cell;
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("streams::tables_are_shared_out_and_stay_equal", tables_are_shared_out_and_stay_equal),
        test("streams::a_worker_is_killed", a_worker_is_killed),
        test("streams::a_killed_walsender_stops_only_its_tables", a_killed_walsender_stops_only_its_tables),
        test("streams::tables_join_pause_leave_and_come_back", tables_join_pause_leave_and_come_back),
        test("streams::one_lost_slot_copies_only_its_tables", one_lost_slot_copies_only_its_tables),
        test("streams::tables_of_one_destination_in_two_streams", tables_of_one_destination_in_two_streams),
        test("streams::pause_resync_and_drop", pause_resync_and_drop),
        test("streams::what_cannot_be_is_refused", what_cannot_be_is_refused),
    ]
}

const SEVEN: [&str; 7] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];

/// A request for a mirror of these tables in so many streams.
fn spread(bed: &Bed, tables: &[&str], streams: u32) -> api::Mirror {
    let tables: Vec<String> = tables.iter().map(|table| format!("public.{table}")).collect();
    let settings = api::Settings { streams: Some(streams), ..Default::default() };
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    api::Mirror { settings: Some(settings), ..bed.mirror(&names) }
}

async fn make_seven(bed: &Bed) {
    for table in SEVEN {
        bed.sql(&format!(
            "create table {table} (id int primary key, v int, note text);
             insert into {table} select i, i, 'n' || i from generate_series(1, 200) i"
        ))
        .await;
    }
}

/// The stream of each table, by its name without the schema.
fn streams_of(mirror: &api::Mirror) -> BTreeMap<String, i32> {
    let name = |table: &api::Table| table.source.trim_start_matches("public.").to_owned();
    mirror.tables.iter().map(|table| (name(table), table.stream)).collect()
}

/// Process ids of the walsenders, by slot; a slot without one has none.
async fn senders(bed: &Bed) -> BTreeMap<String, Option<i32>> {
    let sql =
        "select slot_name::text, active_pid from pg_replication_slots where database = current_database()";
    let rows = bed.source.query(sql, &[]).await.expect("the slots");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until every slot is streamed from.
async fn wait_senders(bed: &Bed) -> BTreeMap<String, i32> {
    wait::until("a walsender on every slot", SOON, || async {
        let senders = senders(bed).await;
        let all: Option<BTreeMap<String, i32>> =
            senders.iter().map(|(slot, pid)| Some((slot.clone(), (*pid)?))).collect();
        all.ok_or_else(|| format!("{senders:?}"))
    })
    .await
}

/// Publications, each with its tables.
async fn published(bed: &Bed) -> BTreeMap<String, BTreeSet<String>> {
    let sql = "select p.pubname::text, t.tablename::text from pg_publication p
        left join pg_publication_tables t using (pubname)";
    let mut published: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in bed.source.query(sql, &[]).await.expect("the publications") {
        published.entry(row.get(0)).or_default().extend(row.get::<_, Option<String>>(1));
    }
    published
}

async fn wait_all_equal(bed: &Bed, tables: &[&str]) {
    for table in tables {
        bed.wait_equal(table, table).await;
    }
}

/// Something of every kind, in every table.
async fn write_to_all(bed: &Bed, round: u32) {
    let first = 1_000 * round;
    let changes = SEVEN.map(|table| {
        format!(
            "insert into {table} select {first} + i, i, 'new' from generate_series(1, 30) i;
             update {table} set v = v + {round} where id % 7 = {round} % 7;
             update {table} set id = id + 500 where id = {first} + 5;
             delete from {table} where id % 11 = {round} % 11;"
        )
    });
    bed.sql(&format!("begin; {} commit", changes.concat())).await;
}

async fn tables_are_shared_out_and_stay_equal(bed: Bed) {
    make_seven(&bed).await;
    let writer = bed.session().await;
    let open = "begin; insert into t0 values (-1, 0, 'open since before'); delete from t6 where id = 200";
    writer.batch_execute(open).await.expect("writes");
    bed.create(spread(&bed, &SEVEN, 3)).await.expect("a mirror");
    write_to_all(&bed, 1).await;
    writer.batch_execute("commit").await.expect("its end");
    let mirror = bed.wait_state(mirror::State::Running).await;
    let of = streams_of(&mirror);
    let sizes: Vec<usize> = (0..3).map(|n| of.values().filter(|stream| **stream == n).count()).collect();
    assert_eq!(sizes, [3, 2, 2], "{of:?}");
    assert_eq!(mirror.streams.iter().map(|stream| stream.number).collect::<Vec<_>>(), [0, 1, 2]);

    let published = published(&bed).await;
    assert_eq!(wait_senders(&bed).await.len(), 3);
    for stream in &mirror.streams {
        let tables: BTreeSet<String> =
            of.iter().filter(|(_, n)| **n == stream.number).map(|(table, _)| table.clone()).collect();
        assert_eq!(published.get(&stream.publication), Some(&tables), "only its own tables");
    }

    write_to_all(&bed, 2).await;
    wait_all_equal(&bed, &SEVEN).await;
    assert_ne!(of["t1"], of["t2"]);
    bed.sql("begin; insert into t1 values (-5, 1, ''); truncate t1, t2; insert into t1 values (1, 1, 'back'); commit").await;
    bed.sql("alter table t3 add column more int default 7; update t3 set more = id where id < 50").await;
    bed.sql("alter table t4 rename column note to remark; insert into t4 values (-7, 7, 'renamed')").await;
    write_to_all(&bed, 3).await;
    assert_eq!(bed.wait_equal("t2", "t2").await, 27);
    wait_all_equal(&bed, &["t0", "t1", "t3", "t5", "t6"]).await;
    // By ClickHouse's own name of the column, if the destination keeps it.
    wait::until("t4", SOON, || async {
        let seen = bed.clickhouse.query("select count() from t4 final where id = -7").await?;
        if seen.trim() == "1" { Ok(()) } else { Err(seen) }
    })
    .await;
}

async fn a_worker_is_killed(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    make_seven(&bed).await;
    let mut first = cell.worker().await;
    bed.create(spread(&bed, &SEVEN, 3)).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    write_to_all(&bed, 1).await;
    first.kill();
    write_to_all(&bed, 2).await;
    bed.sql("truncate t1, t5").await;
    let _second = cell.worker().await;
    write_to_all(&bed, 3).await;
    wait_all_equal(&bed, &SEVEN).await;
    bed.wait_state(mirror::State::Running).await;
}

/// The stream whose walsender is ended cannot begin again for a while, because somebody has locked its row
/// in the catalog. The others never notice.
async fn a_killed_walsender_stops_only_its_tables(bed: Bed) {
    make_seven(&bed).await;
    bed.create(spread(&bed, &SEVEN, 3)).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    let of = streams_of(&mirror);
    let others: Vec<&str> = SEVEN.into_iter().filter(|table| of[*table] != 1).collect();
    let before = wait_senders(&bed).await;
    let victim = &mirror.streams[1].slot;
    let catalog = connect(&stack::endpoints().catalog, None).await;
    let lock =
        format!("begin; select 1 from streams where mirror = '{}' and n = 1 for no key update", bed.name);
    catalog.batch_execute(&lock).await.expect("a lock");
    bed.sql(&format!("select pg_terminate_backend({})", before[victim])).await;
    write_to_all(&bed, 1).await;
    wait_all_equal(&bed, &others).await;
    let row = bed.source.query_one("select pg_current_wal_lsn()::text", &[]).await.expect("a position");
    let end: Lsn = row.get::<_, String>(0).parse().expect("a position");
    let passed = |stream: &api::Stream| stream.position.parse::<Lsn>().is_ok_and(|at| at >= end);
    let seen = bed
        .wait_for("the others' positions", |mirror| passed(&mirror.streams[0]) && passed(&mirror.streams[2]))
        .await;
    assert!(!passed(&seen.streams[1]), "{seen:?}");
    catalog.batch_execute("rollback").await.expect("no lock");
    wait_all_equal(&bed, &SEVEN).await;
    let after = wait_senders(&bed).await;
    for (slot, pid) in &before {
        assert_eq!(after[slot] == *pid, slot != victim, "{slot}: {before:?} {after:?}");
    }
}

async fn set_tables(bed: &Bed, tables: &[&str]) -> Result<api::Mirror, Status> {
    let asked = api::Mirror { settings: None, ..spread(bed, tables, 1) };
    let request = api::UpdateMirrorRequest {
        mirror: Some(asked),
        update_mask: Some(FieldMask { paths: vec!["tables".to_owned()] }),
        ..Default::default()
    };
    bed.mirrors().update_mirror(request).await.map(tonic::Response::into_inner)
}

async fn tables_join_pause_leave_and_come_back(bed: Bed) {
    make_seven(&bed).await;
    bed.create(spread(&bed, &["t0", "t1", "t2"], 2)).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    let of = streams_of(&mirror);
    assert_eq!((of["t0"], of["t1"], of["t2"]), (0, 1, 0));
    let before = wait_senders(&bed).await;
    let [zero, one] = [0, 1].map(|n| mirror.streams[n].slot.clone());

    // Paused and taken up again: only its own stream takes notice.
    let pause = api::PauseTableRequest {
        name: bed.name.clone(),
        table: "public.t1".to_owned(),
        ..Default::default()
    };
    bed.mirrors().pause_table(pause).await.expect("a pause");
    let paused = wait_senders(&bed).await;
    assert_eq!(paused[&zero], before[&zero], "the other stream goes on");
    bed.sql("delete from t1 where id < 50; insert into t0 values (-1, 1, '')").await;
    let resume = api::ResumeTableRequest {
        name: bed.name.clone(),
        table: "public.t1".to_owned(),
        ..Default::default()
    };
    bed.mirrors().resume_table(resume).await.expect("it goes on");
    wait_all_equal(&bed, &["t0", "t1", "t2"]).await;

    // One that joins goes to the stream that carries least.
    set_tables(&bed, &["t0", "t1", "t2", "t3"]).await.expect("a table joins");
    let joined = bed.wait_table("public.t3", table::State::Streaming).await;
    assert_eq!(streams_of(&joined)["t3"], 1);
    assert!(published(&bed).await[&mirror.streams[1].publication].contains("t3"));
    assert_eq!(wait_senders(&bed).await[&zero], before[&zero]);
    bed.sql("update t3 set v = -v; delete from t3 where id = 1").await;
    wait_all_equal(&bed, &["t3"]).await;

    // One that leaves and comes back belongs to its former stream, although the other one carries less.
    set_tables(&bed, &["t0", "t2"]).await.expect("tables leave");
    assert_eq!(published(&bed).await[&mirror.streams[1].publication], BTreeSet::new());
    set_tables(&bed, &["t0"]).await.expect("a table leaves");
    bed.sql("delete from t2 where id > 100; update t2 set v = 0").await;
    set_tables(&bed, &["t0", "t2"]).await.expect("it comes back");
    let back = bed.wait_table("public.t2", table::State::Streaming).await;
    assert_eq!(streams_of(&back)["t2"], 0, "its rows there are of that stream");
    bed.sql("update t2 set v = id where id < 10; insert into t0 values (-2, 1, '')").await;
    wait_all_equal(&bed, &["t0", "t2"]).await;
    assert!(senders(&bed).await.contains_key(&one), "a stream without tables keeps its slot");
}

async fn events(bed: &Bed) -> Vec<api::Event> {
    let request =
        api::ListMirrorEventsRequest { name: bed.name.clone(), page_size: 1_000, ..Default::default() };
    bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events
}

/// Tables of which a copy came to its end, each as often as one did.
async fn copied(bed: &Bed) -> BTreeMap<String, usize> {
    let mut copied = BTreeMap::new();
    for event in events(bed).await.into_iter().filter(|event| event.code == "COPY_FINISHED") {
        *copied.entry(event.table).or_default() += 1;
    }
    copied
}

/// Ends the walsender on a slot and drops the slot before the next attempt takes it.
async fn lose_slot(bed: &Bed, slot: &str) {
    bed.sql(&format!(
        "do $$ begin loop
            perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}';
            begin perform pg_drop_replication_slot('{slot}'); return; exception when object_in_use then null; end;
        end loop; end $$"
    ))
    .await;
}

async fn one_lost_slot_copies_only_its_tables(bed: Bed) {
    make_seven(&bed).await;
    let mut request = spread(&bed, &SEVEN, 3);
    let settings = request.settings.get_or_insert_default();
    settings.on_slot_lost = settings::OnSlotLost::ResyncMirror.into();
    bed.create(request).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    let before = wait_senders(&bed).await;
    let lost = &mirror.streams[2].slot;
    lose_slot(&bed, lost).await;
    // Whoever made only a new slot would never hear of these.
    write_to_all(&bed, 1).await;
    bed.sql("delete from t2 where id % 2 = 0; truncate t5").await;
    wait_all_equal(&bed, &SEVEN).await;
    bed.wait_state(mirror::State::Running).await;
    write_to_all(&bed, 2).await;
    wait_all_equal(&bed, &SEVEN).await;
    let of = streams_of(&mirror);
    for (table, times) in copied(&bed).await {
        let expected = if of[table.trim_start_matches("public.")] == 2 { 2 } else { 1 };
        assert_eq!(times, expected, "{table} was copied {times} times; {of:?}");
    }
    let after = wait_senders(&bed).await;
    for (slot, pid) in before.iter().filter(|(slot, _)| *slot != lost) {
        assert_eq!(after[slot], *pid, "the other streams go on");
    }
    assert!(events(&bed).await.iter().any(|event| event.code == "SLOT_LOST"));

    // All at once: each begins anew by itself.
    for stream in &mirror.streams {
        lose_slot(&bed, &stream.slot).await;
    }
    write_to_all(&bed, 3).await;
    wait_all_equal(&bed, &SEVEN).await;
    bed.wait_state(mirror::State::Running).await;
    write_to_all(&bed, 4).await;
    wait_all_equal(&bed, &SEVEN).await;
}

/// Waits until `users` holds the rows of both tables that write into it.
async fn wait_users(bed: &Bed) {
    wait_rows(bed, &[(&bed.name, "eu"), (&bed.name, "us")]).await;
}

async fn tables_of_one_destination_in_two_streams(bed: Bed) {
    for table in ["eu", "us"] {
        bed.sql(&format!(
            "create table {table} (id int primary key, v text);
             insert into {table} select i, '{table}' from generate_series(1, 300) i"
        ))
        .await;
    }
    let mut request = spread(&bed, &["eu", "us"], 2);
    request.tables.iter_mut().for_each(|table| table.destination = "users".into());
    request.settings.get_or_insert_default().on_slot_lost = settings::OnSlotLost::ResyncMirror.into();
    bed.create(request).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    assert_eq!(streams_of(&mirror).into_values().collect::<Vec<_>>(), [0, 1]);
    wait_users(&bed).await;
    bed.sql("update eu set v = 'both' where id < 20; update us set v = 'both' where id < 30; truncate eu; insert into eu values (7, 'after')").await;
    wait_users(&bed).await;
    // The versions of the one have nothing to do with those of the other: as if only the second stream had
    // once begun anew on another log.
    change_state(&bed, true).await;
    let catalog = connect(&stack::endpoints().catalog, None).await;
    let raise = "update streams set base = 1::numeric * (1::bigint << 40) where mirror = $1 and n = 1";
    assert_eq!(catalog.execute(raise, &[&bed.name]).await.expect("another base"), 1);
    change_state(&bed, false).await;
    bed.sql("update eu set v = 'raised'; update us set v = 'raised' where id > 200").await;
    wait_users(&bed).await;
    lose_slot(&bed, &mirror.streams[1].slot).await;
    bed.sql("delete from us where id > 100; update eu set v = 'again'; insert into eu values (8, 'eight')")
        .await;
    wait_users(&bed).await;
    bed.wait_state(mirror::State::Running).await;
    bed.sql("update us set v = 'end' where id = 5; update eu set v = 'end' where id = 8; delete from eu where id = 7").await;
    wait_users(&bed).await;
}

/// Pauses or resumes the mirror.
async fn change_state(bed: &Bed, pause: bool) {
    let (name, mut mirrors) = (bed.name.clone(), bed.mirrors());
    if pause {
        let request = api::PauseMirrorRequest { name, ..Default::default() };
        mirrors.pause_mirror(request).await.expect("a pause");
    } else {
        let request = api::ResumeMirrorRequest { name, ..Default::default() };
        mirrors.resume_mirror(request).await.expect("it goes on");
    }
}

async fn pause_resync_and_drop(bed: Bed) {
    make_seven(&bed).await;
    bed.create(spread(&bed, &SEVEN, 3)).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    change_state(&bed, true).await;
    assert!(senders(&bed).await.values().all(Option::is_none), "every stream stands still");
    write_to_all(&bed, 1).await;
    change_state(&bed, false).await;
    wait_all_equal(&bed, &SEVEN).await;
    bed.wait_state(mirror::State::Running).await;

    for table in ["t0", "t1", "t2"] {
        bed.clickhouse
            .query(&format!("insert into {table} (id, _version) values (-77, 1)"))
            .await
            .expect("a stray row");
    }
    let resync = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(resync).await.expect("a resync");
    write_to_all(&bed, 2).await;
    wait_all_equal(&bed, &SEVEN).await;
    bed.wait_state(mirror::State::Running).await;
    wait::until("a second copy of every table", SOON, || async {
        let copied = copied(&bed).await;
        if copied.values().all(|times| *times == 2) { Ok(()) } else { Err(format!("{copied:?}")) }
    })
    .await;
    wait_all_equal(&bed, &SEVEN).await;

    let drop = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let dropped = bed.mirrors().delete_mirror(drop).await.expect("a drop").into_inner();
    assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    assert_eq!(
        (senders(&bed).await.len(), published(&bed).await.len()),
        (0, 0),
        "nothing stays on the source"
    );
}

async fn what_cannot_be_is_refused(bed: Bed) {
    make_seven(&bed).await;
    let refused = async |change: fn(&mut api::Settings)| {
        let mut request = spread(&bed, &["t0", "t1"], 2);
        change(request.settings.get_or_insert_default());
        bed.create(request).await.expect_err("a refusal")
    };
    for change in [
        (|asked| asked.slot = "mine".to_owned()) as fn(&mut api::Settings),
        |asked| asked.publication = "mine".to_owned(),
        |asked| asked.streams = Some(17),
    ] {
        let status = refused(change).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    bed.create(spread(&bed, &["t0", "t1"], 2)).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    let request = api::UpdateMirrorRequest {
        mirror: Some(spread(&bed, &[], 3)),
        update_mask: Some(FieldMask { paths: vec!["settings.streams".to_owned()] }),
        ..Default::default()
    };
    let status = bed.mirrors().update_mirror(request).await.expect_err("it is frozen");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("slots"), "{status:?}");
}
