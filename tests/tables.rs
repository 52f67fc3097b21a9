//! The life of a mirror's tables: they join, pause, go on and leave while the others stream.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use pbjson_types::FieldMask;
use tonic::{Code, Status};

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("tables::join_while_they_and_others_are_written", join_while_they_and_others_are_written),
        test("tables::leave_and_join_again", leave_and_join_again),
        test("tables::leave_and_join_in_any_order_at_once", leave_and_join_in_any_order_at_once),
        test("tables::pause_and_go_on", pause_and_go_on),
        test("tables::pause_and_drop_during_their_copy", pause_and_drop_during_their_copy),
        test("tables::settings_change_while_it_streams", settings_change_while_it_streams),
        test("tables::what_cannot_change_is_refused", what_cannot_change_is_refused),
        test("tables::apply_edits_a_mirror_that_runs", apply_edits_a_mirror_that_runs),
        test("tables::a_refused_insert_stops_its_table_alone", a_refused_insert_stops_its_table_alone),
    ]
}

fn table(source: &str) -> api::Table {
    api::Table { source: source.to_owned(), ..Default::default() }
}

/// Asks for exactly these tables.
async fn set_tables(bed: &Bed, tables: &[&str]) -> Result<api::Mirror, Status> {
    let asked = api::Mirror {
        name: bed.name.clone(),
        tables: tables.iter().map(|source| table(source)).collect(),
        ..Default::default()
    };
    update(bed, asked, &["tables"]).await
}

async fn update(bed: &Bed, asked: api::Mirror, paths: &[&str]) -> Result<api::Mirror, Status> {
    let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
    let request =
        api::UpdateMirrorRequest { mirror: Some(asked), update_mask: Some(mask), ..Default::default() };
    bed.mirrors().update_mirror(request).await.map(tonic::Response::into_inner)
}

async fn drop_table(bed: &Bed, table: &str, drop_destination: bool) -> Result<api::Mirror, Status> {
    let request = api::DropTableRequest {
        name: bed.name.clone(),
        table: table.to_owned(),
        drop_destination,
        ..Default::default()
    };
    bed.mirrors().drop_table(request).await.map(tonic::Response::into_inner)
}

async fn pause(bed: &Bed, table: &str) -> Result<api::Mirror, Status> {
    let request =
        api::PauseTableRequest { name: bed.name.clone(), table: table.to_owned(), ..Default::default() };
    bed.mirrors().pause_table(request).await.map(tonic::Response::into_inner)
}

async fn resume(bed: &Bed, table: &str) -> Result<api::Mirror, Status> {
    let request =
        api::ResumeTableRequest { name: bed.name.clone(), table: table.to_owned(), ..Default::default() };
    bed.mirrors().resume_table(request).await.map(tonic::Response::into_inner)
}

fn sources(mirror: &api::Mirror) -> Vec<&str> {
    mirror.tables.iter().map(|table| table.source.as_str()).collect()
}

async fn count(bed: &Bed, table: &str) -> u64 {
    let answer = bed.clickhouse.query(&format!("select count() from {table} final")).await.expect("a count");
    answer.trim().parse().expect("a number")
}

