//! Many tables that are all written to, in one mirror and in many. I/O.

use std::time::{Duration, Instant};

use millrace_proto::v1::mirror::Mode;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::asked;
use crate::bed::{Bed, DATABASE};
use crate::meter::Meter;
use crate::report::{Figures, Line, Rounds, median};
use crate::seen::{Unseen, latencies};
use crate::tables::Kind;
use crate::{Scope, say};

/// Time between two groups of transactions, and between two looks at the destination.
const TICK: Duration = Duration::from_millis(100);
/// How long is written before it counts: with a turn of 10 s for each table, three of them.
const WARM_UP: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(60);

/// What is written to.
#[derive(Debug, Clone, Copy)]
struct Load {
    mirrors: u64,
    /// Tables of each mirror.
    tables: u64,
    /// Tables that are written to in a tick, by turns, each by one transaction.
    in_tick: u64,
    /// Rows of a transaction.
    rows: u64,
}

const LOADS: [Load; 2] = [
    Load { mirrors: 1, tables: 500, in_tick: 50, rows: 1 },
    Load { mirrors: 20, tables: 1, in_tick: 20, rows: 10 },
];
const SMALL: [Load; 2] = [
    Load { mirrors: 1, tables: 5, in_tick: 1, rows: 1 },
    Load { mirrors: 2, tables: 1, in_tick: 2, rows: 10 },
];

impl Load {
    /// What the names of all its tables begin with.
    fn prefix(&self) -> String {
        format!("load{}_", self.mirrors)
    }

    fn table(&self, number: u64) -> String {
        format!("{}{number}", self.prefix())
    }

    fn mirror(&self, number: u64) -> String {
        format!("load{}-{number}", self.mirrors)
    }
}

/// Writes to each.
///
/// # Errors
/// If something does not work.
pub async fn measure(bed: &mut Bed, scope: &Scope) -> anyhow::Result<Vec<Line>> {
    // Tables from a number on, each by a transaction of its own.
    let procedure = format!(
        "create or replace procedure write_load(prefix text, from_table int8, tables int8, first int8, rows int8) \
         language plpgsql as $$ begin \
           for t in from_table .. from_table + tables - 1 loop \
             execute format($q$insert into %I select {} from generate_series($1, $2) i$q$, prefix || t) using first, first + rows - 1; \
             commit; end loop; end $$",
        Kind::Reference.row().replace('%', "%%"),
    );
    bed.source.batch_execute(&procedure).await?;
    let mut lines = Vec::new();
    for load in scope.or_small(LOADS, SMALL) {
        prepare(bed, &load).await?;
        let mut rounds = Rounds::default();
        let mut turn = 0;
        for _ in 0..scope.rounds {
            let figures = round(bed, scope, &load, &mut turn).await?;
            say(&format!("{load:?}: {figures:.1?}"));
            rounds.add(figures);
        }
        for mirror in 0..load.mirrors {
            bed.api.delete(&load.mirror(mirror)).await?;
        }
        let Load { mirrors, tables, .. } = load;
        lines.push(rounds.line(format!("load: mirrors {mirrors}, tables of each {tables}")));
    }
    Ok(lines)
}

/// Makes tables and mirrors. Nothing is copied: that is measured elsewhere.
async fn prepare(bed: &mut Bed, load: &Load) -> anyhow::Result<()> {
    let all: Vec<String> = (0..load.mirrors * load.tables).map(|number| load.table(number)).collect();
    for table in &all {
        bed.source.batch_execute(&Kind::Reference.create(table)).await?;
    }
    for (number, tables) in (0..).zip(all.chunks(load.tables as usize)) {
        let mut mirror = asked(&load.mirror(number), tables);
        mirror.mode = Mode::StreamOnly.into();
        bed.api.create_mirror(mirror).await?;
        bed.api.wait_until_streaming(&load.mirror(number)).await?;
    }
    Ok(())
}

async fn round(bed: &Bed, scope: &Scope, load: &Load, turn: &mut u64) -> anyhow::Result<Figures> {
    let (unseen, end) = (Unseen::default(), CancellationToken::new());
    let writing = tokio::spawn(write(bed.session().await?, *load, *turn, unseen.clone(), end.clone()));
    let (warm_up, measured) =
        scope.or_small((WARM_UP, MEASURED), (Duration::from_millis(200), Duration::from_secs(1)));
    let rows = format!(
        "select sum(rows) from system.parts where database = '{DATABASE}' and startsWith(table, '{}') and active",
        load.prefix()
    );
    drop(unseen.watch(bed, &rows, TICK, warm_up).await?);
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    let mut seen = unseen.watch(bed, &rows, TICK, measured).await?;
    let seconds = began.elapsed().as_secs_f64();
    let parts = meter.end()?;
    end.cancel();
    let before = *turn;
    *turn = writing.await??;
    let written = (*turn - before) * load.in_tick * load.rows;
    let middle = seen.len() / 2;
    let halves = [median(&mut seen[..middle].to_vec()), median(&mut seen[middle..].to_vec())];
    seen.sort_by(f64::total_cmp);
    let mut figures = latencies(seen);
    figures.extend([
        ("p50 of the first half", halves[0]),
        ("p50 of the last half", halves[1]),
        ("rows/s written", written as f64 / (seconds + warm_up.as_secs_f64())),
        ("worker CPU", parts.worker.cpu / seconds),
        ("source CPU", parts.source.cpu / seconds),
        ("ClickHouse CPU", parts.clickhouse.cpu / seconds),
        ("rest CPU", parts.rest.cpu / seconds),
        ("worker peak MiB", parts.worker.peak_mib),
    ]);
    Ok(figures)
}

/// Writes until it is to end; returns the next turn.
async fn write(
    session: tokio_postgres::Client,
    load: Load,
    first: u64,
    unseen: Unseen,
    end: CancellationToken,
) -> anyhow::Result<u64> {
    session.batch_execute("set synchronous_commit = off").await?;
    let prefix = load.prefix();
    // Turns until every table has been written to.
    let around = load.mirrors * load.tables / load.in_tick;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turn = first;
    while !end.is_cancelled() {
        ticks.tick().await;
        let (from, id) = (turn % around * load.in_tick, turn / around * load.rows + 1);
        let Load { in_tick, rows, .. } = load;
        session
            .batch_execute(&format!("call write_load('{prefix}', {from}, {in_tick}, {id}, {rows})"))
            .await?;
        turn += 1;
        unseen.committed(turn * in_tick * rows);
    }
    Ok(turn)
}
