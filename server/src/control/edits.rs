//! Changes of a mirror that runs, and the life of its tables: update, pause, resume, cancel, drop.
//!
//! What is wanted is written into the catalog, in one transaction; then the mirror's workflow has it
//! done. A server that dies in between leaves the rest to housekeeping.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use millrace_catalog::edits::{Fence, FormerTable, MirrorEdit};
use millrace_catalog::events::NewEvent;
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::spec::{MirrorSpec, PeerSpec, TableSpec};
use millrace_catalog::spread;
use millrace_catalog::state::{MirrorState, TableState};
use millrace_catalog::tables::Table;
use millrace_proto::v1;
use millrace_terms::{Code, Error, EventCode, Result, TableName};
use millrace_workflows::payload::Resync;
use tokio::time::Instant;

use super::mirrors::{require_etag, require_resyncable};
use super::{Control, found};
use crate::convert::{self, view};
use crate::fault::{Answer, Fault, Violations, invalid};
use crate::orchestra::Change;
use crate::text::{check_request_id, name_of};
use crate::{edit, report, tables};

/// How often a change is decided anew when another one came in between.
const ATTEMPTS: u32 = 5;
/// How long the stream's attempt may take to notice that tables were changed, before the caller gets
/// the answer: one that lives notices within a second, and its successor begins a second later.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the catalog is asked meanwhile.
const NOTICE_POLL: Duration = Duration::from_millis(100);

/// How a mirror is to be changed, beside what it is to be.
#[derive(Debug, Clone, Default)]
pub(super) struct EditOptions {
    /// The mirror must still have it; empty for any.
    pub(super) etag: String,
    /// Whether the destination tables of removed tables are dropped.
    pub(super) drop_destination: bool,
}

impl Control {
    /// Changes a mirror while it runs.
    pub(crate) async fn update_mirror(
        self: Arc<Self>,
        request: v1::UpdateMirrorRequest,
    ) -> Answer<v1::Mirror> {
        let request_id = checked(&request.request_id)?;
        let asked = request.mirror.as_ref().ok_or_else(|| invalid("mirror", "must be set"))?;
        let name = name_of(&asked.name)?;
        let options = EditOptions { etag: asked.etag.clone(), drop_destination: request.drop_destination };
        let decide = async |stored: &Mirror| {
            let spec = edit::masked(&stored.spec, asked, request.update_mask.as_ref())?;
            let listing = match tables::pattern_schemas(&spec).is_empty() {
                true => Vec::new(),
                false => self.listing(&self.catalog.get_peer(&stored.spec.source).await?.spec).await?,
            };
            tables::resolve_again(&spec, &listing, &stored.spec.tables)
        };
        for attempt in 1.. {
            let stored = self.editable(name, &options).await?;
            let after = decide(&stored).await?;
            let prepared = self.prepare_edit(&stored, after, None, &options).await?;
            if request.validate_only {
                let spec = prepared.map_or(stored.spec, |edit| edit.after);
                return Ok(convert::mirror::from_spec(&spec));
            }
            match self.carry_edit(&stored, prepared, request_id).await {
                Err(fault) if may_repeat(&fault, attempt, &options) => {}
                answer => return answer,
            }
        }
        Err(Error::new(Code::EditConflict, format!("mirror {name} changes all the time")).into())
    }

    /// Removes a table.
    pub(crate) async fn drop_table(self: Arc<Self>, request: v1::DropTableRequest) -> Answer<v1::Mirror> {
        let request_id = checked(&request.request_id)?;
        let (name, source) = (name_of(&request.name)?, source_of(&request.table)?);
        let options = EditOptions { etag: request.etag, drop_destination: request.drop_destination };
        for attempt in 1.. {
            let stored = self.editable(name, &options).await?;
            match self.catalog.find_table(name, &source).await {
                Err(error) if error.code() == Code::TableNotFound && request.allow_missing => {
                    return self.carry_edit(&stored, None, request_id).await;
                }
                found => found?,
            };
            let mut after = stored.spec.clone();
            after.tables.retain(|table| table.source.parse() != Ok(source.clone()));
            if after.tables.is_empty() {
                return Err(last_table(&stored, &source).into());
            }
            let prepared = self.prepare_edit(&stored, after, None, &options).await?;
            match self.carry_edit(&stored, prepared, request_id).await {
                Err(fault) if may_repeat(&fault, attempt, &options) => {}
                answer => return answer,
            }
        }
        Err(Error::new(Code::EditConflict, format!("mirror {name} changes all the time")).into())
    }