/// Tables in the publications of the test's database.
async fn published(bed: &Bed) -> Vec<String> {
    let sql = "select tablename::text from pg_publication_tables order by 1";
    let rows = bed.source.query(sql, &[]).await.expect("the publications");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn join_while_they_and_others_are_written(bed: Bed) {
    bed.sql(
        "create table a (id int primary key, v int); create table b (id int primary key, v int, note text);
             insert into a select i, 0 from generate_series(1, 100) i;
             insert into b select i, 0, repeat('x', 3000) || i from generate_series(1, 5000) i",
    )
    .await;
    bed.mirror_streaming(&["public.a"]).await;

    // A transaction that wrote before the table was published and commits after: it must not be lost.
    let late = bed.session().await;
    late.batch_execute("begin; insert into b values (-1, -1, 'late'); update b set v = 7 where id = 7")
        .await
        .unwrap();
    let adding = set_tables(&bed, &["public.a", "public.b"]);
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        late.batch_execute("commit").await.unwrap();
    };
    let (added, ()) = tokio::join!(adding, commit);
    let added = added.expect("a table joins");
    assert_eq!(sources(&added), ["public.a", "public.b"]);
    assert_eq!(added.settings, bed.get().await.unwrap().settings, "the rest is as it was");
    for round in 1..=30 {
        bed.sql(&format!(
            "update b set v = {round} where id % 50 = {round}; delete from b where id = {round} * 90;
             insert into b values ({round} + 10000, 1, 'new'); insert into a values ({round} + 1000, {round})"
        ))
        .await;
    }
    bed.wait_table("public.b", table::State::Streaming).await;
    bed.wait_equal("b", "b").await;
    assert_eq!(bed.wait_equal("a", "a").await, 130);
    bed.wait_state(mirror::State::Running).await;
    bed.sql("insert into b values (99999, 1, 'afterwards'); delete from b where id = 7").await;
    bed.wait_equal("b", "b").await;

    // What is there already is no change.
    let again = set_tables(&bed, &["public.b", "public.a"]).await.expect("nothing to do");
    assert_eq!(sources(&again), ["public.a", "public.b"]);
    // A pattern stands for the tables that there are now.
    bed.sql("create table c (id int primary key); insert into c values (1)").await;
    let all = set_tables(&bed, &["public.*"]).await.expect("all tables");
    assert_eq!(sources(&all), ["public.a", "public.b", "public.c"]);
    bed.wait_table("public.c", table::State::Streaming).await;
    bed.wait_equal("c", "c").await;
}

async fn leave_and_join_again(bed: Bed) {
    bed.sql(
        "create table a (id int primary key); create table b (id int primary key, v int);
             insert into a values (1); insert into b select i, i from generate_series(1, 500) i",
    )
    .await;
    bed.mirror_streaming(&["public.a", "public.b"]).await;
    let left = drop_table(&bed, "public.b", false).await.expect("it leaves");
    assert_eq!(sources(&left), ["public.a"]);
    assert_eq!(published(&bed).await, ["a"]);
    // Nothing more is written to it: what follows it in the log has arrived.
    bed.sql("insert into b values (1000, 1); delete from b where id <= 100; insert into a values (2)").await;
    assert_eq!(bed.wait_equal("a", "a").await, 2);
    assert_eq!(count(&bed, "b").await, 500, "the destination table stays as it was");
    let gone = drop_table(&bed, "public.b", false).await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound, "{gone:?}");

    // Its rows are the mirror's own, and those that the source deleted meanwhile go.
    let back = set_tables(&bed, &["public.a", "public.b"]).await.expect("it joins again");
    assert_eq!(back.tables[1].destination, "b");
    bed.wait_table("public.b", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("b", "b").await, 401);
    bed.sql("update b set v = -v where id > 450").await;
    bed.wait_equal("b", "b").await;

    let left = drop_table(&bed, "public.b", true).await.expect("it leaves with its destination");
    assert_eq!(sources(&left), ["public.a"]);
    wait::until("the destination table is gone", SOON, || async {
        match bed.clickhouse.query("exists table b").await.expect("an answer").trim() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let last = drop_table(&bed, "public.a", false).await.expect_err("the last one");
    assert_eq!(last.code(), Code::FailedPrecondition, "{last:?}");
}

async fn leave_and_join_in_any_order_at_once(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key, v int);
             create table c (id int primary key);
             insert into a values (1); insert into b select i, i from generate_series(1, 300) i; insert into c values (1)")
        .await;
    bed.mirror_streaming(&["public.a", "public.b"]).await;
    let _ = tokio::join!(
        drop_table(&bed, "public.b", false),
        drop_table(&bed, "public.b", false),
        set_tables(&bed, &["public.a", "public.b", "public.c"]),
        set_tables(&bed, &["public.a", "public.c"]),
        pause(&bed, "public.b"),
        set_tables(&bed, &["public.a", "public.b"]),
    );
    drop_table_if_there(&bed, "public.b").await;
    bed.sql("delete from b where id < 100; insert into b values (1000, 0)").await;
    set_tables(&bed, &["public.a", "public.b", "public.c"]).await.expect("all three");
    for table in ["a", "b", "c"] {
        bed.wait_table(&format!("public.{table}"), table::State::Streaming).await;
    }
    bed.sql("insert into a values (2); insert into b values (1001, 0); insert into c values (2)").await;
    assert_eq!(bed.wait_equal("a", "a").await, 2);
    assert_eq!(bed.wait_equal("b", "b").await, 203);
    assert_eq!(bed.wait_equal("c", "c").await, 2);
    assert_eq!(published(&bed).await, ["a", "b", "c"]);
}

