//! `apply`: a whole file, planned, validated, then carried out. `export`: the way back.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millrace_catalog::edits::MirrorEdit;
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::peers::{CreateOptions, PeerFilter};
use millrace_catalog::spec::{MirrorSpec, PeerSpec};
use millrace_catalog::state::Desired;
use millrace_proto::v1;
use millrace_proto::v1::applied_object::{Action, Kind};
use millrace_terms::{Code, Error};

use super::edits::EditOptions;
use super::mirrors::Prepared;
use super::{Control, found, whole_page};
use crate::diff::Change;
use crate::document::Document;
use crate::fault::Answer;
use crate::plan::{self, Step, StoredMirror};
use crate::{document, edit, export, report, tables};

/// Checks that run at once for one document: each takes a slot of a worker.
const CHECKS_MAX: usize = 4;

impl Control {
    /// Applies a document; see the API's own words.
    pub(crate) async fn apply(self: Arc<Self>, request: v1::ApplyRequest) -> Answer<v1::ApplyResponse> {
        let document = document::parse(&request.document)?;
        let peers = self.all_peers().await?;
        let stored = self.all_mirrors().await?;
        let mirrors = planned(&stored);
        if request.prune && !request.prune_all && !request.dry_run {
            refuse_empty(&document, peers.len() + stored.len())?;
        }
        let steps = plan::steps(&document, &peers, &mirrors, request.prune)?;
        let known = peers.iter().chain(&document.peers).map(|peer| (peer.name.as_str(), peer)).collect();
        let mut prepared = self.validate(&steps, &known).await?;
        let options = EditOptions { drop_destination: request.drop_destination, ..EditOptions::default() };
        let mut edits = self.validate_edits(&steps, &stored, &known, &options).await?;

        let mut objects = Vec::with_capacity(steps.len());
        for step in steps {
            let mut object = describe(&step);
            if !request.dry_run {
                object.leftovers = match step {
                    Step::UpdateMirror(mirror, _) => self.carry_out_edit(&mirror, &mut edits).await?,
                    step => self.carry_out(step, &mut prepared, request.drop_destination).await?,
                };
            }
            objects.push(object);
        }
        Ok(v1::ApplyResponse { objects })
    }

    /// Writes peers and mirrors as a document; see the API's own words.
    pub(crate) async fn export(self: Arc<Self>, request: v1::ExportRequest) -> Answer<v1::ExportResponse> {
        let peers = self.all_peers().await?;
        let mirrors = planned(&self.all_mirrors().await?);
        let (peers, mirrors) = export::select(&peers, &mirrors, &request.mirrors)?;
        let export = export::document(peers, mirrors, export::Dollars::Literal)?;
        Ok(v1::ExportResponse { document: export.text, variables: export.variables })
    }

