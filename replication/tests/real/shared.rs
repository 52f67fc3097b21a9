//! Two tables in one destination, and the audit columns.

use std::sync::Arc;

use millrace_replication::table::{Audit, Origin, TablePlan};

use crate::mirror::Mirror;

/// Both tables go to one destination, and tell what made their rows.
async fn share(mirror: &mut Mirror) {
    for table in &mut mirror.config.tables {
        let mut plan = TablePlan::clone(&table.plan);
        plan.destination = "all_rows".into();
        plan.own.source = Some(Origin { name: "_source".into(), value: format!("m/{}", plan.source) });
        plan.own.audit = Some(Audit { database: "shop".into() });
        mirror.sink.create_table(&plan, "").await.unwrap();
        table.plan = Arc::new(plan);
    }
}

async fn rows(mirror: &Mirror, row: &str, modifier: &str) -> Vec<String> {
    let table = mirror.sink.qualified("all_rows");
    mirror.sink.query(&format!("select {row} as row from {table} {modifier} order by row")).await.unwrap()
}

#[tokio::test]
async fn tables_of_one_destination_never_touch_each_other() {
    let mut mirror = Mirror::new(
        "create table a (id int primary key, v text); create table b (v text, id int primary key)",
        &["a", "b"],
    )
    .await;
    share(&mut mirror).await;
    let mut running = mirror.start();
    mirror.source.run("insert into a values (1, 'a1'), (2, 'a2'), (3, 'a3')").await;
    mirror.source.run("insert into b (id, v) values (1, 'b1'), (2, 'b2'), (3, 'b3')").await;
    mirror.source.run("update a set v = 'new' where id = 1").await;
    mirror.source.run("update a set id = 9 where id = 2").await;
    mirror.source.run("delete from b where id = 3").await;
    mirror.caught_up(&mut running).await;
    let row = "concat(toString(_source), ' ', toString(id), ' ', assumeNotNull(v))";
    assert_eq!(
        rows(&mirror, row, "").await,
        ["m/public.a 1 new", "m/public.a 3 a3", "m/public.a 9 a2", "m/public.b 1 b1", "m/public.b 2 b2"]
    );
    mirror.source.run("truncate a; insert into a values (2, 'late')").await;
    mirror.caught_up(&mut running).await;
    assert_eq!(rows(&mirror, row, "").await, ["m/public.a 2 late", "m/public.b 1 b1", "m/public.b 2 b2"]);
    assert!(mirror.sink.holds_rows(&mirror.plan(1)).await.unwrap());
    mirror.sink.purge(&mirror.plan(1), u128::MAX, "").await.unwrap();
    assert!(!mirror.sink.holds_rows(&mirror.plan(1)).await.unwrap());
    assert_eq!(rows(&mirror, row, "").await, ["m/public.a 2 late"]);
    running.stop().await;
}

#[tokio::test]
async fn audit_columns_tell_what_made_a_row() {
    let mut mirror = Mirror::new("create table a (id int primary key, v text)", &["a"]).await;
    share(&mut mirror).await;
    let mut running = mirror.start();
    mirror.source.run("insert into a values (1, 'x'), (2, 'y')").await;
    mirror.source.run("update a set v = 'z' where id = 1").await;
    mirror.caught_up(&mut running).await;
    let row = "concat(toString(id), ' ', cdc_operation, ' ', cdc_source_db, ' ', cdc_source_table, ' ',
        toString(abs(dateDiff('minute', cdc_timestamp, now64(6))) < 60))";
    assert_eq!(rows(&mirror, row, "").await, ["1 update shop public.a 1", "2 insert shop public.a 1"]);
    mirror.source.run("delete from a where id = 2").await;
    mirror.caught_up(&mut running).await;
    assert_eq!(rows(&mirror, row, "").await, ["1 update shop public.a 1"]);
    let deleted =
        "select count() from (select * from all_rows where _is_deleted = 1) where cdc_operation = 'delete'"
            .replace("all_rows", &mirror.sink.qualified("all_rows"));
    let deleted: u64 = mirror.sink.query_one(&format!("{deleted} settings final = 0")).await.unwrap();
    assert_eq!(deleted, 1);
    running.stop().await;
}