async fn drop_table_if_there(bed: &Bed, table: &str) {
    let request = api::DropTableRequest {
        name: bed.name.clone(),
        table: table.to_owned(),
        allow_missing: true,
        ..Default::default()
    };
    bed.mirrors().drop_table(request).await.expect("it is gone");
}

async fn pause_and_go_on(bed: Bed) {
    bed.sql(
        "create table a (id int primary key); create table b (id int primary key, v int);
             insert into b select i, i from generate_series(1, 200) i",
    )
    .await;
    bed.mirror_streaming(&["public.a", "public.b"]).await;
    let paused = pause(&bed, "public.b").await.expect("it pauses");
    assert_eq!(paused.tables[1].state(), table::State::Paused);
    bed.sql("insert into b values (1000, 0); delete from b where id <= 50; insert into a values (1)").await;
    assert_eq!(bed.wait_equal("a", "a").await, 1);
    assert_eq!(count(&bed, "b").await, 200, "nothing of it is written");
    let twice = pause(&bed, "public.b").await.expect("it stays paused");
    assert_eq!(twice.tables[1].state(), table::State::Paused);
    // A resync of all leaves it alone, and its log is not kept.
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    bed.wait_table("public.a", table::State::Streaming).await;
    let mirror = bed.wait_table("public.b", table::State::Paused).await;
    assert_eq!(mirror.state(), mirror::State::Running);

    resume(&bed, "public.b").await.expect("it goes on");
    bed.wait_table("public.b", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("b", "b").await, 151);
    resume(&bed, "public.b").await.expect("it goes on already");
    bed.sql("insert into b values (1001, 0)").await;
    assert_eq!(bed.wait_equal("b", "b").await, 152);

    let request = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    pause(&bed, "public.b").await.expect("it pauses");
    bed.mirrors().pause_mirror(request).await.expect("all pauses");
    let refused = resume(&bed, "public.b").await.expect_err("the mirror is paused");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("PAUSED"), "{refused:?}");
    // Tables may leave and join a paused mirror; they are copied when it goes on.
    bed.sql("create table c (id int primary key); insert into c values (1)").await;
    set_tables(&bed, &["public.a", "public.c"]).await.expect("another table");
    let request = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(request).await.expect("all goes on");
    bed.wait_table("public.c", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("c", "c").await, 1);
    assert_eq!(published(&bed).await, ["a", "c"]);
}

async fn pause_and_drop_during_their_copy(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key, v int); create table c (id int primary key);
             insert into b select i, i from generate_series(1, 1000) i; insert into c select i from generate_series(1, 1000) i")
        .await;
    bed.mirror_streaming(&["public.a"]).await;
    // Copies wait for this one, so they are under way for as long as the test likes.
    let open = bed.session().await;
    open.batch_execute("begin; insert into a values (5)").await.unwrap();
    set_tables(&bed, &["public.a", "public.b", "public.c"]).await.expect("two join");
    bed.wait_for("both are copied", |mirror| {
        mirror.tables.iter().filter(|table| !table.blocked_by.is_empty()).count() == 2
    })
    .await;
    pause(&bed, "public.b").await.expect("it pauses");
    drop_table(&bed, "public.c", false).await.expect("it leaves");
    let mirror = bed.get().await.unwrap();
    assert_eq!(sources(&mirror), ["public.a", "public.b"]);
    assert_eq!((mirror.tables[1].state(), mirror.tables[1].blocked_by.as_str()), (table::State::Paused, ""));
    open.batch_execute("commit").await.unwrap();
    assert_eq!(bed.wait_equal("a", "a").await, 1);
    assert_eq!((count(&bed, "b").await, count(&bed, "c").await), (0, 0), "neither copy goes on");
    resume(&bed, "public.b").await.expect("it goes on");
    bed.wait_table("public.b", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("b", "b").await, 1000);
}