    /// Stops writing to a table.
    pub(crate) async fn pause_table(self: Arc<Self>, request: v1::PauseTableRequest) -> Answer<v1::Mirror> {
        let request_id = checked(&request.request_id)?;
        let (mirror, table) = self.table_of(&request.name, &request.table).await?;
        require_etag(&mirror, &request.etag)?;
        require_editable(&mirror)?;
        let fences = self.catalog.pause_table(&table).await?;
        if table.state != TableState::Paused {
            self.tell(&table, EventCode::TablePaused, &format!("{} is paused", table.source)).await?;
        }
        self.settle(&mirror, &fences, request_id).await
    }

    /// Cancels the copy of a table, which goes on streaming.
    pub(crate) async fn cancel_table_copy(
        self: Arc<Self>,
        request: v1::CancelTableCopyRequest,
    ) -> Answer<v1::Mirror> {
        let request_id = checked(&request.request_id)?;
        let (mirror, table) = self.table_of(&request.name, &request.table).await?;
        require_etag(&mirror, &request.etag)?;
        require_editable(&mirror)?;
        if self.catalog.cancel_copy(&table).await? {
            let text = format!("the copy of {} is cancelled; its changes are streamed", table.source);
            self.tell(&table, EventCode::CopyCancelled, &text).await?;
        }
        self.settle(&mirror, &[], request_id).await
    }

    /// Takes a paused table up again, or a copy that was cancelled.
    pub(crate) async fn resume_table(self: Arc<Self>, request: v1::ResumeTableRequest) -> Answer<v1::Mirror> {
        let request_id = checked(&request.request_id)?;
        let (mirror, table) = self.table_of(&request.name, &request.table).await?;
        require_etag(&mirror, &request.etag)?;
        require_resyncable(&mirror)?;
        match table.state {
            state if state.wants_copy() && table.copy_cancelled => {
                if self.catalog.continue_copy(&table).await? {
                    let text = format!("the copy of {} goes on", table.source);
                    self.tell(&table, EventCode::CopyContinued, &text).await?;
                }
                self.settle(&mirror, &[], request_id).await
            }
            TableState::Paused => {
                self.change(mirror.name(), Change::Resync(Resync::Table(table.id)), &request.request_id).await
            }
            TableState::Error | TableState::Dropped => Err(not_resumable(&table).into()),
            // It was resumed already, or never paused.
            _ => Ok(view::mirror(&mirror, Timestamp::now())),
        }
    }

    async fn tell(&self, table: &Table, code: EventCode, text: &str) -> Result<()> {
        let event = NewEvent::info(&table.mirror, code, text).on_table(&table.source.to_string());
        self.catalog.add_event(&event).await
    }

    async fn table_of(&self, name: &str, table: &str) -> Answer<(Mirror, Table)> {
        let (name, source) = (name_of(name)?, source_of(table)?);
        let mirror = self.catalog.get_mirror(name).await?;
        let table = self.catalog.find_table(name, &source).await?;
        Ok((mirror, table))
    }

    async fn editable(&self, name: &str, options: &EditOptions) -> Answer<Mirror> {
        let stored = self.catalog.get_mirror(name).await?;
        require_etag(&stored, &options.etag)?;
        require_editable(&stored)?;
        Ok(stored)
    }

    /// Looks at both peers (the stored ones, if none are given) and at every table that is to join;
    /// tables and destinations are named.
    /// Gives the change as the catalog takes it; none if nothing is to change. Nothing is stored.
    pub(super) async fn prepare_edit(
        &self,
        stored: &Mirror,
        after: MirrorSpec,
        peers: Option<(PeerSpec, PeerSpec)>,
        options: &EditOptions,
    ) -> Answer<Option<MirrorEdit>> {
        let decided = edit::decide(&stored.spec, &after)?;
        if decided.changes.is_empty() {
            return Ok(None);
        }
        let leaves = |table: &&Table| decided.removed.contains(&table.source.to_string());
        let added = match decided.added.is_empty() {
            true => Vec::new(),
            false => {
                let joining = MirrorSpec { tables: decided.added, ..after.clone() };
                let (source, destination) = match peers {
                    Some(peers) => peers,
                    None => self.peers_of(&joining).await?,
                };
                self.catalog.check_destinations(&joining).await?;
                let former = self.former(&joining).await?;
                let known = former.iter().map(|table| table.destination.clone()).collect();
                let found = self.check_mirror(&joining, &source, &destination, Some(known)).await?;
                report::require_success(&found)?;
                let mut added = report::new_tables(&joining, &found)?;
                let bound = former.into_iter().map(|table| (table.source, table.stream)).collect();
                let stay = stored.tables.iter().filter(|table| !leaves(table));
                spread::assign(&mut added, spread::carried(after.settings.streams, stay), &bound);
                added
            }
        };
        Ok(Some(MirrorEdit {
            before: stored.spec.clone(),
            after,
            etag: options.etag.clone(),
            added,
            removed: stored.tables.iter().filter(leaves).map(|table| table.id).collect(),
            drop_destination: options.drop_destination,
            restart: decided.restart,
        }))
    }

