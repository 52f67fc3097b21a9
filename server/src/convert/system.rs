//! How everything is: the mirrors taken together.
//!
//! Pure: the caller says what time it is.

use std::collections::BTreeMap;

use catalog::failure::Failure;
use catalog::health;
use catalog::mirrors::Mirror;
use catalog::progress;
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_proto::v1;

use super::stream;
use super::view::{count, failure, small};
use crate::doctor::QueueFacts;

/// Tables in ERROR that are listed: an answer stays within a few hundred KiB.
const FAILED_TABLES_MAX: usize = 1_000;

/// The figures of all mirrors; the rest is left to the caller.
pub(crate) fn status(mirrors: &[Mirror], now: Timestamp) -> v1::SystemStatus {
    let all: Vec<_> = mirrors.iter().map(|mirror| progress::of(mirror, now)).collect();
    let tables = || mirrors.iter().flat_map(|mirror| mirror.tables.iter().map(move |table| (mirror, table)));
    let verdicts = all.iter().map(|progress| progress.health.as_str());
    let failed_tables = tables().filter_map(|(mirror, table)| {
        Some(v1::TableTrouble {
            mirror: mirror.name().to_owned(),
            table: table.source.to_string(),
            failure: Some(failure(table.error.as_ref()?)),
        })
    });
    v1::SystemStatus {
        mirrors: small(mirrors.len() as u64),
        mirrors_by_state: tally(mirrors.iter().map(|mirror| mirror.state.as_str())),
        mirrors_by_verdict: tally(verdicts.filter(|verdict| !verdict.is_empty())),
        tables: small(tables().count() as u64),
        tables_by_state: tally(tables().map(|(_, table)| table.state.as_str())),
        copy_rows_per_second: all.iter().filter_map(|progress| progress.copy_rows_per_s).sum(),
        stream_rows_per_second: all.iter().map(|progress| progress.stream_rows_per_s).sum(),
        worst_lag: worst_lag(mirrors, now),
        stalled_streams: stalled(mirrors, now),
        failed_tables: failed_tables.take(FAILED_TABLES_MAX).collect(),
        slots_at_risk: at_risk(mirrors),
        ..v1::SystemStatus::default()
    }
}

/// A task queue, and who polls it.
pub(crate) fn queue(facts: &QueueFacts) -> v1::TaskQueue {
    v1::TaskQueue {
        name: facts.name.clone(),
        kind: facts.option.to_owned(),
        workers: facts.pollers.as_ref().map_or(0, |pollers| small(*pollers as u64)),
        failure: facts.pollers.as_ref().err().map(|error| failure(&Failure::new(error))),
    }
}

fn tally<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, i32> {
    words.fold(BTreeMap::new(), |mut tally, word| {
        *tally.entry(word.to_owned()).or_default() += 1;
        tally
    })
}

fn worst_lag(mirrors: &[Mirror], now: Timestamp) -> Option<v1::StreamLag> {
    let streams = mirrors.iter().flat_map(|mirror| &mirror.streams);
    let lags = streams.filter_map(|stream| {
        let (bytes, time) = (stream.lag_bytes()?, stream.lag_time(now)?);
        let lag = v1::StreamLag {
            mirror: stream.mirror.clone(),
            stream: small(u64::from(stream.n)),
            bytes: count(bytes),
            seconds: time.as_secs_f64(),
        };
        (bytes > 0).then_some(lag)
    });
    lags.max_by(|a, b| a.seconds.total_cmp(&b.seconds))
}

fn stalled(mirrors: &[Mirror], now: Timestamp) -> Vec<v1::StreamTrouble> {
    let streams = mirrors.iter().flat_map(|mirror| mirror.streams.iter().map(move |stream| (mirror, stream)));
    let troubles = streams.filter_map(|(mirror, stream)| {
        let judged = health::judge(mirror, stream, now);
        Some(v1::StreamTrouble {
            mirror: stream.mirror.clone(),
            stream: small(u64::from(stream.n)),
            failure: Some(failure(judged.reason()?)),
        })
    });
    troubles.collect()
}

fn at_risk(mirrors: &[Mirror]) -> Vec<v1::SlotTrouble> {
    let streams = mirrors.iter().flat_map(|mirror| &mirror.streams);
    let troubles = streams.filter_map(|held| {
        let seen = held.slot_seen.as_ref().filter(|seen| seen.is_at_risk())?;
        Some(v1::SlotTrouble {
            mirror: held.mirror.clone(),
            stream: small(u64::from(held.n)),
            slot: Some(stream::slot(&held.slot, seen)),
        })
    });
    troubles.collect()
}

#[cfg(test)]
mod tests {
    use catalog::slots::{SlotLook, SlotSeen};
    use catalog::state::{MirrorState, TableState};
    use millrace_terms::{Code, Error, Lsn};

    use super::super::view::tests::{at, stored_mirror};
    use super::*;

    #[test]
    fn troubles_are_named_and_the_rest_is_counted() {
        let good = stored_mirror();
        let mut bad = Mirror { state: MirrorState::Degraded, ..stored_mirror() };
        bad.spec.name = "other".into();
        bad.tables[0].state = TableState::Error;
        bad.tables[0].error = Some(Failure::new(&Error::new(Code::TableSchemaChanged, "the key changed")));
        let stream = &mut bad.streams[0];
        stream.mirror = "other".into();
        stream.attended_at = Some(at(60));
        stream.last_commit_at = Some(at(50));
        let look = SlotLook {
            active_pid: None,
            wal_status: "unreserved".into(),
            restart: Some(Lsn(1)),
            confirmed: Some(Lsn(1)),
            current: Lsn(9),
            limit_bytes: None,
            safe_bytes: None,
            invalidation: None,
        };
        stream.slot_seen = Some(SlotSeen::new(look, at(99), None));
        let status = status(&[good, bad], at(100));
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["mirrors_by_state"], serde_json::json!({"SNAPSHOT": 1, "DEGRADED": 1}));
        assert_eq!(json["mirrors_by_verdict"], serde_json::json!({"HEALTHY": 1, "STALLED": 1}));
        assert_eq!(json["tables_by_state"], serde_json::json!({"COPYING": 1, "ERROR": 1}));
        assert_eq!(
            (&json["worst_lag"]["mirror"], &json["worst_lag"]["seconds"]),
            (&"other".into(), &50.0.into())
        );
        assert_eq!(json["stalled_streams"][0]["failure"]["code"], "NO_WORKERS");
        assert_eq!(json["failed_tables"][0]["failure"]["code"], "TABLE_SCHEMA_CHANGED");
        assert_eq!(json["slots_at_risk"][0]["slot"]["wal_status"], "unreserved");
        assert_eq!(status.stalled_streams.len() + status.failed_tables.len() + status.slots_at_risk.len(), 3);
    }

    #[test]
    fn a_queue_that_could_not_be_asked_says_why() {
        let facts = |pollers| QueueFacts { name: "millrace-stream".into(), option: "stream", pollers };
        assert_eq!(queue(&facts(Ok(2))).workers, 2);
        let away = queue(&facts(Err(Error::new(Code::TemporalUnreachable, "away"))));
        assert_eq!((away.workers, away.failure.unwrap().code.as_str()), (0, "TEMPORAL_UNREACHABLE"));
    }
}
