//! Mirrors as they are asked for: the API's form to the catalog's, and back.

use catalog::spec::{
    ColumnSpec, Engine, FlushSettings, MirrorSpec, Mode, OnColumnDropped, OnPartitionRemoved, OnRewrite,
    OnSlotLost, OnUnrepresentable, OwnColumns, Settings, SnapshotSettings, TableSpec,
};
use millrace_catalog as catalog;
use millrace_proto::v1;

use crate::fault::{Answer, Fault, Violations, invalid};
use crate::validate;

/// Reads a mirror with the defaults filled in; patterns and destinations' names are left as they
/// are. Everything that is wrong is told at once.
pub(crate) fn to_spec(mirror: Option<&v1::Mirror>) -> Answer<MirrorSpec> {
    let mirror = mirror.ok_or_else(|| invalid("mirror", "must be set"))?;
    let spec = MirrorSpec {
        name: mirror.name.clone(),
        source: mirror.source.clone(),
        destination: mirror.destination.clone(),
        mode: mode_spec(mirror.mode)?,
        tables: mirror.tables.iter().map(table_spec).collect::<Answer<_>>()?,
        settings: settings_spec(mirror.settings.as_ref())?,
    };
    let mut violations = Violations::default();
    validate::mirror(&spec, "mirror", &mut violations);
    violations.into_result()?;
    Ok(spec)
}

fn unknown(field: &'static str) -> impl FnOnce(prost::UnknownEnumValue) -> Fault {
    move |value| invalid(field, format!("{value} is not known to this server"))
}

fn mode_spec(mode: i32) -> Answer<Mode> {
    use v1::mirror::Mode as Message;
    Ok(match Message::try_from(mode).map_err(unknown("mirror.mode"))? {
        Message::Unspecified | Message::SnapshotAndStream => Mode::SnapshotAndStream,
        Message::SnapshotOnly => Mode::Snapshot,
        Message::StreamOnly => Mode::Stream,
    })
}

