//! Many tables in one mirror.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};

use crate::support::bed::Bed;
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![test("many::tables_of_a_whole_schema", tables_of_a_whole_schema)]
}

/// Set for a thousand tables instead of fifty.
const LONG: &str = "MILLRACE_TEST_LONG";
/// On two busy cores; nothing is promised about it.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(1_800);
/// Tables that hold rows; the others are empty.
const FILLED: usize = 10;

async fn tables_of_a_whole_schema(bed: Bed) {
    let tables = if std::env::var_os(LONG).is_some() { 1_000 } else { 50 };
    bed.sql(&format!(
        "do $$ begin for i in 1..{tables} loop
             execute format('create table t%s (id int primary key, v text)', i);
             if i <= {FILLED} then execute format('insert into t%s select i, md5(i::text) from generate_series(1, 1000) i', i); end if;
         end loop; end $$"
    ))
    .await;
    let mut request = bed.mirror(&["public.*"]);
    let snapshot = api::SnapshotSettings { parallel_tables: Some(16), ..Default::default() };
    request.settings = Some(api::Settings { snapshot: Some(snapshot), ..Default::default() });
    let created = bed.create(request).await.expect("a mirror");
    assert_eq!(created.tables.len(), tables);
    wait::until("every table streams", LIMIT, || async {
        let mirror = bed.get().await.map_err(|status| status.to_string())?;
        let streaming = mirror.tables.iter().filter(|table| table.state() == table::State::Streaming).count();
        if mirror.state() == mirror::State::Running { Ok(()) } else { Err(format!("{streaming} tables")) }
    })
    .await;
    let last = format!("t{tables}");
    bed.sql(&format!("insert into {last} values (9, 'last'); update t1 set v = 'x' where id % 2 = 0; delete from t{FILLED} where id < 500")).await;
    for (name, rows) in [("t1", 1_000), ("t10", 501), ("t5", 1_000), ("t20", 0), (last.as_str(), 1)] {
        assert_eq!(bed.wait_equal(name, name).await, rows, "{name}");
    }
}
