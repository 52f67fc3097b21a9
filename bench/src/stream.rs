//! How fast a backlog of changes is drained: from the call of ResumeMirror to the last row visible. I/O.

use std::time::{Duration, Instant};

use anyhow::ensure;
use millrace_proto::v1::Settings;

use crate::api::asked;
use crate::backlog::{Backlog, Writer};
use crate::bed::{Bed, LIMIT};
use crate::limits::{Taken, recvlogical};
use crate::meter::Meter;
use crate::report::{Line, Rounds, Section, throughput};
use crate::{Scope, say};

const ABOUT: &str = "## Stream\n\n\
    A mirror is paused, changes of the reference table are written, and the mirror goes on: from the call of ResumeMirror to the last \
    change visible, with default settings. In turn with it `pg_recvlogical` reads the same changes from a copy of the slot to nothing; \
    *of pg_recvlogical* compares rates of the same round. `inserts`: transactions of 100 rows. `single`: one transaction. \
    `mix`: transactions of 50 updates, 10 deletes and 40 inserts over 20 tables. `spread`: inserts by turns into 4 tables, drained by a mirror \
    with one stream and by one with two (`streams: 2`), in turn; *of one stream* compares their rates.";

/// Pause between two looks at a slot.
const LOOK: Duration = Duration::from_millis(50);
/// What is drained beside `pg_recvlogical`.
const BACKLOGS: [Backlog; 3] = [Backlog::Inserts, Backlog::Single, Backlog::Mix];
/// Streams of the mirrors that drain the spread backlog.
const STREAMS: [u32; 2] = [1, 2];
/// The slot's copy that `pg_recvlogical` reads.
const COPY: &str = "bench_copy";

/// Measures.
///
/// # Errors
/// If something does not work, or rows differ.
pub async fn measure(scope: &Scope) -> anyhow::Result<Section> {
    let mut bed = Bed::start(scope, 1).await?;
    let mut lines = Vec::new();
    let backlogs = scope.or_small(BACKLOGS.as_slice(), &[Backlog::Mix]);
    for backlog in backlogs.iter().copied().filter(|backlog| scope.wants(backlog.name())) {
        lines.extend(drain(&mut bed, scope, backlog).await?);
    }
    if scope.wants(Backlog::Spread.name()) {
        lines.extend(drain_in_streams(&mut bed, scope).await?);
    }
    bed.stop().await;
    Ok(Section { name: "stream", about: ABOUT, rounds: scope.rounds, lines })
}

async fn drain(bed: &mut Bed, scope: &Scope, backlog: Backlog) -> anyhow::Result<Vec<Line>> {
    let mirror = backlog.name();
    let mut writer = Writer::prepare(bed, backlog, scope.changes, scope.rounds + 1).await?;
    bed.api.create(mirror, &backlog.tables()).await?;
    bed.api.wait_until_streaming(mirror).await?;
    let (mut ours, mut limit) = (Rounds::default(), Rounds::default());
    for round in scope.first_round()..=scope.rounds {
        bed.api.pause(mirror).await?;
        writer.write(bed).await?;
        let end = bed.value("pg_current_wal_insert_lsn()").await?;
        copy_slot(bed, mirror).await?;
        let publication = publication(bed, mirror).await?;
        // By turns: who comes second finds the log in nearer caches.
        let (reader, taken) = if round % 2 == 0 {
            let reader = recvlogical(bed, COPY, &publication, &end).await?;
            (reader, resume(bed, mirror, &writer, "").await?)
        } else {
            let taken = resume(bed, mirror, &writer, "").await?;
            (recvlogical(bed, COPY, &publication, &end).await?, taken)
        };
        drop_copy(bed).await?;
        writer.compare(bed, "").await?;
        say(&format!(
            "{mirror} round {round}: pg_recvlogical {:.2} s (walsender {:.2}), ours {:.2} s (walsender {:.2}, worker {:.2}, ClickHouse {:.2})",
            reader.seconds,
            reader.parts.source.cpu,
            taken.seconds,
            taken.parts.source.cpu,
            taken.parts.worker.cpu,
            taken.parts.clickhouse.cpu,
        ));
        if round == 0 {
            continue;
        }
        let mut figures = throughput(writer.changes, taken.seconds, &taken.parts);
        figures.insert(1, ("of pg_recvlogical", reader.seconds / taken.seconds));
        ours.add(figures);
        limit.add(throughput(writer.changes, reader.seconds, &reader.parts));
    }
    bed.api.delete(mirror).await?;
    let what = |text: &str| format!("{mirror}, {} changes: {text}", writer.changes);
    Ok(vec![ours.line(what("Millrace")), limit.line(what("pg_recvlogical"))])
}

