//! Stored objects as the API shows them: spec, state and progress.

use std::collections::BTreeMap;

use catalog::events::{Event, Severity};
use catalog::failure::Failure;
use catalog::mirrors::Mirror;
use catalog::peers::Peer;
use catalog::progress as figures;
use catalog::spec::TableSpec;
use catalog::state::{MirrorState, TableState};
use catalog::tables::Table;
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_proto::v1;
use millrace_workflows::ids;

use super::{mirror as mirror_spec, peer as peer_spec, progress, stream};

/// A stored peer, without its secrets.
pub(crate) fn peer(peer: &Peer) -> v1::Peer {
    v1::Peer {
        create_time: Some(time(peer.created_at)),
        update_time: Some(time(peer.updated_at)),
        etag: peer.etag.clone(),
        ..peer_spec::from_spec(&peer.spec)
    }
}

/// A stored mirror at `now`.
pub(crate) fn mirror(mirror: &Mirror, now: Timestamp) -> v1::Mirror {
    let mut message = mirror_spec::from_spec(&mirror.spec);
    // The catalog's rows are what is replicated; the spec adds what was asked for.
    let asked: BTreeMap<&str, &TableSpec> =
        mirror.spec.tables.iter().map(|asked| (asked.source.as_str(), asked)).collect();
    message.tables = mirror.tables.iter().map(|stored| table(stored, &asked)).collect();
    v1::Mirror {
        state: mirror_state(mirror.state).into(),
        error: mirror.error.as_ref().map(failure),
        streams: mirror.streams.iter().map(|stored| stream::stream(mirror, stored, now)).collect(),
        workflow_id: ids::mirror(&mirror.spec.name),
        create_time: Some(time(mirror.created_at)),
        update_time: Some(time(mirror.updated_at)),
        etag: mirror.etag.clone(),
        progress: Some(progress::progress(mirror, now)),
        ..message
    }
}

fn mirror_state(state: MirrorState) -> v1::mirror::State {
    use v1::mirror::State as Message;
    match state {
        MirrorState::Setup => Message::Setup,
        MirrorState::Snapshot => Message::Snapshot,
        MirrorState::Running => Message::Running,
        MirrorState::Paused => Message::Paused,
        MirrorState::Degraded => Message::Degraded,
        MirrorState::Failed => Message::Failed,
        MirrorState::Dropping => Message::Dropping,
        MirrorState::Completed => Message::Completed,
    }
}

fn table_state(state: TableState) -> v1::table::State {
    use v1::table::State as Message;
    match state {
        TableState::Pending => Message::Pending,
        TableState::Copying => Message::Copying,
        TableState::Streaming => Message::Streaming,
        TableState::Resyncing => Message::Resyncing,
        TableState::Paused => Message::Paused,
        TableState::Error => Message::Error,
        TableState::Dropped => Message::Dropped,
    }
}

fn table(table: &Table, asked: &BTreeMap<&str, &TableSpec>) -> v1::Table {
    let source = table.source.to_string();
    let asked = asked.get(source.as_str()).copied();
    let copy = table.copy;
    v1::Table {
        source,
        destination: table.destination.clone(),
        state: table_state(table.state).into(),
        error: table.error.as_ref().map(failure),
        rows_copied: count(copy.rows),
        rows_estimated: count(figures::rows_estimated(table)),
        partitions_done: small(copy.done),
        partitions_total: small(copy.partitions),
        bytes_total: count(table.bytes_total),
        bytes_copied: count(copy.bytes),
        blocked_by: table.blocked_by.clone().unwrap_or_default(),
        copy_cancelled: table.copy_cancelled,
        inserts: count(table.inserts),
        updates: count(table.updates),
        deletes: count(table.deletes),
        truncates: count(table.truncates),
        rows_per_second: figures::rows_per_second(table),
        eta_seconds: figures::eta_seconds(table),
        stream: small(u64::from(table.stream)),
        nulled: table.nulled.iter().map(|(column, values)| (column.clone(), count(*values))).collect(),
        ..asked.map(mirror_spec::table_message).unwrap_or_default()
    }
}

pub(crate) fn failure(failure: &Failure) -> v1::Failure {
    v1::Failure {
        code: failure.code.clone(),
        message: failure.message.clone(),
        remedy: failure.remedy.clone(),
        since: Some(time(failure.since)),
    }
}

/// A stored event.
pub(crate) fn event(event: &Event) -> v1::Event {
    use v1::event::Severity as Message;
    let severity = match event.severity {
        Severity::Info => Message::Info,
        Severity::Warning => Message::Warning,
        Severity::Error => Message::Error,
    };
    v1::Event {
        id: event.id,
        time: Some(time(event.at)),
        table: event.table.clone(),
        severity: severity.into(),
        code: event.code.clone(),
        message: event.message.clone(),
        remedy: event.remedy.clone(),
    }
}

