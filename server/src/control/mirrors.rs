//! Mirrors: create, get, list, delete, validate, pause, resume, resync, events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use millrace_catalog::mirrors::{Mirror, MirrorFilter, NewMirror, NewStream, NewTable};
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::spec::{MirrorSpec, PeerSpec, RULES};
use millrace_catalog::spread;
use millrace_catalog::state::{Desired, MirrorState};
use millrace_proto::v1;
use millrace_terms::{Code, Error, TableName};
use millrace_workflows::payload::{DropOptions, DropReport, Resync};
use tokio::time::Instant;

use super::edits::source_of;
use super::{Control, found, whole_page};
use crate::convert::{self, view};
use crate::fault::{Answer, Violations};
use crate::orchestra::{Change, DropWork};
use crate::text::{Page, check_request_id, name_of};
use crate::{deadlines, diff, plan, report, tables};

/// How often the catalog is asked meanwhile whether the mirror is gone.
const DROP_POLL: Duration = Duration::from_millis(200);

/// A mirror that was looked at and found good: nothing about it is open any more.
pub(super) struct Prepared {
    /// Patterns replaced, destinations named.
    pub(super) spec: MirrorSpec,
    tables: Vec<NewTable>,
}

impl Control {
    /// Validates a mirror, stores it and starts it.
    pub(crate) async fn create_mirror(
        self: Arc<Self>,
        request: v1::CreateMirrorRequest,
    ) -> Answer<v1::Mirror> {
        let mut violations = Violations::default();
        check_request_id(&request.request_id, &mut violations);
        violations.into_result()?;
        let asked = convert::mirror::to_spec(request.mirror.as_ref())?;
        let options =
            CreateOptions { allow_existing: request.allow_existing, request_id: request.request_id };
        if let Some(stored) = self.existing(&asked, &options).await? {
            return Ok(view::mirror(&stored, Timestamp::now()));
        }
        let (source, destination) = self.peers_of(&asked).await?;
        let prepared = self.prepare(&asked, &source, &destination).await?;
        if request.validate_only {
            return Ok(convert::mirror::from_spec(&prepared.spec));
        }
        let stored = self.store(prepared, &options).await?;
        Ok(view::mirror(&stored, Timestamp::now()))
    }

    /// The mirror that is there already, if it is as good as the one asked for.
    async fn existing(&self, asked: &MirrorSpec, options: &CreateOptions) -> Answer<Option<Mirror>> {
        let Some(stored) = found(self.catalog.get_mirror(&asked.name).await, Code::MirrorNotFound)? else {
            return Ok(None);
        };
        if stored.desired == Desired::Dropping {
            let message = format!("mirror {} is being dropped", asked.name);
            return Err(Error::new(Code::MirrorState, message).with("mirror", asked.name.clone()).into());
        }
        let same_request = !options.request_id.is_empty() && options.request_id == stored.request_id;
        let changes = diff::with_stored(&stored.spec, asked)?;
        if !changes.is_empty() || !(options.allow_existing || same_request) {
            return Err(diff::exists(Code::MirrorExists, "mirror", &asked.name, &changes).into());
        }
        if !stored.workflow_started {
            self.start(&asked.name).await?;
        }
        Ok(Some(stored))
    }

    pub(super) async fn peers_of(&self, mirror: &MirrorSpec) -> Answer<(PeerSpec, PeerSpec)> {
        let source = self.catalog.get_peer(&mirror.source).await?.spec;
        let destination = self.catalog.get_peer(&mirror.destination).await?.spec;
        let known = [&source, &destination].map(|peer| (peer.name.as_str(), peer)).into_iter().collect();
        plan::check_peers(mirror, &known)?;
        Ok((source, destination))
    }

    /// Looks at both peers and at every table. Nothing is stored or made.
    ///
    /// # Errors
    /// The first check that failed, with all the others as violations.
    pub(super) async fn prepare(
        &self,
        asked: &MirrorSpec,
        source: &PeerSpec,
        destination: &PeerSpec,
    ) -> Answer<Prepared> {
        let spec = self.resolve(asked, source).await?;
        // The check on the destination sees only tables that are made already.
        self.catalog.check_destinations(&spec).await?;
        let report = self.check_mirror(&spec, source, destination, None).await?;
        report::require_success(&report)?;
        let mut tables = report::new_tables(&spec, &report)?;
        spread::assign(&mut tables, spread::carried(spec.settings.streams, [].iter()), &BTreeMap::new());
        Ok(Prepared { spec, tables })
    }

