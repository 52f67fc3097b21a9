//! Partitions come and go while rows are written: their rows come with them, and go or stay as is asked.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, table};

use crate::support::bed::{Bed, SOON};
use crate::support::repeated::Repeated;
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("partitions::attached_ones_bring_their_rows_and_dropped_ones_take_them", come_and_go),
        test("partitions::one_that_was_away_is_copied_anew", away_and_back),
        test("partitions::removed_ones_keep_their_rows_where_that_is_asked_for", kept),
        test("partitions::truncates_during_a_copy_and_around_it", truncates),
    ]
}

/// Rows with `id` below 1,000 in `early`, below 2,000 in a level of its own, all others in `rest`.
const TREE: &str = "
    create table t (id bigint primary key, v text) partition by range (id);
    create table early partition of t for values from (0) to (1000);
    create table middle partition of t for values from (1000) to (2000) partition by range (id);
    create table middle_1 partition of middle for values from (1000) to (2000);
    insert into t select i, 'first' from generate_series(0, 1998) i;";

async fn events(bed: &Bed) -> Vec<String> {
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    events.into_iter().map(|event| event.message).collect()
}

async fn wait_event(bed: &Bed, text: &str) {
    wait::until(text, SOON, || async {
        let events = events(bed).await;
        if events.iter().any(|event| event.contains(text)) { Ok(()) } else { Err(events.join("; ")) }
    })
    .await;
}

async fn count(bed: &Bed, condition: &str) -> u64 {
    let sql = format!("select count() from t final where {condition}");
    bed.clickhouse.query(&sql).await.expect("a count").trim().parse().expect("a number")
}

async fn come_and_go(bed: Bed) {
    bed.sql(TREE).await;
    bed.sql("create table other (id int primary key); insert into other values (1)").await;
    bed.mirror_streaming(&["public.t", "public.other"]).await;
    let writes = Repeated::on_source(&bed, |round| {
        format!("update t set v = 'round {round}' where id % 50 = {round} % 50 and (id < 100 or id >= 2000)")
    })
    .await;
    let moves =
        Repeated::on_source(&bed, |_| "update t set id = 2998 - id where id in (999, 1999)".to_owned()).await;
    // Keys that were in the table go to one that is attached later, whose rows the stream never tells.
    bed.sql(
        "create table late (v text, gone int, id bigint primary key); alter table late drop column gone;
         insert into late select 'late', i from generate_series(2000, 2499) i;
         create table deep (id bigint primary key, v text) partition by range (id);
         create table deep_1 partition of deep for values from (2500) to (3000); insert into deep values (2600, 'deep')",
    )
    .await;
    bed.sql("alter table t attach partition late for values from (2000) to (2500); alter table t attach partition deep for values from (2500) to (3000)").await;
    bed.sql("create table fresh partition of t for values from (3000) to (4000); insert into t values (3001, 'fresh'); delete from t where id = 2007; update t set id = 3002 where id = 2008").await;
    wait_event(&bed, "new in public.t, and copied").await;
    bed.wait_equal("t", "t").await;

    assert!(moves.end().await > 10);
    bed.sql("alter table t detach partition early; update early set v = 'its own now'").await;
    wait_event(&bed, "detached or dropped from public.t: public.early").await;
    bed.wait_equal("t", "t").await;
    bed.sql("drop table middle_1; truncate late; insert into t values (2100, 'after')").await;
    bed.wait_equal("t", "t").await;
    assert!(writes.end().await > 10);
    bed.wait_equal("t", "t").await;
    assert_eq!(bed.wait_equal("other", "other").await, 1);
}

async fn away_and_back(bed: Bed) {
    bed.sql(TREE).await;
    bed.mirror_streaming(&["public.t"]).await;
    // Nobody looks between the two, and the log tells nothing of the rows.
    bed.sql("alter table t detach partition early; delete from early where id < 10; insert into early values (5, 'away'); update early set v = 'changed' where id = 500; alter table t attach partition early for values from (0) to (1000)").await;
    wait_event(&bed, "public.early").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1_990);
    assert_eq!(count(&bed, "v = 'changed'").await, 1);
}

async fn kept(bed: Bed) {
    bed.sql(TREE).await;
    let settings = api::Settings {
        on_partition_removed: api::settings::OnPartitionRemoved::KeepRows.into(),
        ..Default::default()
    };
    let mirror = api::Mirror { settings: Some(settings), ..bed.mirror(&["public.t"]) };
    bed.create(mirror).await.expect("a mirror");
    bed.wait_table("public.t", table::State::Streaming).await;
    bed.sql("update t set v = 'last' where id = 7; alter table t detach partition early; truncate middle; insert into t values (1001, 'again')").await;
    wait_event(&bed, "detached or dropped from public.t: public.early; the rows stay").await;
    wait_event(&bed, "a part of public.t was truncated: the rows stay").await;
    bed.sql("drop table early; create table early partition of t for values from (0) to (500); insert into t values (3, 'new')").await;
    wait_event(&bed, "new in public.t, and copied: public.early").await;
    wait::until("the row of the new partition", SOON, || async {
        let rows = count(&bed, "v = 'new'").await;
        if rows == 1 { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    assert_eq!(count(&bed, "1").await, 1_999);
    assert_eq!((count(&bed, "v = 'last'").await, count(&bed, "v = 'again'").await), (1, 1));
    // Whatever was kept goes with the whole.
    bed.sql("truncate t; insert into t values (1, 'only')").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1);
}

async fn truncates(bed: Bed) {
    bed.sql(TREE).await;
    bed.sql("create table plain (id bigint primary key, v text); insert into plain select i, repeat(md5(i::text), 20) from generate_series(1, 50000) i").await;
    let settings = api::Settings {
        snapshot: Some(api::SnapshotSettings {
            partition_bytes: Some(1 << 20),
            parallel_partitions: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mirror = api::Mirror { settings: Some(settings), ..bed.mirror(&["public.plain", "public.t"]) };
    bed.create(mirror).await.expect("a mirror");
    bed.wait_for("a part of the copy", |m| {
        m.tables.iter().any(|t| t.source == "public.plain" && t.partitions_done >= 1)
    })
    .await;
    bed.sql("begin; insert into plain values (-1, 'before'); truncate t, plain; insert into plain values (-2, 'behind'); commit; insert into t values (1, 'behind')").await;
    assert_eq!(bed.wait_equal("plain", "plain").await, 1);
    bed.wait_table("public.plain", table::State::Streaming).await;
    bed.wait_table("public.t", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("plain", "plain").await, 1);
    assert_eq!(bed.wait_equal("t", "t").await, 1);
}
