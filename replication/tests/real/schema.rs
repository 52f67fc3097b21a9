//! Columns and names that change while a table streams.

use std::sync::Arc;

use millrace_replication::stream::{OnColumnDropped, OnRewrite, Report, Rules, SchemaChange};
use millrace_replication::table::TablePlan;
use millrace_terms::Code;

use crate::mirror::{Mirror, Running};

const T: &str = "create table t (id bigint primary key, a text, n int not null default 1)";

/// The plan that was told last.
fn followed(running: &Running) -> Option<Arc<TablePlan>> {
    let reports = running.reports.lock().unwrap();
    reports.iter().rev().find_map(|report| match report {
        Report::Followed { plan, .. } => Some(plan.clone()),
        _ => None,
    })
}

/// The codes of all changes that were told.
fn codes(running: &Running) -> Vec<&'static str> {
    let reports = running.reports.lock().unwrap();
    let changes = reports.iter().filter_map(|report| match report {
        Report::Followed { changes, .. } => Some(changes.clone()),
        _ => None,
    });
    changes.flatten().map(|change| SchemaChange::code(&change).as_str()).collect()
}

fn needed(running: &Running) -> Option<String> {
    let reports = running.reports.lock().unwrap();
    reports.iter().find_map(|report| match report {
        Report::ResyncNeeded { reason, .. } => Some(reason.message().to_owned()),
        _ => None,
    })
}

fn with_rules(mut mirror: Mirror, change: impl Fn(&mut Rules)) -> Mirror {
    for table in &mut mirror.config.tables {
        change(Arc::make_mut(&mut table.rules));
    }
    mirror
}

/// Names and types in ClickHouse, less our own columns.
async fn columns(mirror: &Mirror, table: &str) -> Vec<String> {
    let sql = format!(
        "select concat(name, ' ', type) from system.columns where database = '{}' and table = '{table}' \
         and not startsWith(name, '_') order by position",
        mirror.sink.database()
    );
    mirror.sink.query(&sql).await.unwrap()
}

