//! Tables without a key.

use std::sync::Arc;

use millrace_replication::postgres::plan::Options;
use millrace_replication::table::TablePlan;
use millrace_replication::types::OnUnrepresentable;

use super::Checked;
use crate::types::compare::{self, planned, replicate};
use crate::types::pair::Pair;

async fn appended(pair: &Pair) -> Arc<TablePlan> {
    pair.source
        .batch_execute("create table a (v text, n float8); insert into a select 'v' || i % 10, i % 3 from generate_series(1, 100) i")
        .await
        .unwrap();
    let options = Options { append_only: true, ..compare::options(OnUnrepresentable::Error) };
    let plan = planned(pair, "a", options).await;
    replicate(pair, &plan).await;
    plan
}

#[tokio::test]
async fn rows_without_a_key_are_counted_as_often_as_they_are_there() {
    let pair = Pair::new().await;
    let checked = Checked::new(&pair.source, appended(&pair).await, 1).await;
    let sides = checked.sides(&pair.source, &pair.sink);
    let question = checked.question(&checked.ranges[0], false);
    let bags = sides.compare_bags(&question, 100).await.unwrap();
    assert_eq!(
        (bags.missing, bags.extra, bags.answer.source_rows, bags.answer.destination_rows),
        (0, 0, 100, 100)
    );
    let table = pair.sink.qualified("a");
    pair.sink.execute(&format!("insert into {table} select * from {table} limit 2")).await.unwrap();
    pair.source.batch_execute("insert into a values ('v0', 0), ('new', null), ('new', null)").await.unwrap();
    // In parts, too.
    for rows in [100, 20_000_000] {
        let bags = sides.compare_bags(&question, rows).await.unwrap();
        assert_eq!((bags.missing, bags.extra), (3, 2), "{rows}");
        assert_eq!((bags.answer.source_rows, bags.answer.destination_rows), (103, 102));
    }
}
