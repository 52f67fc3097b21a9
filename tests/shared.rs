//! Several tables in one destination: what happens to one never touches the rows of the others.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use tonic::{Code, Status};

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("shared::two_tables_with_the_same_keys", two_tables_with_the_same_keys),
        test("shared::a_resync_rebuilds_nothing_that_others_use", a_resync_rebuilds_nothing_that_others_use),
        test("shared::mirrors_share_a_destination", mirrors_share_a_destination),
        test("shared::unlike_tables_are_refused", unlike_tables_are_refused),
        test("shared::audit_columns", audit_columns),
    ]
}

const TWO: &str =
    "create table eu (id int primary key, v text); create table us (id int primary key, v text);
    insert into eu select i, 'eu' from generate_series(1, 500) i;
    insert into us select i, 'us' from generate_series(1, 500) i";

fn shared(bed: &Bed, tables: &[&str]) -> api::Mirror {
    let mut mirror = bed.mirror(tables);
    mirror.tables.iter_mut().for_each(|table| table.destination = "users".into());
    mirror
}

/// Waits until `users` holds exactly the rows of these tables, each of a mirror.
pub async fn wait_rows(bed: &Bed, tables: &[(&str, &str)]) {
    let sources: Vec<String> = tables
        .iter()
        .map(|(mirror, table)| {
            format!("select '{mirror}/public.{table}' || ' ' || id || ' ' || v as row from {table}")
        })
        .collect();
    let sql = format!("select row from ({}) r order by row collate \"C\"", sources.join(" union all "));
    wait::until("the rows of all tables", SOON, || async {
        let rows = bed.source.query(&sql, &[]).await.map_err(|error| format!("{error:?}"))?;
        let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let found = "select concat(_source, ' ', toString(id), ' ', assumeNotNull(v)) as line from users final order by line";
        let found = bed.clickhouse.query_lines(found).await?;
        let (all, here) = (expected.len(), found.len());
        if found == expected { Ok(()) } else { Err(format!("{all} rows on the source, {here} in ClickHouse")) }
    })
    .await;
}

async fn resync(bed: &Bed, table: &str) -> Result<(), Status> {
    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: table.to_owned(), ..Default::default() };
    bed.mirrors().resync_table(request).await.map(drop)
}

async fn two_tables_with_the_same_keys(bed: Bed) {
    bed.sql(TWO).await;
    let made = bed.create(shared(&bed, &["public.eu", "public.us"])).await.expect("a mirror");
    assert!(made.tables.iter().all(|table| table.source_column));
    bed.wait_state(mirror::State::Running).await;
    let name = bed.name.as_str();
    let both = [(name, "eu"), (name, "us")];
    bed.sql("update eu set v = 'new' where id < 10; update us set id = id + 1000 where id < 20; delete from eu where id > 400;
             insert into us values (2000, 'in')").await;
    wait_rows(&bed, &both).await;
    bed.sql("truncate eu; insert into eu values (7, 'after')").await;
    wait_rows(&bed, &both).await;
    // What the copy does not find goes, of this table alone.
    bed.clickhouse
        .query(&format!("insert into users (id, v, _source, _version, _is_deleted, _synced_at) values (-1, 'no', '{name}/public.eu', 1, 0, now64(6))"))
        .await
        .expect("a stale row");
    resync(&bed, "public.eu").await.expect("a resync");
    wait_rows(&bed, &both).await;
    bed.wait_state(mirror::State::Running).await;
    let request = api::DropTableRequest {
        name: bed.name.clone(),
        table: "public.eu".into(),
        drop_destination: true,
        ..Default::default()
    };
    bed.mirrors().drop_table(request).await.expect("a table less");
    wait_rows(&bed, &[(name, "us")]).await;
    bed.sql("update us set v = 'on' where id = 2000").await;
    wait_rows(&bed, &[(name, "us")]).await;
}

async fn a_resync_rebuilds_nothing_that_others_use(bed: Bed) {
    bed.sql(TWO).await;
    bed.create(shared(&bed, &["public.eu", "public.us"])).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.clickhouse
        .query("alter table users modify column v Nullable(FixedString(20))")
        .await
        .expect("changed");
    let refused = resync(&bed, "public.eu").await.expect_err("a rebuild");
    assert!(refused.message().contains("public.us"), "{refused:?}");
    assert_eq!(bed.clickhouse.query("select count() from users final").await.expect("rows").trim(), "1000");
    // Gone as a whole it is made anew, with the rows of all.
    bed.clickhouse.query("drop table users").await.expect("dropped");
    resync(&bed, "public.eu").await.expect("a resync");
    let name = bed.name.as_str();
    wait_rows(&bed, &[(name, "eu"), (name, "us")]).await;
}

async fn mirrors_share_a_destination(bed: Bed) {
    bed.sql(TWO).await;
    let mut first = shared(&bed, &["public.eu"]);
    first.tables[0].source_column = true;
    bed.create(first).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    let other = format!("{}-2", bed.name);
    let mut second = shared(&bed, &["public.us"]);
    second.name.clone_from(&other);
    let refused = bed.create(second.clone()).await.expect_err("no column of its own");
    assert!(refused.message().contains(&bed.name), "{refused:?}");
    second.tables[0].source_column = true;
    bed.create(second).await.expect("another mirror");
    wait_rows(&bed, &[(&bed.name, "eu"), (&other, "us")]).await;
    let request = api::DeleteMirrorRequest { name: other, drop_destination: true, ..Default::default() };
    bed.mirrors().delete_mirror(request).await.expect("deleted");
    wait_rows(&bed, &[(&bed.name, "eu")]).await;
}

async fn unlike_tables_are_refused(bed: Bed) {
    bed.sql("create table a (id int primary key, v text); create table b (id int primary key, w int)").await;
    let refused = bed.create(shared(&bed, &["public.a", "public.b"])).await.expect_err("unlike tables");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("public.a has no column w"), "{refused:?}");
}

async fn audit_columns(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')").await;
    let mut mirror = bed.mirror(&["public.t"]);
    mirror.settings = Some(api::Settings { audit_columns: true, ..Default::default() });
    bed.create(mirror).await.expect("a mirror");
    bed.wait_table("public.t", table::State::Streaming).await;
    bed.sql("insert into t values (3, 'c'); update t set v = 'd' where id = 2").await;
    let database: String =
        bed.source.query_one("select current_database()::text", &[]).await.expect("a name").get(0);
    wait::until("what made the rows", SOON, || async {
        let sql = "select concat(toString(id), ' ', cdc_operation, ' ', cdc_source_db, ' ', cdc_source_table) as line from t final
            where abs(dateDiff('hour', cdc_timestamp, now64(6))) < 2 order by id";
        let found = bed.clickhouse.query_lines(sql).await?;
        let expected = ["1 snapshot", "2 update", "3 insert"].map(|row| format!("{row} {database} public.t"));
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    bed.wait_equal("t", "t").await;
}