fn table_spec(table: &v1::Table) -> Answer<TableSpec> {
    use v1::table::Engine as Message;
    let engine = match Message::try_from(table.engine).map_err(unknown("mirror.tables[].engine"))? {
        Message::Unspecified | Message::ReplacingMergeTree => Engine::ReplacingMergeTree,
        Message::MergeTree => Engine::MergeTree,
    };
    let column = |(name, column): (&String, &v1::Column)| {
        (name.clone(), ColumnSpec { name: column.name.clone(), kind: column.r#type.clone() })
    };
    Ok(TableSpec {
        source: table.source.clone(),
        destination: table.destination.clone(),
        exclude: table.exclude.clone(),
        columns: table.columns.iter().map(column).collect(),
        order_by: table.order_by.clone(),
        partition_by: table.partition_by.clone(),
        engine,
        append_only: table.append_only,
        source_column: table.source_column,
        with_children: table.with_children,
    })
}

fn settings_spec(settings: Option<&v1::Settings>) -> Answer<Settings> {
    use v1::settings as message;
    let default = Settings::default();
    let Some(settings) = settings else {
        return Ok(default);
    };
    let unrepresentable = message::OnUnrepresentable::try_from(settings.on_unrepresentable);
    let slot_lost = message::OnSlotLost::try_from(settings.on_slot_lost);
    let column_dropped = message::OnColumnDropped::try_from(settings.on_column_dropped);
    let rewrite = message::OnRewrite::try_from(settings.on_rewrite);
    let partition_removed = message::OnPartitionRemoved::try_from(settings.on_partition_removed);
    Ok(Settings {
        publication: settings.publication.clone(),
        slot: settings.slot.clone(),
        snapshot: snapshot_spec(settings.snapshot.as_ref(), default.snapshot),
        flush: flush_spec(settings.flush.as_ref(), default.flush)?,
        streams: settings.streams.unwrap_or(default.streams),
        on_unrepresentable: match unrepresentable.map_err(unknown("mirror.settings.on_unrepresentable"))? {
            message::OnUnrepresentable::Unspecified => default.on_unrepresentable,
            message::OnUnrepresentable::FailTable => OnUnrepresentable::Error,
            message::OnUnrepresentable::WriteNull => OnUnrepresentable::Null,
            message::OnUnrepresentable::WriteString => OnUnrepresentable::String,
        },
        on_slot_lost: match slot_lost.map_err(unknown("mirror.settings.on_slot_lost"))? {
            message::OnSlotLost::Unspecified => default.on_slot_lost,
            message::OnSlotLost::FailMirror => OnSlotLost::Error,
            message::OnSlotLost::ResyncMirror => OnSlotLost::Resync,
        },
        on_partition_removed: match partition_removed
            .map_err(unknown("mirror.settings.on_partition_removed"))?
        {
            message::OnPartitionRemoved::Unspecified => default.on_partition_removed,
            message::OnPartitionRemoved::ResyncTable => OnPartitionRemoved::Resync,
            message::OnPartitionRemoved::KeepRows => OnPartitionRemoved::Keep,
        },
        on_column_dropped: match column_dropped.map_err(unknown("mirror.settings.on_column_dropped"))? {
            message::OnColumnDropped::Unspecified => default.on_column_dropped,
            message::OnColumnDropped::KeepColumn => OnColumnDropped::Keep,
            message::OnColumnDropped::DropColumn => OnColumnDropped::Drop,
        },
        on_rewrite: match rewrite.map_err(unknown("mirror.settings.on_rewrite"))? {
            message::OnRewrite::Unspecified => default.on_rewrite,
            message::OnRewrite::CopyAgain => OnRewrite::Resync,
            message::OnRewrite::StopTable => OnRewrite::Error,
            message::OnRewrite::LeaveRows => OnRewrite::Keep,
        },
        columns: own_columns_spec(settings.columns.as_ref(), default.columns),
        audit_columns: settings.audit_columns,
    })
}

fn snapshot_spec(snapshot: Option<&v1::SnapshotSettings>, default: SnapshotSettings) -> SnapshotSettings {
    let Some(snapshot) = snapshot else {
        return default;
    };
    SnapshotSettings {
        parallel_tables: snapshot.parallel_tables.unwrap_or(default.parallel_tables),
        parallel_partitions: snapshot.parallel_partitions.unwrap_or(default.parallel_partitions),
        partition_bytes: snapshot.partition_bytes.unwrap_or(default.partition_bytes),
    }
}

fn flush_spec(flush: Option<&v1::FlushSettings>, default: FlushSettings) -> Answer<FlushSettings> {
    let Some(flush) = flush else {
        return Ok(default);
    };
    let min_interval_ms = match &flush.min_interval {
        None => default.min_interval_ms,
        Some(interval) => milliseconds(interval)
            .ok_or_else(|| invalid("mirror.settings.flush.min_interval", "must be 0 to 60 s"))?,
    };
    Ok(FlushSettings {
        min_interval_ms,
        max_rows: flush.max_rows.unwrap_or(default.max_rows),
        max_bytes: flush.max_bytes.unwrap_or(default.max_bytes),
        max_in_flight: flush.max_in_flight.unwrap_or(default.max_in_flight),
    })
}

/// The duration in milliseconds; parts of one are cut off. `None` if it is negative.
fn milliseconds(duration: &pbjson_types::Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

fn own_columns_spec(columns: Option<&v1::OwnColumns>, default: OwnColumns) -> OwnColumns {
    let Some(columns) = columns else {
        return default;
    };
    let or = |name: &str, default: String| if name.is_empty() { default } else { name.to_owned() };
    OwnColumns {
        version: or(&columns.version, default.version),
        is_deleted: or(&columns.is_deleted, default.is_deleted),
        synced_at: or(&columns.synced_at, default.synced_at),
        source: or(&columns.source, default.source),
    }
}

/// The API's form of what was asked for. State and progress are added by the caller.
pub(crate) fn from_spec(spec: &MirrorSpec) -> v1::Mirror {
    let mode = match spec.mode {
        Mode::SnapshotAndStream => v1::mirror::Mode::SnapshotAndStream,
        Mode::Snapshot => v1::mirror::Mode::SnapshotOnly,
        Mode::Stream => v1::mirror::Mode::StreamOnly,
    };
    v1::Mirror {
        name: spec.name.clone(),
        source: spec.source.clone(),
        destination: spec.destination.clone(),
        mode: mode.into(),
        tables: spec.tables.iter().map(table_message).collect(),
        settings: Some(settings_message(&spec.settings)),
        ..Default::default()
    }
}

/// The API's form of one table as it was asked for.
pub(crate) fn table_message(table: &TableSpec) -> v1::Table {
    let engine = match table.engine {
        Engine::ReplacingMergeTree => v1::table::Engine::ReplacingMergeTree,
        Engine::MergeTree => v1::table::Engine::MergeTree,
    };
    let column = |(name, column): (&String, &ColumnSpec)| {
        (name.clone(), v1::Column { name: column.name.clone(), r#type: column.kind.clone() })
    };
    v1::Table {
        source: table.source.clone(),
        destination: table.destination.clone(),
        exclude: table.exclude.clone(),
        columns: table.columns.iter().map(column).collect(),
        order_by: table.order_by.clone(),
        partition_by: table.partition_by.clone(),
        engine: engine.into(),
        append_only: table.append_only,
        source_column: table.source_column,
        with_children: table.with_children,
        ..Default::default()
    }
}

fn settings_message(settings: &Settings) -> v1::Settings {
    use v1::settings as message;
    let on_unrepresentable = match settings.on_unrepresentable {
        OnUnrepresentable::Error => message::OnUnrepresentable::FailTable,
        OnUnrepresentable::Null => message::OnUnrepresentable::WriteNull,
        OnUnrepresentable::String => message::OnUnrepresentable::WriteString,
    };
    let on_slot_lost = match settings.on_slot_lost {
        OnSlotLost::Error => message::OnSlotLost::FailMirror,
        OnSlotLost::Resync => message::OnSlotLost::ResyncMirror,
    };
    let on_partition_removed = match settings.on_partition_removed {
        OnPartitionRemoved::Resync => message::OnPartitionRemoved::ResyncTable,
        OnPartitionRemoved::Keep => message::OnPartitionRemoved::KeepRows,
    };
    let on_column_dropped = match settings.on_column_dropped {
        OnColumnDropped::Keep => message::OnColumnDropped::KeepColumn,
        OnColumnDropped::Drop => message::OnColumnDropped::DropColumn,
    };
    let on_rewrite = match settings.on_rewrite {
        OnRewrite::Resync => message::OnRewrite::CopyAgain,
        OnRewrite::Error => message::OnRewrite::StopTable,
        OnRewrite::Keep => message::OnRewrite::LeaveRows,
    };
    let (snapshot, flush, own) = (&settings.snapshot, &settings.flush, &settings.columns);
    v1::Settings {
        publication: settings.publication.clone(),
        slot: settings.slot.clone(),
        snapshot: Some(v1::SnapshotSettings {
            parallel_tables: Some(snapshot.parallel_tables),
            parallel_partitions: Some(snapshot.parallel_partitions),
            partition_bytes: Some(snapshot.partition_bytes),
        }),
        flush: Some(v1::FlushSettings {
            min_interval: Some(std::time::Duration::from_millis(flush.min_interval_ms).into()),
            max_rows: Some(flush.max_rows),
            max_bytes: Some(flush.max_bytes),
            max_in_flight: Some(flush.max_in_flight),
        }),
        streams: Some(settings.streams),
        on_unrepresentable: on_unrepresentable.into(),
        on_slot_lost: on_slot_lost.into(),
        on_partition_removed: on_partition_removed.into(),
        on_column_dropped: on_column_dropped.into(),
        on_rewrite: on_rewrite.into(),
        columns: Some(v1::OwnColumns {
            version: own.version.clone(),
            is_deleted: own.is_deleted.clone(),
            synced_at: own.synced_at.clone(),
            source: own.source.clone(),
        }),
        audit_columns: settings.audit_columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortest() -> v1::Mirror {
        v1::Mirror {
            name: "shop".into(),
            source: "pg".into(),
            destination: "ch".into(),
            tables: vec![v1::Table { source: "public.*".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn the_shortest_request_gets_every_default() {
        let spec = to_spec(Some(&shortest())).unwrap();
        assert_eq!(spec.settings, Settings::default());
        assert_eq!(spec.tables, [TableSpec::new("public.*")]);
        assert_eq!(spec.mode, Mode::SnapshotAndStream);
    }

    #[test]
    fn what_goes_out_comes_back() {
        let mut spec = to_spec(Some(&shortest())).unwrap();
        spec.mode = Mode::Stream;
        spec.tables[0]
            .columns
            .insert("id".into(), ColumnSpec { name: "order_id".into(), kind: "Int64".into() });
        spec.tables[0].engine = Engine::MergeTree;
        spec.tables[0].append_only = true;
        spec.tables[0].source_column = true;
        spec.tables.push(TableSpec { with_children: true, ..TableSpec::new("public.parent") });
        spec.settings.columns.source = "_origin".into();
        spec.settings.flush.min_interval_ms = 1_500;
        spec.settings.on_unrepresentable = OnUnrepresentable::String;
        spec.settings.on_slot_lost = OnSlotLost::Resync;
        spec.settings.on_partition_removed = OnPartitionRemoved::Keep;
        let message = from_spec(&spec);
        assert_eq!(to_spec(Some(&message)), Ok(spec));
        let json = serde_json::to_value(message).unwrap();
        assert_eq!(json["settings"]["flush"]["min_interval"], "1.500s");
        assert_eq!(json["settings"]["on_slot_lost"], "RESYNC_MIRROR");
    }

    #[test]
    fn zero_is_a_value_where_the_default_is_another() {
        let mut mirror = shortest();
        mirror.settings = Some(v1::Settings {
            flush: Some(v1::FlushSettings {
                min_interval: Some(pbjson_types::Duration { seconds: 0, nanos: 0 }),
                ..Default::default()
            }),
            streams: Some(0),
            ..Default::default()
        });
        let fault = to_spec(Some(&mirror)).unwrap_err();
        assert_eq!(fault.field_names()[0], "mirror.settings.streams");
        assert_eq!(fault.field_names().len(), 1, "an interval of 0 is allowed: {fault:?}");
    }

    #[test]
    fn unknown_enum_values_are_refused_by_their_field() {
        let mirror = v1::Mirror { mode: 77, ..shortest() };
        assert_eq!(to_spec(Some(&mirror)).unwrap_err().field_names()[0], "mirror.mode");
    }
}
