//! A catalog that is that of a backup: what it does not know of is never skipped.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, settings};

use crate::support::bed::{Bed, connect};
use crate::support::cell::Cell;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![test("restored::a_catalog_behind_its_slot_begins_anew", a_catalog_behind_its_slot_begins_anew)]
}

/// The slot has gone further than the position of the backup: what lies between is told by no log. A worker
/// of before lives on, with a lease of a higher number than the backup gives.
async fn a_catalog_behind_its_slot_begins_anew(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    let worker = cell.worker().await;
    bed.sql("create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 1000) i").await;
    let policy =
        api::Settings { on_slot_lost: settings::OnSlotLost::ResyncMirror.into(), ..Default::default() };
    bed.create(api::Mirror { settings: Some(policy), ..bed.mirror(&["public.t"]) }).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("update t set v = 1 where id < 10").await;
    bed.wait_equal("t", "t").await;

    let (base, database) = cell.catalog.rsplit_once('/').expect("a URL with a database");
    let admin = connect(&stack::endpoints().catalog, None).await;
    let copy = |from: &str, to: &str| {
        format!("select pg_terminate_backend(pid) from pg_stat_activity where datname in ('{from}', '{to}')")
    };
    let backup = format!("{database}_backup");
    // Nobody may be connected while a database is copied: tried until it is so.
    let copied = |from: String, to: String| {
        let (admin, end) = (&admin, copy(&from, &to));
        async move {
            crate::support::wait::until("a copy of the catalog", crate::support::bed::SOON, || async {
                admin.batch_execute(&end).await.map_err(|error| error.to_string())?;
                admin
                    .batch_execute(&format!("drop database if exists {to}"))
                    .await
                    .map_err(|error| error.to_string())?;
                admin
                    .batch_execute(&format!("create database {to} template {from}"))
                    .await
                    .map_err(|error| error.to_string())
            })
            .await;
        }
    };
    copied(database.to_owned(), backup.clone()).await;
    let end: String =
        bed.source.query_one("select pg_current_wal_lsn()::text", &[]).await.expect("the log's end").get(0);
    // So that the attempts of the stream get further than those of the backup.
    for round in 0..3 {
        let request = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
        bed.mirrors().pause_mirror(request).await.expect("it pauses");
        let request = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
        bed.mirrors().resume_mirror(request).await.expect("it goes on");
        bed.sql(&format!(
            "update t set v = {round} + 10 where id % 7 = {round}; delete from t where id = 500 + {round}"
        ))
        .await;
        bed.wait_equal("t", "t").await;
    }
    // The source has let go of what the backup's position would ask for.
    let slot = bed.get().await.expect("the mirror").streams[0].slot.clone();
    let moved =
        "select confirmed_flush_lsn > $2::text::pg_lsn from pg_replication_slots where slot_name = $1::text";
    crate::support::wait::until("the slot beyond the backup", crate::support::bed::SOON, || async {
        let row = bed.source.query_one(moved, &[&slot, &end]).await.map_err(|error| error.to_string())?;
        if row.get(0) { Ok(()) } else { Err(format!("it has not passed {end}")) }
    })
    .await;
    worker.freeze();
    copied(backup, database.to_owned()).await;
    let _second = cell.worker().await;
    bed.sql("update t set v = -1 where id % 11 = 0; delete from t where id = 600").await;
    assert_eq!(bed.wait_equal("t", "t").await, 996);
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    assert!(events.iter().any(|event| event.code == "SLOT_LOST"), "{events:#?}");
    // It wakes up, and changes nothing.
    worker.thaw();
    bed.sql("insert into t values (5000, 1); update t set v = 3 where id = 3").await;
    assert_eq!(bed.wait_equal("t", "t").await, 997);
    drop(connect(&format!("{base}/{database}"), None).await);
    bed.wait_state(mirror::State::Running).await;
}