async fn settings_change_while_it_streams(bed: Bed) {
    bed.sql("create table a (id int primary key); insert into a values (1)").await;
    let mirror = bed.mirror_streaming(&["public.a"]).await;
    let flush = api::FlushSettings { max_rows: Some(7), ..Default::default() };
    let snapshot = api::SnapshotSettings { parallel_tables: Some(9), ..Default::default() };
    let settings = api::Settings { flush: Some(flush), snapshot: Some(snapshot), ..Default::default() };
    let asked = api::Mirror { name: bed.name.clone(), settings: Some(settings), ..Default::default() };
    let trial =
        api::UpdateMirrorRequest { mirror: Some(asked.clone()), validate_only: true, ..Default::default() };
    let shown = bed.mirrors().update_mirror(trial).await.expect("a trial").into_inner();
    assert_eq!(shown.settings.unwrap().flush.unwrap().max_rows, Some(7));
    assert_eq!(bed.get().await.unwrap().settings, mirror.settings, "a trial changes nothing");

    let changed =
        update(&bed, asked, &["settings.flush.max_rows", "settings.snapshot.parallel_tables"]).await;
    let settings = changed.expect("it changes").settings.unwrap();
    let (flush, snapshot) = (settings.flush.unwrap(), settings.snapshot.unwrap());
    assert_eq!((flush.max_rows, flush.max_in_flight, snapshot.parallel_tables), (Some(7), Some(2), Some(9)));
    bed.sql("insert into a select generate_series(2, 100)").await;
    assert_eq!(bed.wait_equal("a", "a").await, 100);
    // The stream takes notice: more rows than 7 need more than one insert.
    let parts =
        "select max(rows) from system.parts where database = currentDatabase() and table = 'a' and level = 0";
    if let Ok(rows) = bed.clickhouse.query(parts).await {
        assert!(rows.trim().parse::<u64>().unwrap_or_default() <= 7, "{rows} rows in one insert");
    }
}

async fn what_cannot_change_is_refused(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key); create table keyless (id int)")
        .await;
    let mirror = bed.mirror_streaming(&["public.a"]).await;
    let named = api::Mirror { name: bed.name.clone(), ..Default::default() };
    let settings = api::Settings {
        on_unrepresentable: api::settings::OnUnrepresentable::WriteNull.into(),
        ..Default::default()
    };
    let asked = api::Mirror { settings: Some(settings), ..named.clone() };
    let refused = update(&bed, asked, &["settings.on_unrepresentable"]).await.expect_err("fixed");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("settings.on_unrepresentable"), "{refused:?}");
    let asked = api::Mirror {
        tables: vec![api::Table { exclude: vec!["x".into()], ..table("public.a") }],
        ..named.clone()
    };
    let refused = update(&bed, asked, &["tables"]).await.expect_err("a definition");
    assert!(refused.message().contains("public.a.exclude"), "{refused:?}");
    let refused = update(&bed, named.clone(), &["no_such_field"]).await.expect_err("no field");
    assert!(refused.message().contains("no_such_field"), "{refused:?}");
    // As at creation.
    let refused = set_tables(&bed, &["public.a", "public.keyless"]).await.expect_err("no key");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("primary key"), "{refused:?}");
    let refused = set_tables(&bed, &["public.a", "public.nothing"]).await.expect_err("no table");
    assert!(refused.message().contains("public.nothing"), "{refused:?}");
    let stale =
        api::Mirror { etag: "stale".into(), tables: vec![table("public.a"), table("public.b")], ..named };
    let refused = update(&bed, stale, &["tables"]).await.expect_err("another etag");
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    let now = bed.get().await.unwrap();
    assert_eq!((now.etag, now.tables.len()), (mirror.etag, 1), "nothing was changed");
}