pub(crate) fn time(at: Timestamp) -> millrace_proto::Timestamp {
    // The catalog's clock is whole microseconds; before 1970 nothing of ours happened.
    millrace_proto::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn small(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use catalog::copies::CopyProgress;
    use catalog::spec::{MirrorSpec, Mode, RULES, Settings, TableSpec};
    use catalog::state::Desired;
    use catalog::state::Verdict;
    use catalog::streams::Stream;
    use millrace_terms::{Lsn, TableName};

    use super::*;

    pub(in crate::convert) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stored_stream() -> Stream {
        Stream {
            hold: None,
            mirror: "shop".into(),
            n: 0,
            slot: "millrace_a1b2c3_shop".into(),
            publication: "millrace_a1b2c3_shop".into(),
            system_id: Some("1".into()),
            timeline: Some(1),
            position: Some(Lsn(0x100)),
            position_at: Some(at(90)),
            lease: 1,
            lease_until: None,
            base: 0,
            written_below: Lsn(0x200),
            verdict: Verdict::Healthy,
            reason: None,
            verdict_since: at(80),
            last_commit_at: Some(at(95)),
            source_wal: Some(Lsn(0x180)),
            source_wal_at: Some(at(99)),
            attended_at: Some(at(99)),
            caught_up_at: None,
            moved_at: Some(at(95)),
            rows_per_s: 0.0,
            slot_seen: None,
        }
    }

    fn stored_table() -> Table {
        Table {
            id: 1,
            mirror: "shop".into(),
            stream: 0,
            source: TableName::new("public", "orders"),
            oid: 7,
            destination: "orders".into(),
            made: true,
            state: TableState::Copying,
            state_since: at(80),
            error: None,
            copy_no: 1,
            copying: true,
            copy_cancelled: false,
            epoch: Some(Lsn(1)),
            read_end: None,
            copy_started_at: Some(at(80)),
            copy_finished_at: None,
            floor: 0,
            rows_estimated: 1_000,
            bytes_total: 64,
            inserts: 3,
            updates: 2,
            deletes: 1,
            truncates: 0,
            bytes_streamed: 0,
            blocked_by: None,
            copy: CopyProgress { partitions: 4, done: 2, rows: 500, bytes: 32, ..CopyProgress::default() },
            copy_rows_per_s: None,
            edit: None,
            nulled: [("at".to_owned(), 3)].into(),
        }
    }

    pub(in crate::convert) fn stored_mirror() -> Mirror {
        let table = TableSpec {
            destination: "orders".into(),
            exclude: vec!["note".into()],
            ..TableSpec::new("public.orders")
        };
        Mirror {
            spec: MirrorSpec {
                name: "shop".into(),
                source: "pg".into(),
                destination: "ch".into(),
                mode: Mode::default(),
                tables: vec![table],
                settings: Settings::default(),
            },
            rules: RULES,
            desired: Desired::Running,
            state: MirrorState::Snapshot,
            workflow_started: true,
            prepared_at: Some(at(70)),
            completed_at: None,
            error: None,
            request_id: String::new(),
            created_at: at(60),
            updated_at: at(61),
            etag: "e".into(),
            streams: vec![stored_stream()],
            tables: vec![stored_table()],
        }
    }

    #[test]
    fn a_mirror_shows_what_was_asked_for_and_how_far_it_is() {
        let json = serde_json::to_value(mirror(&stored_mirror(), at(100))).unwrap();
        assert_eq!(json["state"], "SNAPSHOT");
        assert_eq!(json["workflow_id"], "mirror/shop");
        let table = &json["tables"][0];
        assert_eq!(table["source"], "public.orders");
        assert_eq!(table["state"], "COPYING");
        assert_eq!(table["exclude"][0], "note");
        assert_eq!((&table["rows_copied"], &table["deletes"]), (&"500".into(), &"1".into()));
        assert_eq!(table["nulled"]["at"], "3");
        assert_eq!((&table["partitions_done"], &table["partitions_total"]), (&2.into(), &4.into()));
        let stream = &json["streams"][0];
        assert_eq!((&stream["position"], &stream["lag_bytes"]), (&"0/100".into(), &"128".into()));
        assert_eq!((&stream["lag_seconds"], &stream["verdict"]), (&5.0.into(), &"HEALTHY".into()));
        assert!(json.get("error").is_none(), "{json}");
    }

    #[test]
    fn a_failure_shows_its_code_and_remedy() {
        let error = millrace_terms::Error::new(millrace_terms::Code::SlotLost, "the slot is gone");
        let failed =
            Mirror { error: Some(Failure::new(&error)), state: MirrorState::Failed, ..stored_mirror() };
        let json = serde_json::to_value(mirror(&failed, at(100))).unwrap();
        assert_eq!(json["error"]["code"], "SLOT_LOST");
        assert_eq!(json["error"]["remedy"], error.remedy());
    }
}
