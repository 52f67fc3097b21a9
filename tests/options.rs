//! What a mirror may ask for of its destination tables, and tables that are there already.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, peer};
use tonic_types::StatusExt;

use crate::support::bed::Bed;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("options::excluded_columns_are_nowhere", excluded_columns_are_nowhere),
        test("options::columns_that_may_not_be_read_are_excluded", columns_that_may_not_be_read_are_excluded),
        test("options::keys_partitions_and_names_are_as_asked", keys_partitions_and_names_are_as_asked),
        test("options::bad_expressions_are_refused", bad_expressions_are_refused),
        test(
            "options::tables_that_are_there_may_have_more_columns",
            tables_that_are_there_may_have_more_columns,
        ),
        test("options::views_on_destination_tables_follow", views_on_destination_tables_follow),
    ]
}

fn columns_of(table: &str) -> String {
    format!(
        "select groupArray(name) from (select name from system.columns where database = currentDatabase() and table = '{table}' order by position)"
    )
}

async fn excluded_columns_are_nowhere(bed: Bed) {
    bed.sql("create table t (a int, secret text, id int primary key, huge text, v int); alter table t alter huge set storage external; insert into t select i, 'secret-word', i, repeat('y', 9000), i from generate_series(1, 100) i").await;
    let mut request = bed.mirror(&["public.t"]);
    request.tables[0].exclude = vec!["secret".into(), "huge".into()];
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("insert into t values (1, 'secret-word', 500, 'z', 5); update t set v = v + 1 where id < 50; update t set secret = 'other' where id = 60; update t set id = 700 where id = 70; delete from t where id = 80").await;
    bed.sql("create view seen as select a, id, v from t").await;
    assert_eq!(bed.wait_equal("seen", "t").await, 100);
    assert_eq!(
        bed.clickhouse.query(&columns_of("t")).await.expect("columns").trim(),
        "['a','id','v','_version','_is_deleted','_synced_at']"
    );
}

/// A role that may read some columns only: with the others excluded, everything works.
async fn columns_that_may_not_be_read_are_excluded(bed: Bed) {
    let role = bed.name.replace('-', "_");
    bed.sql(&format!(
        "create role {role} login replication password 'secret-word'; create table t (id int primary key, v text, w text, hidden text); alter table t alter w set storage external;
         grant select (id, v, w) on t to {role}; alter table t owner to {role}; revoke all on t from {role}; grant select (id, v, w) on t to {role};
         grant create on database {role} to {role}; insert into t values (1, 'a', repeat('w', 9000), 'hidden')"
    ))
    .await;
    let mut peer = bed.source_peer();
    peer.name = format!("{}-limited", bed.name);
    let Some(peer::Config::Postgres(config)) = &mut peer.config else { unreachable!("a source") };
    (config.user, config.password) = (role.clone(), Some("secret-word".into()));
    let request = api::CreatePeerRequest { peer: Some(peer.clone()), ..Default::default() };
    bed.peers().create_peer(request).await.expect("a peer");
    let mut request = bed.mirror(&["public.t"]);
    request.source = peer.name;
    let refused = bed.create(request.clone()).await.expect_err("a column may not be read");
    assert_eq!(
        refused.get_error_details().error_info().expect("ErrorInfo").reason,
        "SOURCE_PERMISSION",
        "{refused:?}"
    );
    request.tables[0].exclude = vec!["hidden".into()];
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("update t set v = 'b', hidden = 'more'; insert into t values (2, 'c', 'd', 'e')").await;
    bed.sql("create view seen as select id, v, w from t").await;
    assert_eq!(bed.wait_equal("seen", "t").await, 2);
}

