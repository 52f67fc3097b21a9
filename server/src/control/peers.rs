//! Peers: create, get, list, update, delete, validate, list the tables of a source.

use std::sync::Arc;

use millrace_catalog::peers::{CreateOptions, Peer};
use millrace_catalog::spec::{PeerConfig, PeerSpec};
use millrace_proto::v1;
use millrace_terms::check::Status;
use millrace_terms::{Code, Error};
use pbjson_types::FieldMask;

use super::{Control, found};
use crate::convert::{self, view};
use crate::diff;
use crate::fault::{Answer, Violations, invalid};
use crate::mask;
use crate::refusals;
use crate::report;
use crate::text::{Page, check_request_id, name_of};

impl Control {
    /// Stores a peer, after a worker has connected to it.
    pub(crate) async fn create_peer(self: Arc<Self>, request: v1::CreatePeerRequest) -> Answer<v1::Peer> {
        let mut violations = Violations::default();
        check_request_id(&request.request_id, &mut violations);
        violations.into_result()?;
        let spec = convert::peer::to_spec(request.peer.as_ref())?;
        refusals::check_peer(&spec)?;
        let options =
            CreateOptions { allow_existing: request.allow_existing, request_id: request.request_id };
        if found(self.catalog.get_peer(&spec.name).await, Code::PeerNotFound)?.is_none()
            && !request.skip_validation
        {
            report::require_success(&self.check_peer(&spec).await?)?;
        }
        if request.validate_only {
            self.refuse_existing_peer(&spec, &options).await?;
            return Ok(convert::peer::from_spec(&spec));
        }
        // The catalog decides about what is there already: also about one just created.
        Ok(view::peer(&self.catalog.create_peer(&spec, &options).await?.into_inner()))
    }

    async fn refuse_existing_peer(&self, spec: &PeerSpec, options: &CreateOptions) -> Answer<()> {
        let Some(stored) = found(self.catalog.get_peer(&spec.name).await, Code::PeerNotFound)? else {
            return Ok(());
        };
        let changes = diff::peers(&stored.spec, spec)?;
        if changes.is_empty() && options.allow_existing {
            return Ok(());
        }
        Err(diff::exists(Code::PeerExists, "peer", &spec.name, &changes).into())
    }

    /// Replaces a stored peer. The one place that does, whoever asks; who looked at it before says so.
    pub(super) async fn replace_peer(
        &self,
        spec: &PeerSpec,
        etag: &str,
        request_id: &str,
        is_checked: bool,
    ) -> Answer<Peer> {
        refusals::check_peer(spec)?;
        if !is_checked {
            report::require_success(&self.check_peer(spec).await?)?;
        }
        Ok(self.catalog.update_peer(spec, etag, request_id).await?)
    }

    /// A peer, without its secrets.
    pub(crate) async fn get_peer(self: Arc<Self>, request: v1::GetPeerRequest) -> Answer<v1::Peer> {
        Ok(view::peer(&self.catalog.get_peer(name_of(&request.name)?).await?))
    }

