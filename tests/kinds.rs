//! Kinds of tables: without a key, append-only, with generated columns.

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, table};

use crate::support::bed::{Bed, SOON};
use crate::support::cell::Cell;
use crate::support::repeated::Repeated;
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("kinds::rows_without_a_key", rows_without_a_key),
        test("kinds::generated_columns", generated_columns),
        test("kinds::append_only_survives_crashes", append_only_survives_crashes),
        test("kinds::append_only_refuses_updates", append_only_refuses_updates),
    ]
}

async fn rows_without_a_key(bed: Bed) {
    bed.sql("create table readings (at int, device text, value numeric(8, 2), big text);
             alter table readings alter big set storage external; alter table readings replica identity full;
             insert into readings select i, 'd' || i % 10, i / 3.0, repeat(md5(i::text), 100) from generate_series(1, 2000) i")
        .await;
    let writes = Repeated::on_source(&bed, |round| {
        format!(
            "insert into readings values ({round} + 10000, null, {round}, 'new');
             update readings set value = value + 1 where at = {round}; delete from readings where at = {round} + 500"
        )
    })
    .await;
    bed.mirror_streaming(&["public.readings"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    writes.end().await;
    assert!(bed.wait_equal("readings", "readings").await > 1_000);
    // An identity that tells less.
    bed.sql("alter table readings replica identity default, add primary key (at); update readings set device = 'x' where at = 1").await;
    let mirror = bed.wait_table("public.readings", table::State::Error).await;
    let error = mirror.tables[0].error.clone().expect("its error");
    assert_eq!(error.code, "TABLE_SCHEMA_CHANGED");
    let request = api::ResyncTableRequest {
        name: bed.name.clone(),
        table: "public.readings".into(),
        ..Default::default()
    };
    bed.mirrors().resync_table(request).await.expect("a resync");
    bed.wait_table("public.readings", table::State::Streaming).await;
    bed.sql("update readings set value = -1 where at = 2").await;
    bed.wait_equal("readings", "readings").await;
}

async fn generated_columns(bed: Bed) {
    bed.sql("create table lines (id int primary key, price int, n int, total int generated always as (price * n) stored);
             create table seen (id int primary key, twice int generated always as (id * 2) virtual);
             insert into lines select i, i, 2 from generate_series(1, 100) i")
        .await;
    let refused = bed.create(bed.mirror(&["public.seen"])).await.expect_err("a virtual column");
    assert!(refused.message().contains("twice"), "{refused:?}");
    bed.mirror_streaming(&["public.lines"]).await;
    bed.sql("insert into lines (id, price, n) values (200, 5, 5); update lines set n = 7 where id < 10; delete from lines where id = 50").await;
    assert_eq!(bed.wait_equal("lines", "lines").await, 100);
}

const LOG: &str = "create table log (at int, line text); insert into log select i % 100, repeat(md5((i % 7)::text), 10) from generate_series(1, 40000) i";

fn append_only(bed: &Bed, tables: &[&str]) -> api::Mirror {
    let mut mirror = bed.mirror(tables);
    mirror.tables[0].append_only = true;
    mirror
}

/// Waits until both sides hold the same rows, each as often. FINAL would hide nothing here.
async fn wait_same_rows(bed: &Bed) -> i64 {
    const ROW: &str = "at || '|' || md5(line)";
    wait::until("the same rows as often", SOON, || async {
        let sql = format!("select {ROW}, count(*) from log group by 1");
        let rows = bed.source.query(&sql, &[]).await.map_err(|error| format!("{error:?}"))?;
        let expected: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let row = "concat(toString(assumeNotNull(at)), '|', lower(hex(MD5(assumeNotNull(log.line)))))";
        let sql = format!("select concat({row}, '=', toString(count())) as line from log group by {row}");
        let mut found = BTreeMap::new();
        for line in bed.clickhouse.query_lines(&sql).await? {
            let (row, count) = line.rsplit_once('=').ok_or("a row and its count")?;
            found.insert(row.to_owned(), count.parse::<i64>().map_err(|error| error.to_string())?);
        }
        let (all, here): (i64, i64) = (expected.values().sum(), found.values().sum());
        if expected == found {
            Ok(all)
        } else {
            Err(format!("{all} rows on the source, {here} in ClickHouse"))
        }
    })
    .await
}

async fn append_only_survives_crashes(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    bed.sql(LOG).await;
    let writes = Repeated::on_source(&bed, |round| {
        format!("insert into log select i, 'new' from generate_series(1, {round} % 5 + 1) i")
    })
    .await;
    let mut first = cell.worker().await;
    bed.create(append_only(&bed, &["public.log"])).await.expect("a mirror");
    wait::until("a part of the copy", SOON, || async {
        let count = bed.clickhouse.query("select count() from log").await?;
        if count.trim() == "0" { Err(count) } else { Ok(()) }
    })
    .await;
    first.kill();
    let mut second = cell.worker().await;
    bed.wait_table("public.log", table::State::Streaming).await;
    second.kill();
    let mut third = cell.worker().await;
    wait::until("changes of the third worker", SOON, || async {
        let sql = "select count() from log where line = 'new'";
        let before = bed.clickhouse.query(sql).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if bed.clickhouse.query(sql).await? == before { Err(before) } else { Ok(()) }
    })
    .await;
    third.kill();
    let _fourth = cell.worker().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    writes.end().await;
    assert!(wait_same_rows(&bed).await > 40_000);
    bed.sql("truncate log; insert into log values (1, 'a'), (1, 'a')").await;
    assert_eq!(wait_same_rows(&bed).await, 2);
}

async fn append_only_refuses_updates(bed: Bed) {
    bed.sql("create table log (at int, line text); create table other (id int primary key); alter table log replica identity full;
             insert into log values (1, 'a'), (1, 'a')").await;
    bed.create(append_only(&bed, &["public.log", "public.other"])).await.expect("a mirror");
    bed.wait_table("public.log", table::State::Streaming).await;
    bed.sql("insert into log values (2, 'b'), (2, 'b')").await;
    assert_eq!(wait_same_rows(&bed).await, 4);
    bed.sql("update log set line = 'c' where at = 2; insert into other values (1)").await;
    let mirror = bed.wait_table("public.log", table::State::Error).await;
    let error = mirror.tables[0].error.clone().expect("its error");
    assert_eq!(error.code, "TABLE_UNSUPPORTED");
    assert!(error.message.contains("public.log is declared append_only"), "{error:?}");
    assert_eq!(bed.wait_equal("other", "other").await, 1);
    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: "public.log".into(), ..Default::default() };
    bed.mirrors().resync_table(request).await.expect("a resync");
    bed.sql("insert into log values (3, 'd')").await;
    bed.wait_table("public.log", table::State::Streaming).await;
    assert_eq!(wait_same_rows(&bed).await, 5);
}