async fn keys_partitions_and_names_are_as_asked(bed: Bed) {
    bed.sql(
        "create table ordered (z int, day date not null, a int, v text, primary key (z, a)); insert into ordered select i % 7, '2024-01-01'::date + i, i, 'v' from generate_series(1, 200) i;
         create table parted (id int primary key, at timestamp not null, v int); insert into parted select i, '2024-01-01'::timestamp + i * interval '10 days', i from generate_series(1, 100) i;
         create table full_order (id int primary key, country text not null, v int); alter table full_order replica identity full; insert into full_order select i, 'c' || i % 3, i from generate_series(1, 50) i;
         create table plain (b int, c int, a int, v int, primary key (c, a, b)); insert into plain values (1, 2, 3, 4)",
    )
    .await;
    let mut request = bed.mirror(&["public.ordered", "public.parted", "public.full_order", "public.plain"]);
    request.tables[0].order_by = vec!["a".into(), "z".into()];
    request.tables[1].partition_by = "toYYYYMM(at)".into();
    request.tables[2].order_by = vec!["country".into(), "id".into()];
    request.tables[3].destination = "another name".into();
    request.tables[3].columns =
        BTreeMap::from([("b".to_owned(), api::Column { name: "renamed b".into(), r#type: "Int64".into() })]);
    request.settings = Some(api::Settings {
        columns: Some(api::OwnColumns {
            source: String::new(),
            version: "ver".into(),
            is_deleted: "gone".into(),
            synced_at: "at_ch".into(),
        }),
        ..Default::default()
    });
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("update ordered set v = 'w', day = day + 400 where a % 2 = 0; delete from ordered where a % 5 = 0; update ordered set a = a + 1000 where a = 7").await;
    // A row that moves to another partition, and a tombstone that holds none of its columns.
    bed.sql("update parted set at = at + interval '1 year' where id % 2 = 0; delete from parted where id % 5 = 0; insert into parted values (500, '1999-12-31', 1)").await;
    bed.sql("update full_order set country = 'd' where id % 2 = 0; delete from full_order where id % 5 = 0")
        .await;
    bed.sql("update plain set b = 100, v = 5; insert into plain values (7, 8, 9, 10)").await;
    assert_eq!(bed.wait_equal("ordered", "ordered").await, 160);
    assert_eq!(bed.wait_equal("full_order", "full_order").await, 40);
    let sql = "select concat(toString(id), ' ', toString(at), ' ', toString(v)) as line from parted final order by id settings do_not_merge_across_partitions_select_final = 0";
    let rows = bed
        .source
        .query(
            "select id || ' ' || to_char(at, 'YYYY-MM-DD HH24:MI:SS.US') || ' ' || v from parted order by id",
            &[],
        )
        .await
        .expect("rows");
    bed.wait_lines(sql, &rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()).await;
    bed.sql("create view renamed as select b as \"renamed b\", c, a, v from plain").await;
    assert_eq!(bed.wait_equal("renamed", "`another name`").await, 2);
    let keys = "select concat(name, ': ', sorting_key, '; ', partition_key) as line from system.tables where database = currentDatabase() order by name";
    let expected = [
        "another name: c, a, `renamed b`; ",
        "full_order: country, id; ",
        "ordered: a, z; ",
        "parted: (id); toYYYYMM(at)",
    ];
    assert_eq!(bed.clickhouse.query_lines(keys).await.expect("keys"), expected);
    let columns = bed
        .clickhouse
        .query(&columns_of("plain").replace("'plain'", "'another name'"))
        .await
        .expect("columns");
    assert_eq!(columns.trim(), "['renamed b','c','a','v','ver','gone','at_ch']");
}

async fn bad_expressions_are_refused(bed: Bed) {
    bed.sql("create table t (id int primary key, v text, n int)").await;
    for partition_by in ["no_such_function(id)", "nothing", "id)"] {
        let mut request = bed.mirror(&["public.t"]);
        request.tables[0].partition_by = partition_by.into();
        let refused = bed.create(request).await.expect_err(partition_by);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().expect("ErrorInfo").reason, "INVALID_ARGUMENT", "{refused:?}");
        assert!(refused.message().contains("partition_by"), "{}", refused.message());
    }
    for order_by in [vec!["id", "nothing"], vec!["v"], vec!["id", "v"], vec!["id", "id"]] {
        let mut request = bed.mirror(&["public.t"]);
        request.tables[0].order_by = order_by.iter().map(|name| (*name).to_owned()).collect();
        let refused = bed.create(request).await.expect_err("order_by");
        assert!(refused.message().contains("order_by"), "{order_by:?}: {}", refused.message());
    }
    let mut request = bed.mirror(&["public.t"]);
    request.tables[0].columns =
        BTreeMap::from([("v".to_owned(), api::Column { name: String::new(), r#type: "Int32".into() })]);
    let refused = bed.create(request).await.expect_err("text as a number");
    assert!(refused.message().contains("Int32"), "{}", refused.message());
    let mut request = bed.mirror(&["public.t"]);
    request.tables[0].exclude = vec!["id".into()];
    let refused = bed.create(request).await.expect_err("a key that is left out");
    assert!(refused.message().contains("id"), "{}", refused.message());
}

/// An empty table of the right columns is taken; further columns of the user keep their defaults.
async fn tables_that_are_there_may_have_more_columns(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); insert into t values (1, 'a')").await;
    let database = bed.name.replace('-', "_");
    bed.clickhouse_admin(&format!("create database {database}")).await;
    bed.clickhouse
        .query(
            "create table t (extra String default concat('x', toString(id)), id Int32, v Nullable(String), seen DateTime materialized now(), _version UInt128, _is_deleted UInt8, _synced_at DateTime64(6))
             engine = ReplacingMergeTree(_version, _is_deleted) order by id ttl seen + interval 10 year settings index_granularity = 1024",
        )
        .await
        .expect("a table");
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("insert into t values (2, 'b'); update t set v = 'c' where id = 1").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
    bed.clickhouse
        .query("alter table t add column later Int32 default id * 2")
        .await
        .expect("a further column");
    bed.sql("insert into t values (3, 'd')").await;
    bed.wait_lines(
        "select concat(toString(id), v, extra, toString(later)) as line from t final order by id",
        &["1cx12", "2bx24", "3dx36"],
    )
    .await;
}

/// What users build on destination tables sees every row: the rows of both phases, and each change.
async fn views_on_destination_tables_follow(bed: Bed) {
    bed.sql(
        "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 10) i",
    )
    .await;
    let database = bed.name.replace('-', "_");
    bed.clickhouse_admin(&format!("create database {database}")).await;
    bed.clickhouse.query("create table t (id Int32, v Nullable(Int32), _version UInt128, _is_deleted UInt8, _synced_at DateTime64(6)) engine = ReplacingMergeTree(_version, _is_deleted) order by id").await.expect("a table");
    bed.clickhouse
        .query("create table log (id Int32, v Int32, gone UInt8) engine = MergeTree order by id")
        .await
        .expect("a table");
    bed.clickhouse
        .query(
            "create materialized view mv to log as select id, ifNull(v, 0) as v, _is_deleted as gone from t",
        )
        .await
        .expect("a view");
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("update t set v = 100 where id = 1").await;
    bed.sql("delete from t where id = 2").await;
    bed.wait_lines("select concat(toString(id), ' ', toString(v), ' ', toString(gone)) as line from log where id < 3 order by id, gone, v", &["1 1 0", "1 100 0", "2 2 0", "2 0 1"]).await;
    assert_eq!(bed.wait_equal("t", "t").await, 9);
}