/// All rows of `t` on both sides by all its columns, in the order of the source.
async fn assert_equal(mirror: &Mirror, columns: &[&str]) -> usize {
    let source: Vec<_> = columns.iter().map(|c| format!("coalesce(\"{c}\"::text, '-')")).collect();
    let sink: Vec<_> = columns.iter().map(|c| format!("ifNull(toString(`{c}`), '-')")).collect();
    mirror.assert_same(0, &source.join(" || ' ' || "), &sink.join(" || ' ' || ")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_without_default_is_added_and_old_rows_hold_null() {
    for binary in [false, true] {
        let mut mirror = Mirror::new(T, &["t"]).await;
        mirror.config.binary = binary;
        let mut stream = mirror.start();
        mirror
            .source
            .run("insert into t values (1, 'x', 1);
                  alter table t add b int, add \"Mixed Case\" timestamptz;
                  insert into t values (2, 'y', 2, 3, '2024-01-02 03:04:05+00'); update t set a = 'z' where id = 1;
                  delete from t where id = 2; insert into t values (3, 'y', 2, 3)")
            .await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(assert_equal(&mirror, &["id", "a", "n", "b"]).await, 2);
        assert_eq!(
            columns(&mirror, "t").await[3..],
            ["b Nullable(Int32)", "Mixed Case Nullable(DateTime64(6, 'UTC'))"]
        );
        assert_eq!(codes(&stream), ["COLUMN_ADDED", "COLUMN_ADDED"]);
        assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
        stream.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_read_the_constant_default_of_a_new_column() {
    let mirror = Mirror::new(T, &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t select i, 'x', 1 from generate_series(1, 10) i;
              alter table t add i int not null default 7, add s text default 'it''s \\ \"q\"',
                add d numeric(10, 2) not null default 1.5, add b bytea default '\\x00ff', add f float8 default 'NaN',
                add at timestamptz not null default now(), add day date default '2020-02-29', add ok bool default true,
                add u uuid default '550e8400-e29b-41d4-a716-446655440000', add js jsonb not null default '{\"a\": [1]}',
                add tags text[] not null default '{a,\"b c\",NULL}', add empty int[] not null default '{}';
              alter table t alter i set default 8;
              insert into t (id, a) values (11, 'new'); update t set a = 'y' where id = 3; delete from t where id = 4")
        .await;
    mirror.caught_up(&mut stream).await;
    let scalars = ["id", "a", "n", "i", "s", "u", "day", "js"];
    assert_eq!(assert_equal(&mirror, &scalars).await, 10);
    let row = "id::text || ' ' || md5(b) || ' ' || f::text || ' ' || d::text || ' ' || (extract(epoch from at) * 1000000)::bigint::text || ok::text || array_to_string(tags, ',', 'N') || cardinality(empty)::text";
    let sink = "concat(toString(id), ' ', lower(hex(MD5(assumeNotNull(b)))), ' ', if(isNaN(f), 'NaN', toString(f)), ' ', toDecimalString(d, 2), ' ', toString(toUnixTimestamp64Micro(at)), toString(ok), arrayStringConcat(arrayMap(x -> ifNull(x, 'N'), tags), ','), toString(length(empty)))";
    assert_eq!(mirror.assert_same(0, row, sink).await, 10);
    // Merged parts hold what was read before.
    mirror.sink.execute(&format!("optimize table {} final", mirror.sink.qualified("t"))).await.unwrap();
    assert_eq!(assert_equal(&mirror, &scalars).await, 10);
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_a_volatile_default_needs_a_resync() {
    for (on_rewrite, what) in
        [(OnRewrite::Resync, "needed"), (OnRewrite::Error, "failed"), (OnRewrite::Keep, "kept")]
    {
        let mirror = with_rules(Mirror::new(T, &["t"]).await, |rules| rules.on_rewrite = on_rewrite);
        let mut stream = mirror.start();
        // The default is dropped at once, as migrations do: nothing but the rewritten file tells of it.
        mirror
            .source
            .run(
                "insert into t values (1, 'x', 1);
                  alter table t add r float8 not null default random(); alter table t alter r drop default;
                  insert into t values (2, 'y', 2, 0.5)",
            )
            .await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(needed(&stream).is_some(), what == "needed");
        assert_eq!(stream.failed() == [(1, Code::TableSchemaChanged)], what == "failed");
        assert_eq!(codes(&stream).contains(&"ROWS_KEPT"), what == "kept");
        assert_eq!(columns(&mirror, "t").await[3], "r Float64");
        stream.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_type_change_rewrote_need_a_resync_and_a_vacuum_does_not() {
    let mirror = Mirror::new(T, &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 'x', 1); alter table t add c int default 5; insert into t values (2, 'y', 2, 6)")
        .await;
    mirror.caught_up(&mut stream).await;
    mirror.source.run("vacuum full t").await;
    mirror.source.run("insert into t values (3, 'z', 3, 6)").await;
    mirror.source.run("truncate t").await;
    mirror.source.run("insert into t values (6, 'z', 3, 6); delete from t").await;
    mirror.caught_up(&mut stream).await;
    mirror.source.run("insert into t values (4, 'z', 3, 6); alter table t alter c set default 9; insert into t values (5, 'z')").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(assert_equal(&mirror, &["id", "a", "n", "c"]).await, 2);
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    mirror.source.run("alter table t alter a type text using upper(a); insert into t values (7, 'z')").await;
    mirror.caught_up(&mut stream).await;
    assert!(needed(&stream).unwrap().contains("(a)"), "{:?}", needed(&stream));
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_kept_or_dropped_as_the_mirror_says() {
    for (rule, left) in [(OnColumnDropped::Keep, 4), (OnColumnDropped::Drop, 2)] {
        let ddl = "create table t (id bigint primary key, a text not null, b int, c int not null)";
        let mirror = with_rules(Mirror::new(ddl, &["t"]).await, |rules| rules.on_column_dropped = rule);
        let mut stream = mirror.start();
        mirror
            .source
            .run(
                "insert into t values (1, 'x', 1, 1);
                  alter table t drop a, drop b; insert into t values (2, 7)",
            )
            .await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(assert_equal(&mirror, &["id", "c"]).await, 2);
        assert_eq!(columns(&mirror, "t").await.len(), left);
        if rule == OnColumnDropped::Keep {
            let rows: Vec<String> = mirror
                .sink
                .query(&format!(
                    "select concat(a, '|', ifNull(toString(b), '-')) from {} order by id",
                    mirror.sink.qualified("t")
                ))
                .await
                .unwrap();
            assert_eq!(rows, ["x|1", "|-"]);
        }
        // Consecutive drops, and a column of a name that was kept.
        mirror.source.run("alter table t add d int; insert into t values (3, 8, 9); alter table t add a int default 3; insert into t values (4, 1, 1, 1)").await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(assert_equal(&mirror, &["id", "c", "d", "a"]).await, 4);
        assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
        stream.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_followed_by_their_number_when_they_are_renamed() {
    let ddl = "create table t (id bigint primary key, a text, b text, big text)";
    let mirror = Mirror::new(&format!("{ddl}; alter table t alter big set storage external"), &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 'a', 'b', (select string_agg(md5(i::text), '') from generate_series(1, 300) i));
              alter table t rename a to c; alter table t rename b to a;
              alter table t rename big to \"Odd `name`\"; update t set a = 'new' where id = 1; insert into t values (2, 'c2', 'a2', 'x')")
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&mirror, &["id", "c", "a"]).await, 2);
    let row = "id::text || md5(\"Odd `name`\")";
    assert_eq!(
        mirror
            .assert_same(0, row, "concat(toString(id), lower(hex(MD5(assumeNotNull(`Odd \\`name\\``)))))")
            .await,
        2
    );
    assert_eq!(codes(&stream), ["COLUMN_RENAMED"; 3]);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_column_stays_excluded_under_another_name() {
    let mut mirror = Mirror::new("create table t (id bigint primary key, secret text, v int)", &["t"]).await;
    let plan = Arc::make_mut(&mut mirror.config.tables[0].plan);
    plan.columns.remove(1);
    plan.excluded = vec!["secret".into()];
    plan.seen.omitted = vec![(2, "secret".into())];
    mirror.sink.drop_table("t", "").await.unwrap();
    mirror.sink.create_table(&mirror.plan(0), "").await.unwrap();
    let mut stream = mirror.start();
    mirror.source.run("insert into t values (1, 's', 1); alter table t rename secret to open; insert into t values (2, 's', 2)").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(assert_equal(&mirror, &["id", "v"]).await, 2);
    assert_eq!(columns(&mirror, "t").await, ["id Int64", "v Nullable(Int32)"]);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_followed_by_its_oid_when_it_is_renamed_or_moved() {
    let mirror = Mirror::new(T, &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into t values (1, 'x', 1); create schema other; alter table t set schema other;
              insert into other.t values (2, 'y', 1); alter table other.t rename to \"T 2\";
              insert into other.\"T 2\" values (3, 'y', 1)",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    let rows: Vec<String> = mirror
        .sink
        .query(&format!("select toString(id) from {} order by id", mirror.sink.qualified("t")))
        .await
        .unwrap();
    assert_eq!(rows, ["1", "2", "3"]);
    let now = followed(&stream).unwrap();
    assert_eq!((now.source.to_string(), now.destination.as_str()), ("other.\"T 2\"".to_owned(), "t"));
    assert!(codes(&stream).contains(&"TABLE_RENAMED") && stream.failed().is_empty());
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_widened_in_place_in_both_forms() {
    for binary in [false, true] {
        let ddl = "create table t (id bigint primary key, s int2 not null, i int4, f float4, d numeric(6, 2), v varchar(3), w int2)";
        let mut mirror =
            with_rules(Mirror::new(ddl, &["t"]).await, |rules| rules.on_rewrite = OnRewrite::Keep);
        mirror.config.binary = binary;
        let mut stream = mirror.start();
        mirror
            .source
            .run("insert into t values (1, -3, -70000, 0.1, 1234.56, 'abc', 5), (2, 4, 5, 'NaN', null, null, -5);
                  alter table t alter s type int4, alter i type int8, alter f type float8, alter d type numeric(12, 4),
                    alter v type varchar(50), alter w type int8;
                  insert into t values (3, 100000, 5000000000, 0.1, 12345678.1234, 'abcdefgh', 5000000000); update t set v = 'xxxxx' where id = 2")
            .await;
        mirror.caught_up(&mut stream).await;
        assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
        assert_eq!(
            columns(&mirror, "t").await[1..],
            [
                "s Int32",
                "i Nullable(Int64)",
                "f Nullable(Float64)",
                "d Nullable(Decimal(12, 4))",
                "v Nullable(String)",
                "w Nullable(Int64)"
            ]
        );
        assert_eq!(assert_equal(&mirror, &["id", "s", "i", "v", "w"]).await, 3);
        let row = "id::text || f::text || coalesce(d::text, '-')";
        let sink =
            "concat(toString(id), if(isNaN(f), 'NaN', toString(f)), ifNull(toDecimalString(d, 4), '-'))";
        mirror.assert_same(0, row, sink).await;
        stream.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_type_changes_need_a_resync_into_a_rebuilt_table() {
    for change in [
        "alter n type text",
        "alter a type int using 1",
        "alter id type numeric(30, 0)",
        "add g int generated always as (n + 1) stored",
    ] {
        let mirror = Mirror::new(T, &["t"]).await;
        let mut stream = mirror.start();
        mirror
            .source
            .run(&format!(
                "insert into t values (1, '1', 1); alter table t {change}; insert into t values (2, '2')"
            ))
            .await;
        mirror.caught_up(&mut stream).await;
        assert!(needed(&stream).is_some(), "{change}");
        stream.stop().await;
        let mirror = with_rules(mirror, |rules| rules.on_rewrite = OnRewrite::Error);
        let mut stream = mirror.start();
        mirror.source.run("insert into t values (3, '3')").await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(stream.failed(), [(1, Code::TableSchemaChanged)], "{change}");
        stream.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_may_be_null_once_not_null_is_dropped() {
    let mirror = Mirror::new(T, &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 'x', 1); alter table t alter n drop not null;
              insert into t values (2, 'y', null); alter table t alter a set not null; insert into t values (3, 'z', null)")
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(assert_equal(&mirror, &["id", "a", "n"]).await, 3);
    assert_eq!(columns(&mirror, "t").await[2], "n Nullable(Int32)");
    assert_eq!(codes(&stream), ["COLUMN_NULLABLE"]);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_stops_its_table_and_a_renamed_one_needs_a_resync() {
    for (change, resync) in [
        ("alter table t drop constraint t_pkey, add primary key (id, n)", false),
        ("alter table t drop constraint t_pkey", false),
        ("alter table t rename id to number", true),
    ] {
        let mirror =
            Mirror::new(&format!("{T}; create table other (id int primary key)"), &["t", "other"]).await;
        let mut stream = mirror.start();
        mirror.source.run(&format!("insert into t values (1, 'x', 1); {change}; insert into t values (2, 'y', 2); insert into other values (1)")).await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(needed(&stream).is_some(), resync, "{change}");
        assert_eq!(
            stream.failed() == [(1, Code::TableSchemaChanged)],
            !resync,
            "{change}: {:?}",
            stream.failed()
        );
        assert_eq!(mirror.assert_same(1, "id::text", "toString(id)").await, 1);
        stream.stop().await;
    }
}

/// The catalog shows only the last state, the log all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_changes_is_followed_to_where_the_source_is() {
    let mirror = Mirror::new(T, &["t"]).await;
    mirror
        .source
        .run("insert into t values (1, 'x', 1);
              alter table t add b int default 2; insert into t values (2, 'x', 1, 3);
              insert into t values (3, 'x', 1, 4);
              alter table t drop a; insert into t values (4, 1, 5);
              alter table t add a date default '2020-01-01'; insert into t values (5, 1, 6, '2021-01-01');
              alter table t add gone int; insert into t values (6, 1, 7, null, 1); alter table t drop gone;
              insert into t values (7, 1, 8, null); alter table t rename n to m; insert into t values (8, 1, 9)")
        .await;
    let mut stream = mirror.start_unconfirmed();
    mirror.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&mirror, &["id", "m", "b", "a"]).await, 8);
    let plan = followed(&stream).unwrap();
    stream.stop().await;
    // The next worker knows the last plan, and reads everything from the beginning.
    let mut again = mirror;
    again.config.tables[0].plan = plan;
    let mut stream = again.start();
    again.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&again, &["id", "m", "b", "a"]).await, 8);
    stream.stop().await;
}

/// The worker dies when the plan is stored, before or after ClickHouse's table is altered.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_finished_by_the_next_worker() {
    for rule in [OnColumnDropped::Keep, OnColumnDropped::Drop] {
        let ddl = "create table t (id bigint primary key, a text, b text, w int2, z int)";
        let mut mirror = with_rules(Mirror::new(ddl, &["t"]).await, |rules| {
            rules.on_rewrite = OnRewrite::Keep;
            rules.on_column_dropped = rule;
        });
        mirror
            .source
            .run("insert into t values (1, 'a1', 'b1', 1, 1), (2, 'a2', 'b2', 2, 2);
                  begin; alter table t drop b; alter table t rename a to b; alter table t alter w type int4;
                  alter table t drop z; alter table t add z text default 'new'; alter table t add y int default 4; commit;
                  insert into t values (3, 'b3', 70000, 'z3', 3); delete from t where id = 2")
            .await;
        // Plans are told, and never stored as far as the stream knows: nothing is altered.
        let stream = mirror.start_unstored();
        stream.told(|report| matches!(report, Report::Followed { .. })).await;
        let stored = followed(&stream).unwrap();
        assert!(!stored.seen.pending.is_empty());
        stream.kill().await;
        mirror.config.tables[0].plan = stored;
        // The same for a worker that finds the table unaltered, and one that finds it altered.
        for _ in 0..2 {
            let mut stream = mirror.start_unconfirmed();
            mirror.caught_up(&mut stream).await;
            assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
            assert_eq!(assert_equal(&mirror, &["id", "b", "w", "z", "y"]).await, 2);
            let finished = followed(&stream).unwrap();
            assert!(finished.seen.pending.is_empty());
            stream.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_dropped_and_added_again_is_another_column() {
    let mirror = Mirror::new("create table t (id bigint primary key, a int, s text)", &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 1, 's'); alter table t drop s, add s int default 5; insert into t values (2, 2, 6)")
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&mirror, &["id", "a", "s"]).await, 2);
    mirror.source.run("alter table t drop a, add a int; insert into t values (3, 7, 8)").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&mirror, &["id", "s", "a"]).await, 3);
    // Of the same type, at the end, it cannot be told from the message which of the two it tells of.
    mirror.source.run("alter table t drop a, add a int; insert into t values (4, 1, 2)").await;
    mirror.caught_up(&mut stream).await;
    assert!(needed(&stream).is_some());
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_whose_columns_stand_in_another_order_follow_their_table() {
    let ddl = "create table t (id int, a text, b int, primary key (id)) partition by range (id);
               create table low (b int, id int not null, a text); alter table low add x int; alter table low drop x;
               alter table t attach partition low for values from (0) to (100);
               create table high partition of t for values from (100) to (200)";
    let mirror = Mirror::new(ddl, &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 'x', 1), (101, 'y', 2);
              alter table t add c int default 9; insert into t values (2, 'x', 1, 1);
              alter table t rename a to d; alter table t drop b; insert into t values (102, 'z', 4), (3, 'w', 5);
              create table more partition of t for values from (200) to (300); insert into t values (201, 'm', 6)")
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&mirror, &["id", "d", "c"]).await, 6);
    mirror
        .source
        .run("alter table t add r float8 default random(); insert into t values (202, 'm', 6)")
        .await;
    mirror.caught_up(&mut stream).await;
    assert!(needed(&stream).is_some(), "partitions that have rows were rewritten");
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_read_later_are_found_under_new_names() {
    let ddl =
        "create table t (id int primary key, v text, big text); alter table t alter big set storage external";
    let mirror = Mirror::new(ddl, &["t"]).await;
    mirror
        .source
        .run("insert into t select i, 'v', (select string_agg(md5(i::text || j::text), '') from generate_series(1, 300) j) from generate_series(1, 3) i;
              update t set v = 'w'; alter table t rename big to large; alter table t rename v to w;
              update t set w = 'x' where id = 1; alter table t add c int; update t set w = 'y' where id = 2")
        .await;
    let mut stream = mirror.start();
    mirror.caught_up(&mut stream).await;
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    assert_eq!(assert_equal(&mirror, &["id", "w", "c", "large"]).await, 3);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_rebuilt_when_its_columns_change() {
    let mirror =
        Mirror::new("create table t (a int, b text); alter table t replica identity full", &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 'x'); alter table t add c int; insert into t values (2, 'y', 3)")
        .await;
    mirror.caught_up(&mut stream).await;
    assert!(needed(&stream).unwrap().contains("no key"));
    stream.stop().await;
}

/// A plan never says that ClickHouse's table fits it while something is left to be done.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_while_one_is_being_made_are_all_made_by_the_next_worker() {
    let mut mirror = Mirror::new(T, &["t"]).await;
    let stream = mirror.start_unstored();
    mirror.source.run("insert into t values (1, 'x', 1)").await;
    let named = |name: &'static str| move |report: &Report| matches!(report, Report::Followed { plan, .. } if plan.columns[1].name == name);
    for (rename, name) in [("alter table t rename a to b", "b"), ("alter table t rename b to c", "c")] {
        mirror.source.run(&format!("{rename}; update t set {name} = '{name}'")).await;
        stream.told(named(name)).await;
    }
    let Report::Followed { plan, .. } = stream.told(named("c")).await else { unreachable!() };
    assert_eq!(plan.seen.pending.len(), 2, "{:?}", plan.seen.pending);
    stream.kill().await;

    mirror.config.tables[0].plan = plan;
    let mut stream = mirror.start();
    mirror.caught_up(&mut stream).await;
    assert_eq!(columns(&mirror, "t").await, ["id Int64", "c Nullable(String)", "n Int32"]);
    assert_eq!(assert_equal(&mirror, &["id", "c", "n"]).await, 1);
    assert_eq!((needed(&stream), stream.failed()), (None, vec![]));
    stream.stop().await;
}