async fn apply_edits_a_mirror_that_runs(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key); insert into a values (1); insert into b values (1)")
        .await;
    bed.mirror_streaming(&["public.a"]).await;
    let document = |tables: &str, settings: &str| {
        format!(
            "mirrors:\n- name: {0}\n  source: {0}-pg\n  destination: {0}-ch\n  tables: [{tables}]\n  settings: {{{settings}}}\n",
            bed.name
        )
    };
    let apply = async |document: String, dry_run: bool| {
        let request = api::ApplyRequest { document, dry_run, ..Default::default() };
        let mut client = api::system_service_client::SystemServiceClient::new(bed.api.clone());
        client.apply(request).await.map(|answer| answer.into_inner().objects.remove(0))
    };
    let text = document("{source: public.a}, {source: public.b, destination: bee}", "flush: {max_rows: 7}");
    let planned = apply(text.clone(), true).await.expect("a plan");
    assert_eq!(planned.action(), api::applied_object::Action::Updated);
    assert_eq!(planned.changes.len(), 2, "{planned:?}");
    assert_eq!(bed.get().await.unwrap().tables.len(), 1, "a dry run changes nothing");
    let done = apply(text.clone(), false).await.expect("an edit");
    assert_eq!(done.action(), api::applied_object::Action::Updated);
    bed.wait_table("public.b", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("b", "bee").await, 1);
    let again = apply(text, false).await.expect("nothing to do");
    assert_eq!(again.action(), api::applied_object::Action::Unchanged);
    let done = apply(document("{source: public.b}", ""), false).await.expect("another edit");
    assert_eq!(done.changes.len(), 2, "{done:?}");
    let mirror = bed.get().await.unwrap();
    assert_eq!((sources(&mirror), mirror.tables[0].destination.as_str()), (vec!["public.b"], "bee"));
    bed.sql("insert into b values (2)").await;
    assert_eq!(bed.wait_equal("b", "bee").await, 2);
}

async fn a_refused_insert_stops_its_table_alone(bed: Bed) {
    bed.sql(
        "create table good (id int primary key, v int); create table narrow (id int primary key, v int);
             create table cut (id int primary key, v int)",
    )
    .await;
    bed.mirror_streaming(&["public.good", "public.narrow", "public.cut"]).await;
    bed.clickhouse.query("alter table cut drop column v").await.expect("a column is dropped by hand");
    bed.clickhouse
        .query("alter table narrow add constraint small check v < 100")
        .await
        .expect("a constraint");
    bed.sql(
        "insert into cut values (1, 1); insert into narrow values (1, 1000); insert into good values (1, 1)",
    )
    .await;
    for table in ["public.cut", "public.narrow"] {
        let mirror = bed.wait_table(table, table::State::Error).await;
        let failed = mirror.tables.iter().find(|found| found.source == table).unwrap();
        let error = failed.error.as_ref().expect("its error");
        assert!(!error.code.is_empty() && !error.remedy.is_empty(), "{error:?}");
        assert_eq!(mirror.state(), mirror::State::Degraded);
    }
    let refused = resume(&bed, "public.cut").await.expect_err("it is in error");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("ERROR"), "{refused:?}");
    for id in 2..50 {
        bed.sql(&format!("insert into good values ({id}, {id}); insert into cut values ({id}, {id})")).await;
    }
    assert_eq!(bed.wait_equal("good", "good").await, 49);

    bed.clickhouse.query("alter table narrow drop constraint small").await.expect("no constraint");
    for table in ["public.cut", "public.narrow"] {
        let request =
            api::ResyncTableRequest { name: bed.name.clone(), table: table.to_owned(), ..Default::default() };
        bed.mirrors().resync_table(request).await.expect("a resync");
        bed.wait_table(table, table::State::Streaming).await;
    }
    assert_eq!(bed.wait_equal("cut", "cut").await, 49);
    assert_eq!(bed.wait_equal("narrow", "narrow").await, 1);
    bed.wait_state(mirror::State::Running).await;
}
