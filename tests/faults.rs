//! The worker dies at each fault point, behind each durable step, once; the next one finds what it left,
//! and in the end everything is equal.
//!
//! One worker runs at a time. Each dies at the next point, while it mends what the one before it left:
//! the mirrors take turns, so that a copy or a resync that is being mended holds nobody up.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use millrace_terms::fault::Point;

use crate::support::bed::Bed;
use crate::support::cell::{Cell, Process};
use crate::support::{equal, test, wait};

/// Mirrors that take turns.
const MIRRORS: usize = 4;
/// Longest wait until a worker has died at its point: it may have to wait for leases and heartbeats of
/// the one before it.
const DEATH_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait until everything is mended.
const MENDED_LIMIT: Duration = Duration::from_secs(180);
/// Longest wait for an answer that a worker, which may be dead, has a part in.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// Pause between two rounds of writes and calls.
const ROUND: Duration = Duration::from_millis(300);

pub fn tests() -> Vec<Trial> {
    // Only debug builds have fault points.
    let all = vec![
        test("faults::worker_dies_at_every_point", worker_dies_at_every_point),
        test("faults::nobody_asks_again_for_a_resync", nobody_asks_again_for_a_resync),
    ];
    if cfg!(debug_assertions) { all } else { Vec::new() }
}

/// What leads a worker to a point.
#[derive(Debug, PartialEq, Eq)]
enum Road {
    /// A mirror is created; what died is tried again.
    Create,
    /// A table is copied again, while it is written to and truncated.
    Resync,
    /// The same, when its destination table does not fit any more.
    Remake,
}

fn road(point: Point) -> Road {
    match point {
        Point::SourceFound
        | Point::PublicationMade
        | Point::SlotMade
        | Point::SlotRecorded
        | Point::DestinationMade => Road::Create,
        Point::DestinationDropped | Point::DestinationRemade | Point::Replanned => Road::Remake,
        _ => Road::Resync,
    }
}

async fn worker_dies_at_every_point(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    for n in 0..MIRRORS {
        make_tables(&bed, n).await;
    }
    // The first mirror is made by workers that die, the others by one that lives.
    let (creation, life): (Vec<Point>, Vec<Point>) =
        Point::ALL.iter().partition(|point| road(**point) == Road::Create);
    for (i, point) in creation.into_iter().enumerate() {
        let mut worker = cell.worker_that_dies_at(point);
        if i == 0 {
            create(&bed, 0).await;
        }
        dies(&bed, &mut worker, point, 0).await;
    }
    let mut worker = cell.worker().await;
    for n in 1..MIRRORS {
        create(&bed, n).await;
    }
    worker.kill();
    for (i, point) in life.into_iter().enumerate() {
        let mut worker = cell.worker_that_dies_at(point);
        dies(&bed, &mut worker, point, i % MIRRORS).await;
    }
    let _last = cell.worker().await;
    for n in 0..MIRRORS {
        is_mended(&bed, n).await;
    }
}

/// A destination table is dropped, and made anew, by workers that die; the one who asked for it has had
/// the answer that it failed. The table has lost its rows, and they come back without another word.
async fn nobody_asks_again_for_a_resync(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    make_tables(&bed, 0).await;
    let mut worker = cell.worker().await;
    create(&bed, 0).await;
    is_mended(&bed, 0).await;
    worker.kill();
    bed.clickhouse.query("alter table kept_0 drop column v").await.expect("a table that does not fit");
    let mut worker = cell.worker_that_dies_at(Point::DestinationDropped);
    let request = api::ResyncTableRequest {
        name: mirror_name(&bed, 0),
        table: "public.kept_0".to_owned(),
        ..Default::default()
    };
    let mut mirrors = bed.mirrors();
    let asked = tokio::spawn(async move { mirrors.resync_table(request).await });
    has_died(&mut worker).await;
    let mut worker = cell.worker_that_dies_at(Point::DestinationRemade);
    has_died(&mut worker).await;
    let _last = cell.worker().await;
    asked.await.expect("an answer").expect_err("two attempts have failed");
    is_mended(&bed, 0).await;
}

