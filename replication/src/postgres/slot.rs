//! The replication slot of a stream. I/O.

use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result, quote_ident};
use postgres_types::PgLsn;

use super::replication::{connect, first_row};
use super::{Session, SourceConfig, dial, from_sql};

/// How long a terminated walsender may take to let go of its slot.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const RELEASE_POLL: Duration = Duration::from_millis(50);
/// The output plugin: the server's own.
const PLUGIN: &str = "pgoutput";
/// Key in an error's metadata: the number of the attempt that holds the slot.
pub const HELD_LEASE: &str = "held_lease";
/// The release from which slots can be synchronised to standbys.
const VERSION_FAILOVER: u32 = 17_00_00;

/// `to_jsonb` because not every release has the column. The limit is in MiB, -1 for none.
const STATUS: &str = "
select coalesce(s.plugin, ''), coalesce(s.database, '') = current_database()::text, s.temporary, s.active_pid,
       s.confirmed_flush_lsn, s.restart_lsn, coalesce(s.wal_status, ''),
       to_jsonb(s) ->> 'invalidation_reason', pg_current_wal_lsn(), s.safe_wal_size,
       (select nullif(l.setting::bigint, -1) * 1048576 from pg_catalog.pg_settings l
         where l.name = 'max_slot_wal_keep_size')
  from pg_catalog.pg_replication_slots s where s.slot_name = $1";

const HOLDER: &str = "
select coalesce(a.application_name, ''), coalesce(a.usename::text, 'unknown'), coalesce(host(a.client_addr), 'local')
  from pg_catalog.pg_stat_activity a where a.pid = $1";

/// What the source says of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// Everything that was committed below has been acknowledged; absent while the slot is created.
    pub confirmed: Option<Lsn>,
    /// From where the log is kept; absent if the slot is lost.
    pub restart: Option<Lsn>,
    /// Where the log ends.
    pub current: Lsn,
    /// Process that streams from it.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Bytes that it may hold (`max_slot_wal_keep_size`); absent without a limit.
    pub limit_bytes: Option<u64>,
    /// Bytes that may still be written before it is lost; absent without a limit, and if it is lost.
    pub safe_bytes: Option<u64>,
    /// Why the server invalidated it (from PostgreSQL 17 on).
    pub invalidation: Option<String>,
    /// Whether plugin and database are those that a stream needs.
    suitable: bool,
}

impl SlotStatus {
    /// Bytes of log that the source keeps for the slot.
    pub fn retained_bytes(&self) -> u64 {
        self.restart.map_or(0, |restart| self.current.bytes_since(restart))
    }

    /// Bytes of log not yet acknowledged.
    pub fn lag_bytes(&self) -> u64 {
        self.confirmed.map_or(0, |confirmed| self.current.bytes_since(confirmed))
    }

    /// Whether changes may be missing from it for good.
    pub fn is_lost(&self) -> bool {
        self.wal_status == "lost" || self.invalidation.is_some()
    }
}

/// A slot that a stream can start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ensured {
    /// Everything committed from here on is delivered whole.
    pub position: Lsn,
    /// Whether it was made now; otherwise it was found.
    pub created: bool,
}

/// What a slot is like; `None` if there is none of the name.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn status(session: &Session, name: &str) -> Result<Option<SlotStatus>> {
    let row = session.query_opt(STATUS, &[&name]).await.map_err(|e| from_sql("reading the slot", &e))?;
    let lsn = |value: Option<PgLsn>| value.map(|lsn| Lsn(lsn.into()));
    let bytes = |value: Option<i64>| value.map(|bytes| bytes.max(0).unsigned_abs());
    Ok(row.map(|row| SlotStatus {
        suitable: row.get::<_, &str>(0) == PLUGIN && row.get::<_, bool>(1) && !row.get::<_, bool>(2),
        active_pid: row.get(3),
        confirmed: lsn(row.get(4)),
        restart: lsn(row.get(5)),
        wal_status: row.get(6),
        invalidation: row.get(7),
        safe_bytes: bytes(row.get(9)),
        limit_bytes: bytes(row.get(10)),
        current: Lsn(row.get::<_, PgLsn>(8).into()),
    }))
}