    /// Replaces patterns, which takes a look at the source, and names the destinations.
    async fn resolve(&self, asked: &MirrorSpec, source: &PeerSpec) -> Answer<MirrorSpec> {
        let listing: Vec<TableName> = match tables::pattern_schemas(asked).is_empty() {
            true => Vec::new(),
            false => self.listing(source).await?,
        };
        tables::resolve(asked, &listing)
    }

    /// Every mirror that is stored.
    pub(crate) async fn all_mirrors(&self) -> millrace_terms::Result<Vec<Mirror>> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.catalog.list_mirrors(&whole_page(token), &MirrorFilter::default()).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => token = next,
                None => return Ok(all),
            }
        }
    }

    /// Stores a mirror and starts it.
    pub(super) async fn store(&self, prepared: Prepared, options: &CreateOptions) -> Answer<Mirror> {
        let installation = self.catalog.installation().await?;
        let name = prepared.spec.name.clone();
        let new = NewMirror {
            rules: RULES,
            streams: (0..prepared.spec.settings.streams)
                .map(|n| NewStream {
                    slot: own_or(&prepared.spec.settings.slot, || installation.slot(&name, n)),
                    publication: own_or(&prepared.spec.settings.publication, || {
                        installation.publication(&name, n)
                    }),
                })
                .collect(),
            tables: prepared.tables,
            spec: prepared.spec,
        };
        let stored = self.catalog.create_mirror(&new, options).await?.into_inner();
        if let Err(error) = self.start(&name).await {
            // It is stored, so it exists; the start is repeated by `keep_started`.
            tracing::warn!(mirror = name, code = %error.code(), message = error.message(), "not started yet");
        }
        Ok(stored)
    }

    /// A mirror with its tables, their states and progress.
    pub(crate) async fn get_mirror(self: Arc<Self>, request: v1::GetMirrorRequest) -> Answer<v1::Mirror> {
        let mirror = self.catalog.get_mirror(name_of(&request.name)?).await?;
        Ok(view::mirror(&mirror, Timestamp::now()))
    }

    /// Mirrors by name.
    pub(crate) async fn list_mirrors(
        self: Arc<Self>,
        request: v1::ListMirrorsRequest,
    ) -> Answer<v1::ListMirrorsResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let filter = convert::filter::mirrors(&request)?;
        let mirrors = self.catalog.list_mirrors(&page.request(), &filter).await?;
        let now = Timestamp::now();
        Ok(v1::ListMirrorsResponse {
            mirrors: mirrors.items.iter().map(|mirror| view::mirror(mirror, now)).collect(),
            next_page_token: mirrors.next.unwrap_or_default(),
        })
    }

    /// Every check of a mirror that is not stored.
    pub(crate) async fn validate_mirror(
        self: Arc<Self>,
        request: v1::ValidateMirrorRequest,
    ) -> Answer<v1::ValidateMirrorResponse> {
        let asked = convert::mirror::to_spec(request.mirror.as_ref())?;
        let (source, destination) = self.peers_of(&asked).await?;
        let spec = self.resolve(&asked, &source).await?;
        let report = self.check_mirror(&spec, &source, &destination, None).await?;
        Ok(v1::ValidateMirrorResponse {
            ok: report::is_success(&report),
            checks: report::messages(&report.checks),
        })
    }

    /// Ends the stream after what it has in flight.
    pub(crate) async fn pause_mirror(self: Arc<Self>, request: v1::PauseMirrorRequest) -> Answer<v1::Mirror> {
        self.require_etag(&request.name, &request.etag).await?;
        self.change(&request.name, Change::Pause, &request.request_id).await
    }

    /// Goes on from the position.
    pub(crate) async fn resume_mirror(
        self: Arc<Self>,
        request: v1::ResumeMirrorRequest,
    ) -> Answer<v1::Mirror> {
        self.require_etag(&request.name, &request.etag).await?;
        self.change(&request.name, Change::Resume, &request.request_id).await
    }

    /// Has every table copied again.
    pub(crate) async fn resync_mirror(
        self: Arc<Self>,
        request: v1::ResyncMirrorRequest,
    ) -> Answer<v1::Mirror> {
        let mirror = self.catalog.get_mirror(name_of(&request.name)?).await?;
        require_etag(&mirror, &request.etag)?;
        if mirror.state == MirrorState::Completed {
            return self.reopen(&mirror).await;
        }
        require_resyncable(&mirror)?;
        self.change(&request.name, Change::Resync(Resync::All), &request.request_id).await
    }

    /// Has a mirror that was completed copy everything again, and end again.
    async fn reopen(&self, mirror: &Mirror) -> Answer<v1::Mirror> {
        let name = mirror.name();
        // One that has just been completed still removes its slot.
        let deadline = Instant::now() + deadlines::UPDATE;
        while self.orchestra.is_at_work(name).await? {
            if Instant::now() >= deadline {
                let message =
                    format!("mirror {name} is COMPLETED, and still removes what it made on the source");
                let error = Error::new(Code::MirrorState, message).with("mirror", name);
                return Err(error
                    .with_remedy("Try again in a minute; its events say if that is not possible.")
                    .into());
            }
            tokio::time::sleep(DROP_POLL).await;
        }
        let reason =
            Error::new(Code::TableSchemaChanged, "a user asks for a resync: everything is copied again")
                .with_remedy("Nothing: the copies run by themselves.");
        self.catalog.reopen_mirror(name, &reason).await?;
        if let Err(error) = self.start(name).await {
            // It is open, so the start is repeated by `keep_started`.
            tracing::warn!(mirror = name, code = %error.code(), message = error.message(), "not started yet");
        }
        Ok(view::mirror(&self.catalog.get_mirror(name).await?, Timestamp::now()))
    }

    /// Has a table copied again.
    pub(crate) async fn resync_table(self: Arc<Self>, request: v1::ResyncTableRequest) -> Answer<v1::Mirror> {
        let name = name_of(&request.name)?;
        let source = source_of(&request.table)?;
        let mirror = self.catalog.get_mirror(name).await?;
        let table = self.catalog.find_table(name, &source).await?;
        require_etag(&mirror, &request.etag)?;
        require_resyncable(&mirror)?;
        self.change(name, Change::Resync(Resync::Table(table.id)), &request.request_id).await
    }

    /// Refuses an action on a mirror that is not any more what its caller saw; without an etag nothing is asked.
    async fn require_etag(&self, name: &str, etag: &str) -> Answer<()> {
        if !etag.is_empty() {
            require_etag(&self.catalog.get_mirror(name_of(name)?).await?, etag)?;
        }
        Ok(())
    }

    pub(super) async fn change(&self, name: &str, change: Change, request_id: &str) -> Answer<v1::Mirror> {
        let mut violations = Violations::default();
        check_request_id(request_id, &mut violations);
        violations.into_result()?;
        let name = name_of(name)?;
        // Its workflow is over.
        if self.catalog.get_mirror(name).await?.state == MirrorState::Completed {
            let message = format!("mirror {name} is COMPLETED: it does nothing any more");
            return Err(Error::new(Code::MirrorState, message).with("mirror", name).into());
        }
        self.orchestra.change(name, change, request_id).await.map_err(|error| error.with("mirror", name))?;
        let mirror = self.catalog.get_mirror(name).await?;
        Ok(view::mirror(&mirror, Timestamp::now()))
    }

    /// Ends a mirror and removes what it made on the source.
    pub(crate) async fn delete_mirror(
        self: Arc<Self>,
        request: v1::DeleteMirrorRequest,
    ) -> Answer<v1::DeleteMirrorResponse> {
        let name = name_of(&request.name)?;
        let stored = match self.catalog.get_mirror(name).await {
            Err(error) if error.code() == Code::MirrorNotFound && request.allow_missing => {
                return Ok(v1::DeleteMirrorResponse { done: true, leftovers: Vec::new() });
            }
            other => other?,
        };
        require_etag(&stored, &request.etag)?;
        self.drop_mirror(&stored, request.drop_destination, request.force).await
    }

    /// Drops a mirror; see [`Control::delete_mirror`].
    ///
    /// # Errors
    /// Without `force`: why something of it could not be removed; the mirror stays DROPPING then.
    pub(super) async fn drop_mirror(
        &self,
        stored: &Mirror,
        destination_tables: bool,
        force: bool,
    ) -> Answer<v1::DeleteMirrorResponse> {
        let name = stored.name();
        let deadline = Instant::now() + deadlines::DROP;
        let how = DropOptions { destination_tables, keep_if_left: !force };
        if stored.desired != Desired::Dropping {
            let change = Change::Drop(how);
            self.orchestra.change(name, change, "").await.map_err(|error| error.with("mirror", name))?;
        } else if self.orchestra.drop_work(name).await? != DropWork::Running
            && self.same(stored).await?.is_some()
        {
            // In this order: what is there after its workflow has ended, nobody drops any more.
            self.orchestra.start_drop(name, how).await?;
        }
        while let Some(left) = self.same(stored).await? {
            // It is DROPPING since the work began.
            if left.desired == Desired::Dropping {
                match self.orchestra.drop_work(name).await? {
                    DropWork::Running => {}
                    // The mirror was kept.
                    DropWork::Over => break,
                    // Ended by force: who waits for it takes it up.
                    DropWork::Abandoned => self.orchestra.start_drop(name, how).await?,
                }
            }
            if Instant::now() >= deadline {
                return Ok(v1::DeleteMirrorResponse { done: false, leftovers: Vec::new() });
            }
            // The end of the work is written by a worker, and nobody tells the server of it.
            tokio::time::sleep(DROP_POLL).await;
        }
        // Gone from the catalog, or kept: the newest drop of this name is ours, and it is over.
        let report = self.orchestra.drop_report(name).await?;
        if report.kept {
            return Err(kept(name, &report).into());
        }
        let leftovers = report.leftovers.iter();
        let leftovers =
            leftovers.map(|left| format!("{}: {} {}", left.object, left.error, left.error.remedy()));
        Ok(v1::DeleteMirrorResponse { done: true, leftovers: leftovers.collect() })
    }

    /// This very mirror as it is now, if it is there: not one made later under its name.
    async fn same(&self, mirror: &Mirror) -> Answer<Option<Mirror>> {
        let found = found(self.catalog.get_mirror(mirror.name()).await, Code::MirrorNotFound)?;
        Ok(found.filter(|found| found.created_at == mirror.created_at))
    }

    /// What happened to a mirror, newest first. A dropped mirror's events are kept for a while.
    pub(crate) async fn list_mirror_events(
        self: Arc<Self>,
        request: v1::ListMirrorEventsRequest,
    ) -> Answer<v1::ListMirrorEventsResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let filter = convert::filter::events(&request)?;
        let events = self.catalog.list_events(name_of(&request.name)?, &page.request(), &filter).await?;
        if events.items.is_empty() && page.is_first() {
            self.catalog.get_mirror(&request.name).await?;
        }
        Ok(v1::ListMirrorEventsResponse {
            events: events.items.iter().map(view::event).collect(),
            next_page_token: events.next.unwrap_or_default(),
        })
    }
}