async fn has_died(worker: &mut Process) {
    wait::until("the worker's death", DEATH_LIMIT, || {
        let has_ended = worker.has_ended();
        async move { if has_ended { Ok(()) } else { Err("it lives".to_owned()) } }
    })
    .await;
}

async fn make_tables(bed: &Bed, n: usize) {
    bed.sql(&format!(
        "create table kept_{n} (id int primary key, v int, big text); alter table kept_{n} alter big set storage external;
         create table emptied_{n} (id int primary key, v int);
         insert into kept_{n} select i, 0, repeat(md5(i::text), 100) from generate_series(1, 500) i;
         insert into emptied_{n} select i, 0 from generate_series(1, 500) i"
    ))
    .await;
}

fn mirror_name(bed: &Bed, n: usize) -> String {
    format!("{}-{n}", bed.name)
}

/// Creates mirror `n`, as soon as a worker checks it.
async fn create(bed: &Bed, n: usize) {
    let tables = [format!("public.kept_{n}"), format!("public.emptied_{n}")];
    let request =
        api::Mirror { name: mirror_name(bed, n), ..bed.mirror(&tables.each_ref().map(String::as_str)) };
    wait::until("a mirror", DEATH_LIMIT, || async {
        bed.create(request.clone()).await.map(drop).map_err(|status| status.to_string())
    })
    .await;
}

/// Writes to mirror `n`, and has it do what leads to the point, until the worker has died there.
async fn dies(bed: &Bed, worker: &mut Process, point: Point, n: usize) {
    let start = Instant::now();
    for round in 0_u64.. {
        if worker.has_ended() {
            return;
        }
        assert!(start.elapsed() < DEATH_LIMIT, "no worker died at {point:?}");
        write(bed, n, round).await;
        match road(point) {
            Road::Create => {}
            Road::Resync => {
                bed.sql(&format!(
                    "truncate emptied_{n}; insert into emptied_{n} select i, 1 from generate_series(1, 50) i"
                ))
                .await;
                resync(bed, n).await;
            }
            Road::Remake => {
                let differ = format!("alter table kept_{n} drop column if exists v");
                drop(bed.clickhouse.query(&differ).await);
                resync(bed, n).await;
            }
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn write(bed: &Bed, n: usize, round: u64) {
    let id = round % 450;
    bed.sql(&format!(
        "update kept_{n} set v = v + 1 where id % 50 = {round} % 50;
         delete from kept_{n} where id = {id}; insert into kept_{n} values ({id}, {round}, repeat('x', 3000));
         update emptied_{n} set id = id + 100000 where id = {id} and id % 3 = 0"
    ))
    .await;
}

/// Asks for a resync of the mirror's tables. It may be refused, or answered by nobody.
async fn resync(bed: &Bed, n: usize) {
    for table in ["kept", "emptied"] {
        let request = api::ResyncTableRequest {
            name: mirror_name(bed, n),
            table: format!("public.{table}_{n}"),
            ..Default::default()
        };
        drop(tokio::time::timeout(CALL_LIMIT, bed.mirrors().resync_table(request)).await);
    }
}

/// The mirror runs, and its tables are equal.
async fn is_mended(bed: &Bed, n: usize) {
    wait::until(&format!("mirror {n} mended"), MENDED_LIMIT, || async {
        let request = api::GetMirrorRequest { name: mirror_name(bed, n) };
        let found =
            bed.mirrors().get_mirror(request).await.map_err(|status| status.to_string())?.into_inner();
        if found.state() == mirror::State::Running {
            return Ok(());
        }
        // A table whose destination was changed by hand waits for its resync.
        if found.tables.iter().any(|table| table.state() == table::State::Error) {
            resync(bed, n).await;
        }
        Err(format!("{found:?}"))
    })
    .await;
    for table in ["kept", "emptied"] {
        let table = format!("{table}_{n}");
        let rows = wait::until(&format!("{table} equal"), MENDED_LIMIT, || {
            equal::compare(&bed.source, &bed.clickhouse, &table, &table)
        })
        .await;
        assert!(rows > 0, "{table} is empty");
    }
}
