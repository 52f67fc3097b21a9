//! `millrace mirror create` and `validate`: from arguments to a request.
//!
//! Pure.

use clap::{Args, ValueEnum};
use millrace_proto::v1::{
    CreateMirrorRequest, FlushSettings, Mirror, Settings, SnapshotSettings, Table, mirror, settings,
};
use millrace_terms::{Code, Error};
use pbjson_types::Duration;

use super::WaitArguments;
use crate::client::request_id;

/// Arguments of `millrace mirror create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace mirror create shop --source shop-pg --destination warehouse --table public.orders --table public.customers=clients
  millrace mirror create shop --source shop-pg --destination warehouse --table 'public.*' --wait=snapshot

What has no flag here has a key in the file of `millrace apply`.")]
pub(super) struct CreateArguments {
    #[command(flatten)]
    spec: SpecArguments,
    /// Only check; make nothing
    #[arg(long)]
    pub(super) validate_only: bool,
    /// The same mirror may exist already
    #[arg(long)]
    allow_existing: bool,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}

/// What a mirror is.
#[derive(Debug, Args)]
pub(super) struct SpecArguments {
    /// Name: a letter, then letters, digits and dashes, all lower case
    name: String,
    /// Name of the source peer
    #[arg(long, value_name = "PEER")]
    source: String,
    /// Name of the destination peer
    #[arg(long, value_name = "PEER")]
    destination: String,
    /// A table as SQL writes it, perhaps with its name in ClickHouse; or all of a schema: public.*
    #[arg(long = "table", value_name = "TABLE[=NAME]", required = true)]
    tables: Vec<String>,
    /// What is done [default: snapshot+stream]
    #[arg(long, value_name = "WHAT")]
    mode: Option<Mode>,
    #[command(flatten)]
    live: LiveSettings,
    /// Streams over which the tables are shared out, each with a slot of its own: 1 to 16 [default: 1]
    #[arg(long, value_name = "NUMBER", help_heading = "Settings")]
    streams: Option<u32>,
    /// What happens to a value that ClickHouse cannot hold [default: error]
    #[arg(long, value_name = "WHAT", help_heading = "Settings")]
    on_unrepresentable: Option<OnUnrepresentable>,
    /// What happens when the replication slot is gone [default: error]
    #[arg(long, value_name = "WHAT", help_heading = "Settings")]
    on_slot_lost: Option<OnSlotLost>,
}