/// Makes sure that the stream's slot exists. May be repeated; an attempt that died in the middle
/// leaves nothing, because the server drops a slot that was not finished. It waits for every
/// transaction that is running.
///
/// # Errors
/// `SLOT_EXISTS` if the name belongs to something else, `SLOT_LOST` if the slot is there but was
/// invalidated, `SLOT_IN_USE` if it is being made by a stranger, `SOURCE_SLOTS_EXHAUSTED`,
/// `SOURCE_WAL_LEVEL`, and those of [`super::dial`].
pub async fn ensure(config: &SourceConfig, application: &str, name: &str) -> Result<Ensured> {
    let session = dial(config, application).await?;
    if let Some(found) = status(&session, name).await? {
        if !found.suitable {
            return Err(foreign(name));
        }
        if found.is_lost() {
            return Err(lost(name, &found));
        }
        if let Some(position) = found.confirmed {
            return Ok(Ensured { position, created: false });
        }
        // Somebody is at it: an attempt of ours that died and whom the server has not missed yet.
        release(&session, name, application).await?;
    }
    let position = create(config, application, name, session.version().await?).await?;
    Ok(Ensured { position, created: true })
}

/// Verifies that a slot exists that a stream can use, and returns where it stands.
///
/// # Errors
/// `SLOT_LOST` if there is none or it was invalidated, `SLOT_EXISTS` if it is of another kind.
pub async fn verify(session: &Session, name: &str) -> Result<Lsn> {
    let Some(found) = status(session, name).await? else {
        return Err(Error::new(Code::SlotLost, format!("the source has no replication slot {name}"))
            .with("slot", name));
    };
    if !found.suitable {
        return Err(foreign(name));
    }
    match found.confirmed {
        Some(confirmed) if !found.is_lost() => Ok(confirmed),
        _ => Err(lost(name, &found)),
    }
}

/// With EXPORT_SNAPSHOT, and through a replication connection, because only that builds a full
/// snapshot: a slot made by the SQL function may on older minor releases start inside a transaction.
async fn create(config: &SourceConfig, application: &str, name: &str, version: u32) -> Result<Lsn> {
    let name = quote_ident(name);
    let command = if version >= VERSION_FAILOVER {
        format!("CREATE_REPLICATION_SLOT {name} LOGICAL {PLUGIN} (SNAPSHOT 'export', FAILOVER true)")
    } else {
        format!("CREATE_REPLICATION_SLOT {name} LOGICAL {PLUGIN} EXPORT_SNAPSHOT")
    };
    let mut wire = connect(config, application).await?;
    let row = first_row(&mut wire, "creating the replication slot", &command).await?;
    let position = row.get(1).cloned().flatten().unwrap_or_default();
    position.parse().map_err(|_| {
        Error::new(Code::ProtocolViolation, "the answer to CREATE_REPLICATION_SLOT is malformed")
    })
}