    pub(super) async fn all_peers(&self) -> Answer<Vec<PeerSpec>> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.catalog.list_peers(&whole_page(token), &PeerFilter::default()).await?;
            all.extend(page.items.into_iter().map(|peer| peer.spec));
            match page.next {
                Some(next) => token = next,
                None => return Ok(all),
            }
        }
    }

    /// Looks at every peer and mirror that is to be made or changed. Gives the mirrors, ready to
    /// be stored.
    async fn validate(
        &self,
        steps: &[Step],
        known: &BTreeMap<&str, &PeerSpec>,
    ) -> Answer<BTreeMap<String, Prepared>> {
        let (mut peers, mut mirrors) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::CreatePeer(peer) | Step::UpdatePeer(peer, _) => {
                    peers.push(self.validate_new_peer(peer))
                }
                Step::CreateMirror(mirror) => mirrors.push(self.validate_new_mirror(mirror, known)),
                _ => {}
            }
        }
        stream::iter(peers).buffered(CHECKS_MAX).try_collect::<()>().await?;
        stream::iter(mirrors).buffered(CHECKS_MAX).try_collect().await
    }

    async fn validate_new_peer(&self, peer: &PeerSpec) -> Answer<()> {
        report::require_success(&self.check_peer(peer).await?)
    }

    async fn validate_new_mirror(
        &self,
        mirror: &MirrorSpec,
        known: &BTreeMap<&str, &PeerSpec>,
    ) -> Answer<(String, Prepared)> {
        let peer = |name: &str| known.get(name).copied();
        let (Some(source), Some(destination)) = (peer(&mirror.source), peer(&mirror.destination)) else {
            return Err(Error::new(Code::Internal, "a mirror was planned without its peers").into());
        };
        Ok((mirror.name.clone(), self.prepare(mirror, source, destination).await?))
    }

    /// Looks at every table that is to join a mirror. Gives the changes, ready to be stored.
    async fn validate_edits(
        &self,
        steps: &[Step],
        stored: &[Mirror],
        known: &BTreeMap<&str, &PeerSpec>,
        options: &EditOptions,
    ) -> Answer<BTreeMap<String, MirrorEdit>> {
        let mut edits = BTreeMap::new();
        for step in steps {
            let Step::UpdateMirror(asked, _) = step else { continue };
            let Some(stored) = stored.iter().find(|mirror| mirror.spec.name == asked.name) else { continue };
            let unknown = edit::unknown_schemas(&stored.spec, asked);
            let mut listing = edit::sources(&stored.spec);
            if let (false, Some(source)) = (unknown.is_empty(), known.get(asked.source.as_str())) {
                let found = self.listing(source).await?;
                listing.extend(found.into_iter().filter(|table| unknown.contains(&table.schema)));
            }
            let after = tables::resolve_again(asked, &listing, &stored.spec.tables)?;
            let peer = |name: &str| known.get(name).map(|peer| PeerSpec::clone(peer));
            // As the document says: a peer that changes with the mirror is not stored yet.
            let peers = peer(&after.source).zip(peer(&after.destination));
            if let Some(edit) = self.prepare_edit(stored, after, peers, options).await? {
                edits.insert(asked.name.clone(), edit);
            }
        }
        Ok(edits)
    }

    async fn carry_out_edit(
        &self,
        mirror: &MirrorSpec,
        edits: &mut BTreeMap<String, MirrorEdit>,
    ) -> Answer<Vec<String>> {
        if let (Some(edit), Some(stored)) = (edits.remove(&mirror.name), self.stored(&mirror.name).await?) {
            self.carry_edit(&stored, Some(edit), "").await?;
        }
        Ok(Vec::new())
    }

    /// Takes one step; gives what a drop left behind.
    async fn carry_out(
        &self,
        step: Step,
        prepared: &mut BTreeMap<String, Prepared>,
        drop_destination: bool,
    ) -> Answer<Vec<String>> {
        // Created by somebody else since it was planned: that is what was asked for, or an error.
        let options = CreateOptions { allow_existing: true, ..CreateOptions::default() };
        match step {
            Step::KeepPeer(_) | Step::KeepMirror(_) | Step::UpdateMirror(..) => {}
            Step::CreatePeer(peer) => {
                self.catalog.create_peer(&peer, &options).await?;
            }
            Step::UpdatePeer(peer, _) => {
                // Everything was looked at before the first step.
                self.replace_peer(&peer, "", "", true).await?;
            }
            Step::CreateMirror(mirror) => {
                if let Some(ready) = prepared.remove(&mirror.name) {
                    self.store(ready, &options).await?;
                }
            }
            Step::DeleteMirror(name) => {
                if let Some(mirror) = found(self.catalog.get_mirror(&name).await, Code::MirrorNotFound)? {
                    let dropped = self.drop_mirror(&mirror, drop_destination, false).await?;
                    if !dropped.done {
                        let message = format!("mirror {name} is being dropped; the rest was not done");
                        return Err(Error::new(Code::RequestTimeout, message).with("mirror", name).into());
                    }
                    return Ok(dropped.leftovers);
                }
            }
            Step::DeletePeer(name) => {
                found(self.catalog.delete_peer(&name, "").await, Code::PeerNotFound)?;
            }
        }
        Ok(Vec::new())
    }
}

/// Refuses a document that holds nothing, where `prune` would drop all that is stored.
fn refuse_empty(document: &Document, stored: usize) -> Result<(), Error> {
    if !document.is_empty() || stored == 0 {
        return Ok(());
    }
    let message =
        format!("the document holds nothing: with `prune` all {stored} peers and mirrors would be dropped");
    Err(Error::new(Code::InvalidArgument, message).with("field", "prune_all").with_remedy(
        "Check where the document comes from. If everything is to go, set prune_all, too (--prune-all).",
    ))
}

/// The stored mirrors, as they are planned with.
fn planned(stored: &[Mirror]) -> Vec<StoredMirror> {
    let planned =
        |m: &Mirror| StoredMirror { spec: m.spec.clone(), dropping: m.desired == Desired::Dropping };
    stored.iter().map(planned).collect()
}

fn describe(step: &Step) -> v1::AppliedObject {
    let (kind, name, action, changes): (_, _, _, &[Change]) = match step {
        Step::CreatePeer(peer) => (Kind::Peer, &peer.name, Action::Created, &[]),
        Step::UpdatePeer(peer, changes) => (Kind::Peer, &peer.name, Action::Updated, changes),
        Step::KeepPeer(name) => (Kind::Peer, name, Action::Unchanged, &[]),
        Step::DeletePeer(name) => (Kind::Peer, name, Action::Deleted, &[]),
        Step::CreateMirror(mirror) => (Kind::Mirror, &mirror.name, Action::Created, &[]),
        Step::UpdateMirror(mirror, changes) => (Kind::Mirror, &mirror.name, Action::Updated, changes),
        Step::KeepMirror(name) => (Kind::Mirror, name, Action::Unchanged, &[]),
        Step::DeleteMirror(name) => (Kind::Mirror, name, Action::Deleted, &[]),
    };
    v1::AppliedObject {
        kind: kind.into(),
        name: name.clone(),
        action: action.into(),
        changes: changes.iter().map(change).collect(),
        leftovers: Vec::new(),
    }
}

fn change(change: &Change) -> v1::FieldChange {
    v1::FieldChange {
        field: change.field.clone(),
        old_value: change.old.clone(),
        new_value: change.new.clone(),
    }
}