/// Settings that may change while a mirror runs.
#[derive(Debug, Args)]
pub(super) struct LiveSettings {
    /// Tables copied at once [default: 4]
    #[arg(long, value_name = "NUMBER", help_heading = "Settings")]
    parallel_tables: Option<u32>,
    /// COPYs at once, all tables together [default: 4]
    #[arg(long, value_name = "NUMBER", help_heading = "Settings")]
    parallel_partitions: Option<u32>,
    /// Bytes of a table copied as one partition [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Settings")]
    partition_bytes: Option<u64>,
    /// Least time between two INSERTs into one table [default: 50ms]
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Settings")]
    flush_interval: Option<Duration>,
    /// Rows of one INSERT at most [default: 100000]
    #[arg(long, value_name = "NUMBER", help_heading = "Settings")]
    flush_rows: Option<u64>,
    /// Bytes of one INSERT at most [default: 32MiB]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Settings")]
    flush_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Copy, then follow
    #[value(name = "snapshot+stream")]
    SnapshotAndStream,
    /// Copy, then end
    Snapshot,
    /// Follow from now on
    Stream,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnUnrepresentable {
    /// The table goes to ERROR
    Error,
    /// NULL is written
    Null,
    /// Columns of such types are made as String
    String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnSlotLost {
    /// The mirror stops with the reason
    Error,
    /// A new slot is made and every table is copied again
    Resync,
}

impl CreateArguments {
    /// The request that the arguments stand for.
    pub(super) fn request(self) -> Result<CreateMirrorRequest, Error> {
        Ok(CreateMirrorRequest {
            mirror: Some(self.spec.mirror()?),
            request_id: request_id(),
            validate_only: self.validate_only,
            allow_existing: self.allow_existing,
        })
    }
}

impl SpecArguments {
    /// The mirror that the arguments stand for.
    pub(super) fn mirror(self) -> Result<Mirror, Error> {
        let tables = self.tables.iter().map(|text| table("--table", text)).collect::<Result<_, _>>()?;
        let settings = self.settings();
        let mode = self.mode.map(|mode| match mode {
            Mode::SnapshotAndStream => mirror::Mode::SnapshotAndStream,
            Mode::Snapshot => mirror::Mode::SnapshotOnly,
            Mode::Stream => mirror::Mode::StreamOnly,
        });
        Ok(Mirror {
            name: self.name,
            source: self.source,
            destination: self.destination,
            tables,
            settings: Some(settings),
            mode: mode.unwrap_or_default().into(),
            ..Mirror::default()
        })
    }

    fn settings(&self) -> Settings {
        let on_unrepresentable = self.on_unrepresentable.map(|what| match what {
            OnUnrepresentable::Error => settings::OnUnrepresentable::FailTable,
            OnUnrepresentable::Null => settings::OnUnrepresentable::WriteNull,
            OnUnrepresentable::String => settings::OnUnrepresentable::WriteString,
        });
        let on_slot_lost = self.on_slot_lost.map(|what| match what {
            OnSlotLost::Error => settings::OnSlotLost::FailMirror,
            OnSlotLost::Resync => settings::OnSlotLost::ResyncMirror,
        });
        Settings {
            streams: self.streams,
            on_unrepresentable: on_unrepresentable.unwrap_or_default().into(),
            on_slot_lost: on_slot_lost.unwrap_or_default().into(),
            ..self.live.fields().0
        }
    }
}

impl LiveSettings {
    /// The settings, and the paths of those that are given.
    pub(super) fn fields(&self) -> (Settings, Vec<String>) {
        let given = [
            ("snapshot.parallel_tables", self.parallel_tables.is_some()),
            ("snapshot.parallel_partitions", self.parallel_partitions.is_some()),
            ("snapshot.partition_bytes", self.partition_bytes.is_some()),
            ("flush.min_interval", self.flush_interval.is_some()),
            ("flush.max_rows", self.flush_rows.is_some()),
            ("flush.max_bytes", self.flush_bytes.is_some()),
        ];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let settings = Settings {
            snapshot: Some(SnapshotSettings {
                parallel_tables: self.parallel_tables,
                parallel_partitions: self.parallel_partitions,
                partition_bytes: self.partition_bytes,
            }),
            flush: Some(FlushSettings {
                min_interval: self.flush_interval,
                max_rows: self.flush_rows,
                max_bytes: self.flush_bytes,
                max_in_flight: None,
            }),
            ..Settings::default()
        };
        (settings, given.map(|(path, _)| format!("settings.{path}")).collect())
    }
}

/// Reads `TABLE[=NAME]` that was given to a flag. An equals sign within double quotes belongs to the table.
pub(super) fn table(flag: &str, text: &str) -> Result<Table, Error> {
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        c == '=' && !is_quoted
    });
    let (source, destination) = match end {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, ""),
    };
    if source.trim().is_empty() || (end.is_some() && destination.is_empty()) {
        let error = Error::new(Code::InvalidArgument, format!("{flag} {text}: a name is missing"));
        return Err(error.with_remedy("Give TABLE or TABLE=NAME, such as public.orders=orders."));
    }
    Ok(Table { source: source.trim().to_owned(), destination: destination.to_owned(), ..Table::default() })
}

/// Reads a number with one of the units, or the smallest unit's number alone.
pub(super) fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" => 1,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    with_unit(text, &units).ok_or_else(|| "a size looks like 64MiB".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("min", 60_000)];
    let ms = with_unit(text, &units).and_then(|ms| i64::try_from(ms).ok());
    let ms = ms.ok_or_else(|| "a time looks like 50ms".to_owned())?;
    // Below a thousand million: it fits.
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
    Ok(Duration { seconds: ms / 1_000, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_split_at_the_equals_sign_outside_quotes() {
        let read = |text: &str| table("--table", text).map(|table| (table.source, table.destination));
        assert_eq!(read("public.orders"), Ok(("public.orders".into(), String::new())));
        assert_eq!(read("public.a=b"), Ok(("public.a".into(), "b".into())));
        assert_eq!(read(r#"public."a=b"=c"#), Ok((r#"public."a=b""#.into(), "c".into())));
        assert!(read("=b").is_err() && read("a=").is_err() && read("").is_err());
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!((size("64MiB"), size("7")), (Ok(64 << 20), Ok(7)));
        assert_eq!(time("1500ms"), Ok(Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(time("2min"), Ok(Duration { seconds: 120, nanos: 0 }));
        for bad in ["", "x", "1 week", "-1s", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(size(bad).is_err() && time(bad).is_err(), "{bad}");
        }
    }
}