/// Drops the slot if it exists, ending the walsender that streams from it if that is ours.
///
/// # Errors
/// `SLOT_IN_USE` naming the session that holds it, and those of [`from_sql`].
pub async fn drop(session: &Session, name: &str, application: &str) -> Result<()> {
    if status(session, name).await?.is_none() {
        return Ok(());
    }
    release(session, name, application).await?;
    let sql = "select pg_catalog.pg_drop_replication_slot($1::text::name)";
    match session.execute(sql, &[&name]).await.map_err(|e| from_sql("dropping the slot", &e)) {
        // Somebody else was faster.
        Err(error) if error.code() == Code::SlotLost => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Ends the walsender that holds the slot, if it is an older attempt of ours by its
/// `application_name`: equal up to the last `/`, and no greater number behind it. Waits until the
/// slot is free.
///
/// # Errors
/// `SLOT_IN_USE` naming process, user and address if it is not ours or does not end; `LEASE_LOST` with
/// [`HELD_LEASE`] if it is a newer attempt of ours.
pub async fn release(session: &Session, name: &str, application: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + RELEASE_TIMEOUT;
    loop {
        let Some(pid) = status(session, name).await?.and_then(|status| status.active_pid) else {
            return Ok(());
        };
        let failed = |error| from_sql("asking who holds the slot", &error);
        // No row: it has gone since.
        if let Some(row) = session.query_opt(HOLDER, &[&pid]).await.map_err(failed)? {
            let holder: String = row.get(0);
            let in_use = || in_use(name, pid, row.get(1), row.get(2));
            match judge(&holder, application) {
                Holder::Older => {}
                Holder::Newer(lease) => {
                    let message = format!("a newer attempt streams from slot {name}");
                    return Err(Error::new(Code::LeaseLost, message).with(HELD_LEASE, lease.to_string()));
                }
                Holder::Stranger => return Err(in_use()),
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(in_use());
            }
            session.execute("select pg_catalog.pg_terminate_backend($1)", &[&pid]).await.map_err(failed)?;
        }
        tokio::time::sleep(RELEASE_POLL).await;
    }
}

fn in_use(slot: &str, pid: i32, user: &str, address: &str) -> Error {
    Error::new(
        Code::SlotInUse,
        format!("slot {slot} is held by process {pid} of user {user} from {address}"),
    )
    .with("slot", slot)
    .with("pid", pid.to_string())
    .with_remedy(format!(
        "Run `SELECT pg_terminate_backend({pid});` on the source if that session should not stream, or give the mirror another slot."
    ))
}

fn foreign(name: &str) -> Error {
    Error::new(
        Code::SlotExists,
        format!("the slot {name} is temporary, of another plugin or of another database"),
    )
    .with("slot", name)
    .with_remedy(format!("Run `SELECT pg_drop_replication_slot('{name}');` if nobody uses it."))
}

fn lost(name: &str, status: &SlotStatus) -> Error {
    let why = status.invalidation.as_deref().unwrap_or(&status.wal_status);
    Error::new(Code::SlotLost, format!("the slot {name} was invalidated by the source ({why})"))
        .with("slot", name)
}

#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Older,
    /// Its number.
    Newer(i64),
    Stranger,
}

fn judge(holder: &str, application: &str) -> Holder {
    let split = |name: &str| match name.rsplit_once('/') {
        Some((stream, lease)) => (stream.to_owned(), lease.parse::<i64>().ok()),
        None => (name.to_owned(), None),
    };
    let (theirs, their_lease) = split(holder);
    let (ours, our_lease) = split(application);
    // The sessions that make or drop a slot bear the mirror's name alone: `m` of stream `m/0`.
    let is_stream_of = |stream: &str, mirror: &str| stream.rsplit_once('/').is_some_and(|(m, _)| m == mirror);
    let same_mirror =
        holder == application || is_stream_of(&theirs, application) || is_stream_of(&ours, holder);
    match their_lease {
        Some(lease) if theirs == ours && their_lease > our_lease => Holder::Newer(lease),
        Some(_) if theirs == ours => Holder::Older,
        _ if same_mirror => Holder::Older,
        _ => Holder::Stranger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_attempts_of_the_same_stream_are_ended() {
        let ours = "millrace/a1b2c3/shop/0/7";
        assert_eq!(judge("millrace/a1b2c3/shop/0/6", ours), Holder::Older);
        assert_eq!(judge("millrace/a1b2c3/shop/0/7", ours), Holder::Older);
        assert_eq!(judge("millrace/a1b2c3/shop/0/8", ours), Holder::Newer(8));
        assert_eq!(judge("millrace/a1b2c3/shop", ours), Holder::Older, "the session that makes slots");
        assert_eq!(judge(ours, "millrace/a1b2c3/shop"), Holder::Older, "a mirror that is dropped");
        for stranger in [
            "",
            "psql",
            "millrace",
            "millrace/a1b2c3/shop-2/0/1",
            "millrace/ffffff/shop/0/6",
            "millrace/a1b2c3/shop/1/6",
        ] {
            assert_eq!(judge(stranger, ours), Holder::Stranger, "{stranger}");
        }
    }

    #[test]
    fn a_lost_slot_is_known_by_either_sign() {
        let mut status = SlotStatus {
            confirmed: Some(Lsn(100)),
            restart: Some(Lsn(50)),
            current: Lsn(300),
            active_pid: None,
            wal_status: "reserved".into(),
            invalidation: None,
            limit_bytes: None,
            safe_bytes: None,
            suitable: true,
        };
        assert_eq!((status.retained_bytes(), status.lag_bytes(), status.is_lost()), (250, 200, false));
        status.invalidation = Some("idle_timeout".into());
        assert!(status.is_lost());
    }
}