    /// Peers by name.
    pub(crate) async fn list_peers(
        self: Arc<Self>,
        request: v1::ListPeersRequest,
    ) -> Answer<v1::ListPeersResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let filter = convert::filter::peers(&request)?;
        let peers = self.catalog.list_peers(&page.request(), &filter).await?;
        Ok(v1::ListPeersResponse {
            peers: peers.items.iter().map(view::peer).collect(),
            next_page_token: peers.next.unwrap_or_default(),
        })
    }

    /// Changes how a peer is reached, after a worker has connected to it.
    pub(crate) async fn update_peer(self: Arc<Self>, request: v1::UpdatePeerRequest) -> Answer<v1::Peer> {
        let mut violations = Violations::default();
        check_request_id(&request.request_id, &mut violations);
        violations.into_result()?;
        let asked = request.peer.as_ref().ok_or_else(|| invalid("peer", "must be set"))?;
        let stored = self.catalog.get_peer(name_of(&asked.name)?).await?;
        let spec = updated(&stored.spec, asked, request.update_mask.as_ref())?;
        refusals::check_peer(&spec)?;
        let is_repeated = !request.request_id.is_empty() && request.request_id == stored.request_id;
        if is_repeated && spec == stored.spec {
            return Ok(view::peer(&stored));
        }
        if !asked.etag.is_empty() && asked.etag != stored.etag {
            let message = format!("peer {} was changed meanwhile", spec.name);
            return Err(Error::new(Code::EditConflict, message).with("peer", spec.name).into());
        }
        let is_checked = request.skip_validation || spec == stored.spec;
        if request.validate_only {
            if !is_checked {
                report::require_success(&self.check_peer(&spec).await?)?;
            }
            return Ok(convert::peer::from_spec(&spec));
        }
        // What was merged holds for what was read only.
        let updated = self.replace_peer(&spec, &stored.etag, &request.request_id, is_checked).await?;
        Ok(view::peer(&updated))
    }

    /// Forgets a peer that no mirror uses.
    pub(crate) async fn delete_peer(
        self: Arc<Self>,
        request: v1::DeletePeerRequest,
    ) -> Answer<v1::DeletePeerResponse> {
        match self.catalog.delete_peer(name_of(&request.name)?, &request.etag).await {
            Err(error) if error.code() == Code::PeerNotFound && request.allow_missing => {}
            other => other?,
        }
        Ok(v1::DeletePeerResponse {})
    }

    /// Removes from a source what dropped mirrors left behind.
    pub(crate) async fn cleanup_peer(
        self: Arc<Self>,
        request: v1::CleanupPeerRequest,
    ) -> Answer<v1::CleanupPeerResponse> {
        let peer = self.source(&request.name).await?;
        let found = self.clean_up(&peer.spec, request.validate_only).await?;
        let (left, removed): (Vec<_>, Vec<_>) =
            found.checks.into_iter().partition(|check| check.status == Status::Fail);
        Ok(v1::CleanupPeerResponse {
            removed: removed.into_iter().map(|check| check.subject).collect(),
            leftovers: left
                .into_iter()
                .map(|check| format!("{}: {}", check.subject, check.message))
                .collect(),
        })
    }

    /// The stored peer of this name, which must be a PostgreSQL server.
    pub(super) async fn source(&self, name: &str) -> Answer<Peer> {
        let peer = self.catalog.get_peer(name_of(name)?).await?;
        match peer.spec.config {
            PeerConfig::Postgres(_) => Ok(peer),
            PeerConfig::Clickhouse(_) => Err(invalid("name", format!("peer {name} is no PostgreSQL server"))),
        }
    }

    /// Every check of a peer, stored or not.
    pub(crate) async fn validate_peer(
        self: Arc<Self>,
        request: v1::ValidatePeerRequest,
    ) -> Answer<v1::ValidatePeerResponse> {
        use v1::validate_peer_request::Target;
        let spec = match request.target {
            Some(Target::Name(name)) => self.catalog.get_peer(name_of(&name)?).await?.spec,
            Some(Target::Peer(peer)) => convert::peer::to_spec(Some(&peer))?,
            None => return Err(invalid("target", "name or peer must be set")),
        };
        refusals::check_peer(&spec)?;
        let report = self.check_peer(&spec).await?;
        Ok(v1::ValidatePeerResponse {
            ok: report::is_success(&report),
            checks: report::messages(&report.checks),
        })
    }

    /// The tables of a source, as they are now.
    pub(crate) async fn list_source_tables(
        self: Arc<Self>,
        request: v1::ListSourceTablesRequest,
    ) -> Answer<v1::ListSourceTablesResponse> {
        let page = Page::new(request.page_size, &request.page_token)?;
        let peer = self.source(&request.name).await?;
        let report = self.list_tables(&peer.spec).await?;
        let mut tables = report::tables(&report);
        tables.retain(|(table, _)| request.schema.is_empty() || table.schema == request.schema);
        let mut tables: Vec<v1::SourceTable> = tables.into_iter().map(|(_, table)| table).collect();
        tables.sort_by(|a, b| a.source.cmp(&b.source));
        let (tables, next_page_token) = page.cut(tables, |table| table.source.clone());
        Ok(v1::ListSourceTablesResponse { tables, next_page_token })
    }
}

/// The peer that is asked for: the stored one with the fields of the mask replaced.
fn updated(stored: &PeerSpec, asked: &v1::Peer, mask: Option<&FieldMask>) -> Answer<PeerSpec> {
    let mut message = mask::merged("millrace.v1.Peer", &convert::peer::from_spec(stored), asked, mask)?;
    convert::peer::keep_secrets(&mut message, stored)?;
    convert::peer::to_spec(Some(&message))
}
