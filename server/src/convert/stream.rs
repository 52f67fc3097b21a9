//! Stored streams as the API shows them: how far they are, their slots, what they did.

use catalog::batches::Batch;
use catalog::failure::Failure;
use catalog::health::{self, Health};
use catalog::mirrors::Mirror;
use catalog::progress;
use catalog::slots::SlotSeen;
use catalog::streams::Stream;
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_proto::v1;
use millrace_terms::Lsn;

use super::view::{count, failure, small, time};

/// A stream of a stored mirror at `now`.
pub(crate) fn stream(mirror: &Mirror, stream: &Stream, now: Timestamp) -> v1::Stream {
    let health = health::judge(mirror, stream, now);
    v1::Stream {
        number: small(u64::from(stream.n)),
        slot: stream.slot.clone(),
        publication: stream.publication.clone(),
        position: position(stream.position),
        lag_bytes: stream.lag_bytes().map(count),
        lag_seconds: stream.lag_time(now).map(|lag| lag.as_secs_f64()),
        verdict: verdict(&health).into(),
        reason: health.reason().map(reason).unwrap_or_default(),
        failure: health.reason().map(failure),
        last_commit_time: stream.last_commit_at.map(time),
        replication_slot: stream.slot_seen.as_ref().map(|seen| slot(&stream.slot, seen)),
        rows_per_second: progress::stream_rate(stream, now),
    }
}

/// How a stream fares.
pub(crate) fn verdict(health: &Health) -> v1::stream::Verdict {
    use v1::stream::Verdict;
    match health {
        Health::NotStarted => Verdict::Unspecified,
        Health::Healthy => Verdict::Healthy,
        Health::Idle => Verdict::Idle,
        Health::Stalled(_) => Verdict::Stalled,
    }
}

fn reason(failure: &Failure) -> String {
    format!("{}: {}. {}", failure.code, failure.message, failure.remedy)
}

/// A replication slot as it was seen.
pub(crate) fn slot(name: &str, seen: &SlotSeen) -> v1::ReplicationSlot {
    let look = &seen.look;
    v1::ReplicationSlot {
        name: name.to_owned(),
        active: look.active_pid.is_some(),
        active_pid: look.active_pid.unwrap_or_default(),
        wal_status: look.wal_status.clone(),
        restart_position: position(look.restart),
        confirmed_position: position(look.confirmed),
        current_position: position(Some(look.current)),
        retained_bytes: count(look.retained_bytes()),
        lag_bytes: count(look.lag_bytes()),
        limit_bytes: look.limit_bytes.map(count),
        safe_bytes: look.safe_bytes.map(count),
        growth_bytes_per_second: seen.growth_bytes_per_s,
        wal_bytes_per_second: seen.wal_bytes_per_s,
        seconds_to_limit: seen.seconds_to_limit(),
        invalidation_reason: look.invalidation.clone().unwrap_or_default(),
        measure_time: Some(time(seen.at)),
    }
}

/// What a stream did in some 10 s.
pub(crate) fn batch(batch: &Batch) -> v1::Batch {
    v1::Batch {
        id: batch.id,
        stream: small(u64::from(batch.stream)),
        start_time: batch.started_at.map(time),
        write_time: Some(time(batch.written_at)),
        start_position: position(batch.start_position),
        end_position: position(batch.position),
        first_commit_time: batch.first_commit_at.map(time),
        last_commit_time: batch.last_commit_at.map(time),
        inserts: count(batch.inserts),
        updates: count(batch.updates),
        deletes: count(batch.deletes),
        truncates: count(batch.truncates),
        tables: small(u64::from(batch.tables)),
        bytes: count(batch.bytes),
        flushes: count(batch.flushes),
        flush_seconds: batch.took_ms as f64 / 1e3,
    }
}

fn position(lsn: Option<Lsn>) -> String {
    lsn.map(|lsn| lsn.to_string()).unwrap_or_default()
}
