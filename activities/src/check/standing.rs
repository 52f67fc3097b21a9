//! A mirror that is stored, as it is now: its peers, what it made on the source, its tables on both sides.
//! I/O.

use millrace_catalog::drafts::CheckReport;
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::streams::Stream;
use millrace_replication::clickhouse::{Clickhouse, checks as clickhouse_checks};
use millrace_replication::postgres::check::{self, Purpose};
use millrace_replication::postgres::publication::{self, Told};
use millrace_replication::postgres::{Session, slot};
use millrace_terms::check::{Check, Name, Status, Verdict};
use millrace_terms::{Code, Error, Result};

use super::{destination_config, look_at_shapes, refuse_misfit, source_config, told};
use crate::environment::Environment;

/// Looks at a stored mirror.
///
/// # Errors
/// MIRROR_NOT_FOUND, and if the catalog cannot be asked: what is wrong with a peer is in the report.
pub(super) async fn look(environment: &Environment, name: &str, application: &str) -> Result<CheckReport> {
    let catalog = &environment.catalog;
    let mirror = catalog.get_mirror(name).await?;
    let source = source_config(&environment.addresses, &catalog.get_peer(&mirror.spec.source).await?.spec)?;
    let destination =
        destination_config(&environment.addresses, &catalog.get_peer(&mirror.spec.destination).await?.spec)?;
    let ((mut checks, session), destination_checks) =
        tokio::join!(check::source(&source, application, Purpose::Upkeep), clickhouse_checks(&destination));
    if let Some(session) = session {
        match look_at_source(&mirror, &session).await {
            Ok(found) => checks.extend(found),
            Err(error) => checks.push(Check::fail(Name::SourceSettings, &error)),
        }
    }
    let reachable = destination_checks.iter().all(|check| check.status != Status::Fail);
    checks.extend(destination_checks);
    if reachable && mirror.prepared_at.is_some() {
        match Clickhouse::connect(&destination).await {
            Ok(clickhouse) => checks.extend(look_at_destination(environment, &mirror, &clickhouse).await?),
            Err(error) => checks.push(Check::fail(Name::DestinationConnection, &error)),
        }
    }
    Ok(CheckReport { checks, ..CheckReport::default() })
}

async fn look_at_source(mirror: &Mirror, session: &Session) -> Result<Vec<Check>> {
    let (mut checks, _) = look_at_shapes(&mirror.spec, session).await?;
    // Before it is prepared nothing of it is there, nor when it is over.
    let streams = mirror.streams.iter().filter(|stream| stream.position.is_some());
    for stream in streams.filter(|_| mirror.completed_at.is_none()) {
        let tables = mirror.tables.iter().filter(|table| table.stream == stream.n && table.edit.is_none());
        let tables: Vec<Told> = tables.map(|table| told(&mirror.spec, &table.source)).collect();
        let held = publication::verify(session, &stream.publication, &tables).await;
        let message = format!("publication {} holds every table", stream.publication);
        checks.push(Check::of(Name::Publication, &held, message));
        checks.push(Check::new(Name::Slot, look_at_slot(session, stream).await));
    }
    Ok(checks)
}

async fn look_at_slot(session: &Session, stream: &Stream) -> Verdict {
    let name = &stream.slot;
    let lost = |why: String| Verdict::Fail(Error::new(Code::SlotLost, why).with("slot", name));
    let found = match slot::status(session, name).await {
        Ok(Some(found)) => found,
        Ok(None) => return lost(format!("the source has no replication slot {name}")),
        Err(error) => return Verdict::Fail(error),
    };
    if found.is_lost() {
        let why = found.invalidation.as_deref().unwrap_or(&found.wal_status);
        return lost(format!("the source has invalidated the slot {name} ({why})"));
    }
    let (retained, status) = (found.retained_bytes(), &found.wal_status);
    let message = format!("slot {name} holds {retained} bytes of the source's log ({status})");
    if status != "unreserved" {
        return Verdict::Pass(message);
    }
    let remedy = "Let the mirror catch up at once, or raise max_slot_wal_keep_size: the next checkpoint may remove what the slot needs.";
    Verdict::Warn(Error::new(Code::SlotLost, message).with_remedy(remedy))
}

async fn look_at_destination(
    environment: &Environment,
    mirror: &Mirror,
    clickhouse: &Clickhouse,
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for table in mirror.tables.iter().filter(|table| table.edit.is_none()) {
        let plan = environment.plan(table.id).await?;
        let fits = refuse_misfit(clickhouse, &plan).await;
        let message = format!("{} takes the rows", table.destination);
        checks.push(Check::of(Name::DestinationTable, &fits, message).on(table.source.to_string()));
    }
    Ok(checks)
}