/// One mirror for each number of streams, from the same tables into tables of its own.
async fn drain_in_streams(bed: &mut Bed, scope: &Scope) -> anyhow::Result<Vec<Line>> {
    let backlog = Backlog::Spread;
    let mut writer = Writer::prepare(bed, backlog, scope.changes, scope.rounds + 1).await?;
    let name = |streams: u32| format!("streams{streams}");
    let prefix = |streams: u32| format!("streams{streams}_");
    for streams in STREAMS {
        let mut mirror = asked(&name(streams), &backlog.tables());
        for (table, source) in mirror.tables.iter_mut().zip(backlog.tables()) {
            table.destination = format!("{}{source}", prefix(streams));
        }
        mirror.settings = Some(Settings { streams: Some(streams), ..Default::default() });
        bed.api.create_mirror(mirror).await?;
        bed.api.wait_until_streaming(&name(streams)).await?;
    }
    let mut measured = STREAMS.map(|_| Rounds::default());
    for round in scope.first_round()..=scope.rounds {
        for streams in STREAMS {
            bed.api.pause(&name(streams)).await?;
        }
        writer.write(bed).await?;
        let mut taken: [Option<Taken>; 2] = [None; 2];
        // By turns, as above.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let (name, prefix) = (name(STREAMS[at]), prefix(STREAMS[at]));
            taken[at] = Some(resume(bed, &name, &writer, &prefix).await?);
            writer.compare(bed, &prefix).await?;
            bed.api.pause(&name).await?;
        }
        let [Some(one), Some(two)] = taken else { continue };
        say(&format!("round {round}: one stream {:.2} s, two {:.2} s", one.seconds, two.seconds));
        if round == 0 {
            continue;
        }
        for (rounds, taken) in measured.iter_mut().zip([one, two]) {
            let mut figures = throughput(writer.changes, taken.seconds, &taken.parts);
            figures.insert(1, ("of one stream", one.seconds / taken.seconds));
            rounds.add(figures);
        }
    }
    for streams in STREAMS {
        bed.api.delete(&name(streams)).await?;
    }
    let what = |streams| format!("spread, {} changes: Millrace with `streams: {streams}`", writer.changes);
    Ok(STREAMS.into_iter().zip(&measured).map(|(streams, rounds)| rounds.line(what(streams))).collect())
}

/// Has the mirror go on until everything is visible, in tables whose names begin so.
///
/// # Errors
/// If it does not get there.
pub async fn resume(bed: &mut Bed, mirror: &str, writer: &Writer, prefix: &str) -> anyhow::Result<Taken> {
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    bed.api.resume(mirror).await?;
    let seen = writer.wait(bed, prefix).await?;
    let seconds = seen.into_std().saturating_duration_since(began).as_secs_f64();
    Ok(Taken { seconds, parts: meter.end()? })
}

/// The slot of a mirror; the name has that of the mirror in it.
async fn slot(bed: &Bed, mirror: &str) -> anyhow::Result<String> {
    bed.value(&format!(
        "select slot_name from pg_replication_slots where slot_name like 'millrace_%\\_{mirror}'"
    ))
    .await
}

async fn publication(bed: &Bed, mirror: &str) -> anyhow::Result<String> {
    bed.value(&format!("select pubname from pg_publication where pubname like 'millrace_%\\_{mirror}'")).await
}

async fn copy_slot(bed: &Bed, mirror: &str) -> anyhow::Result<()> {
    let slot = slot(bed, mirror).await?;
    let deadline = Instant::now() + LIMIT;
    while bed.value(&format!("select active from pg_replication_slots where slot_name = '{slot}'")).await?
        != "false"
    {
        ensure!(Instant::now() < deadline, "the slot of {mirror} is still read");
        tokio::time::sleep(LOOK).await;
    }
    bed.value(&format!("pg_copy_logical_replication_slot('{slot}', '{COPY}')")).await.map(drop)
}

async fn drop_copy(bed: &Bed) -> anyhow::Result<()> {
    bed.value(&format!("pg_drop_replication_slot('{COPY}')")).await.map(drop)
}