    /// Those of these tables that the mirror wrote before, when they were its tables, into the same
    /// destinations.
    async fn former(&self, joining: &MirrorSpec) -> Result<Vec<FormerTable>> {
        let mut former = self.catalog.list_former_tables(&joining.name).await?;
        former.retain(|former| {
            let is_it = |table: &TableSpec| {
                table.destination == former.destination && table.source.parse().as_ref() == Ok(&former.source)
            };
            joining.tables.iter().any(is_it)
        });
        Ok(former)
    }

    /// Stores a change and has it done. Without one, has done what an earlier one left.
    pub(super) async fn carry_edit(
        &self,
        stored: &Mirror,
        edit: Option<MirrorEdit>,
        request_id: &str,
    ) -> Answer<v1::Mirror> {
        let fences = match edit {
            Some(edit) => self.catalog.edit_mirror(&edit).await?,
            None if self.catalog.list_edits(stored.name()).await?.is_empty() => {
                return Ok(view::mirror(stored, Timestamp::now()));
            }
            None => Vec::new(),
        };
        self.settle(stored, &fences, request_id).await
    }

    /// Has the mirror's workflow do what the catalog says, and waits until the stream's attempts from
    /// before it are over.
    async fn settle(&self, mirror: &Mirror, fences: &[Fence], request_id: &str) -> Answer<v1::Mirror> {
        let name = mirror.name();
        let done = self.orchestra.change(name, Change::Edit, request_id).await;
        done.map_err(|error| error.with("mirror", name))?;
        let streams =
            matches!(mirror.state, MirrorState::Running | MirrorState::Snapshot | MirrorState::Degraded);
        for fence in fences.iter().filter(|_| streams) {
            self.noticed(name, fence).await?;
        }
        let mirror = self.catalog.get_mirror(name).await?;
        Ok(view::mirror(&mirror, Timestamp::now()))
    }

    /// Waits until an attempt has begun that knows of the change, or none runs.
    async fn noticed(&self, mirror: &str, fence: &Fence) -> Result<()> {
        let deadline = Instant::now() + NOTICE_TIMEOUT;
        while Instant::now() < deadline {
            let stream = self.catalog.get_stream(mirror, fence.stream).await?;
            if stream.lease > fence.lease || stream.lease_until.is_none() {
                return Ok(());
            }
            // A worker takes the lease, and nobody tells the server of it.
            tokio::time::sleep(NOTICE_POLL).await;
        }
        // The lease is lost already: the old attempt stops by itself, at the latest when its time is over.
        Ok(())
    }

    /// The tables of a source.
    pub(super) async fn listing(&self, source: &PeerSpec) -> Answer<Vec<TableName>> {
        let listed = self.list_tables(source).await?;
        Ok(report::tables(&listed).into_iter().map(|(name, _)| name).collect())
    }

    /// The stored mirror of this name, as it is now.
    pub(super) async fn stored(&self, name: &str) -> Answer<Option<Mirror>> {
        Ok(found(self.catalog.get_mirror(name).await, Code::MirrorNotFound)?)
    }
}

fn checked(request_id: &str) -> Answer<&str> {
    let mut violations = Violations::default();
    check_request_id(request_id, &mut violations);
    violations.into_result()?;
    Ok(request_id)
}

/// The table that a request names.
pub(super) fn source_of(table: &str) -> Answer<TableName> {
    table
        .parse()
        .map_err(|_| invalid("table", format!("{table:?} is no name of a table: it is SCHEMA.TABLE")))
}

/// Whether a change is decided anew: another one came in between, and the caller does not mind which.
fn may_repeat(fault: &Fault, attempt: u32, options: &EditOptions) -> bool {
    fault.error.code() == Code::EditConflict && options.etag.is_empty() && attempt < ATTEMPTS
}

fn require_editable(mirror: &Mirror) -> Result<()> {
    if !matches!(mirror.state, MirrorState::Dropping | MirrorState::Completed) {
        return Ok(());
    }
    let (name, state) = (mirror.name(), mirror.state);
    let message = format!("mirror {name} is {state}: nothing of it can be changed any more");
    Err(Error::new(Code::MirrorState, message).with("mirror", name).with("state", state.to_string()))
}

fn not_resumable(table: &Table) -> Error {
    let message = format!("table {} is {}: only a paused table is resumed", table.source, table.state);
    Error::new(Code::MirrorState, message)
        .with("mirror", &table.mirror)
        .with("table", table.source.to_string())
        .with("state", table.state.to_string())
        .with_remedy("Mend what its error names, then resync the table.")
}

fn last_table(mirror: &Mirror, table: &TableName) -> Error {
    let name = mirror.name();
    Error::new(Code::MirrorState, format!("table {table} is the last one of mirror {name}"))
        .with("mirror", name)
        .with("table", table.to_string())
        .with_remedy("Delete the mirror, or pause the table.")
}