/// Why a mirror that was to be dropped is kept.
fn kept(name: &str, report: &DropReport) -> Error {
    let left: Vec<&str> = report.leftovers.iter().map(|left| left.object.as_str()).collect();
    let left = left.join(", ");
    let first = report.leftovers.first();
    let (code, why) = first.map_or((Code::Internal, ""), |left| (left.error.code(), left.error.message()));
    Error::new(code, format!("mirror {name} does nothing any more, but is not dropped: {left} stays: {why}"))
        .with("mirror", name)
        .with("leftovers", left)
        .with_remedy(
            "Mend that and delete the mirror again; or delete it with force, which leaves behind what cannot be removed.",
        )
}

/// Refuses what was decided about another state of the mirror; an empty etag is any.
pub(super) fn require_etag(mirror: &Mirror, etag: &str) -> millrace_terms::Result<()> {
    if etag.is_empty() || etag == mirror.etag {
        return Ok(());
    }
    let name = mirror.name();
    Err(Error::new(Code::EditConflict, format!("mirror {name} was changed meanwhile")).with("mirror", name))
}

/// Refuses a resync where nothing would carry it out.
pub(super) fn require_resyncable(mirror: &Mirror) -> millrace_terms::Result<()> {
    if matches!(mirror.state, MirrorState::Running | MirrorState::Snapshot | MirrorState::Degraded) {
        return Ok(());
    }
    let (name, state) = (mirror.name(), mirror.state);
    let message = format!(
        "mirror {name} is {state}: a resync is possible while it is RUNNING, SNAPSHOT or DEGRADED, and of a whole mirror when it is COMPLETED"
    );
    Err(Error::new(Code::MirrorState, message).with("mirror", name).with("state", state.to_string()))
}

/// The object that the user has made and named, else one of ours.
fn own_or(named: &str, ours: impl FnOnce() -> String) -> String {
    if named.is_empty() { ours() } else { named.to_owned() }
}
