//! Changes of a table of which the log says nothing yet, or never will: it tells of a table's columns with
//! the table's next row.

use millrace_replication::stream::Report;

use crate::converge::{copy_table, sweep};
use crate::mirror::Mirror;

/// Names in ClickHouse, less our own columns.
async fn columns(mirror: &Mirror) -> Vec<String> {
    let sql = format!(
        "select name from system.columns where database = '{}' and table = 't' and not startsWith(name, '_') \
         order by position",
        mirror.sink.database()
    );
    mirror.sink.query(&sql).await.unwrap()
}

async fn row(mirror: &Mirror) -> String {
    let sql =
        format!("select concat(toString(id), ' ', ifNull(v, '-')) from {} final", mirror.sink.qualified("t"));
    mirror.sink.query::<String>(&sql).await.unwrap().join(", ")
}

/// Rows are right all the while; the names come with the next row, also when it is long after and another
/// stream has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_change_is_comes_with_the_next_row() {
    let mut mirror = Mirror::new("create table t (id bigint primary key, v text)", &["t"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into t values (1, 'a'); alter table t rename v to w; alter table t add c int default 7")
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!((columns(&mirror).await, row(&mirror).await), (vec!["id".into(), "v".into()], "1 a".into()));
    stream.stop().await;

    let mut stream = mirror.start();
    mirror.caught_up(&mut stream).await;
    assert_eq!(columns(&mirror).await, ["id", "v"]);
    mirror.source.run("update t set w = 'b'").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(columns(&mirror).await, ["id", "w", "c"]);
    let told =
        |report: &Report| matches!(report, Report::Followed { plan, .. } if plan.seen.pending.is_empty());
    let Report::Followed { plan, .. } = stream.told(told).await else { unreachable!() };
    mirror.config.tables[0].plan = plan;
    let (source, sink) = ("id || w || c", "concat(toString(id), ifNull(w, '-'), toString(c))");
    assert_eq!(mirror.assert_same(0, source, sink).await, 1);
    stream.stop().await;
}

/// A copy of a table whose last changes no row has told of yet, with the plan from before.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_right_before_the_log_tells_of_the_change() {
    let mirror =
        Mirror::new("create table t (id bigint primary key, v text); insert into t values (1, 'a')", &["t"])
            .await;
    let mut stream = mirror.start();
    mirror.source.run("alter table t rename v to w; alter table t add c int default 7").await;
    mirror.caught_up(&mut stream).await;
    let copied = copy_table(&mirror).await;
    sweep(&mirror, &mut stream, copied).await;
    assert_eq!(row(&mirror).await, "1 a");
    mirror.source.run("insert into t values (2, 'b', 8)").await;
    mirror.caught_up(&mut stream).await;
    let (source, sink) = ("id || w || c", "concat(toString(id), ifNull(w, '-'), toString(c))");
    assert_eq!(mirror.assert_same(0, source, sink).await, 2);
    stream.stop().await;
}

/// `attnotnull` says of such a column that it holds no NULL.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_a_constraint_that_old_rows_may_break_is_nullable() {
    let ddl = "create table t (id bigint primary key, v text, w text);
        insert into t values (1, null, null), (2, 'b', null)";
    let source = crate::servers::Source::new().await;
    source.run(ddl).await;
    if source.sql.batch_execute("alter table t add constraint there not null v not valid").await.is_err() {
        // Servers before PostgreSQL 18 have no such constraints.
        return;
    }
    let mirror = Mirror::on(source, "select 1", &["t"]).await;
    assert!(mirror.plan(0).columns[1].nullable);
    let mut stream = mirror.start();
    let copied = copy_table(&mirror).await;
    sweep(&mirror, &mut stream, copied).await;
    let (source, sink) = (
        "id || ' ' || coalesce(v, '-') || coalesce(w, '-')",
        "concat(toString(id), ' ', ifNull(v, '-'), ifNull(w, '-'))",
    );
    assert_eq!(mirror.assert_same(0, source, sink).await, 2);
    // One that comes while it streams, and one that is found to hold for every row.
    mirror
        .source
        .run(
            "insert into t values (3, 'c', 'c'); alter table t add constraint there_too not null w not valid;
             update t set w = 'x' where id = 2; update t set v = 'a', w = 'y' where id = 1; alter table t validate constraint there;
             insert into t values (4, 'd', 'd'); delete from t where id = 3",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, source, sink).await, 3);
    assert_eq!(stream.failed(), []);
    stream.stop().await;
}
