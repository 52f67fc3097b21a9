//! Checks by the workers: the spec goes into a sealed draft, a workflow looks at the peers, the
//! answer is in the draft.

use millrace_catalog::drafts::{CheckReport, Draft};
use millrace_catalog::spec::{MirrorSpec, PeerSpec};
use millrace_terms::{Code, Error, Result};

use super::Control;

impl Control {
    /// Looks at a peer.
    pub(super) async fn check_peer(&self, peer: &PeerSpec) -> Result<CheckReport> {
        self.check(&Draft::Peer(peer.clone())).await
    }

    /// Lists the tables of a source.
    pub(super) async fn list_tables(&self, source: &PeerSpec) -> Result<CheckReport> {
        self.check(&Draft::Tables(source.clone())).await
    }

    /// Removes from a source what no mirror uses; or says what that is.
    pub(super) async fn clean_up(&self, source: &PeerSpec, only_look: bool) -> Result<CheckReport> {
        self.check(&Draft::Orphans { source: Box::new(source.clone()), only_look }).await
    }

    /// Looks at both peers and at every table of a mirror, whose tables and destinations are named.
    /// `former`, for tables that join a mirror that is there: destination tables that it wrote before.
    pub(super) async fn check_mirror(
        &self,
        mirror: &MirrorSpec,
        source: &PeerSpec,
        destination: &PeerSpec,
        former: Option<Vec<String>>,
    ) -> Result<CheckReport> {
        let draft = Draft::Mirror {
            mirror: Box::new(mirror.clone()),
            source: Box::new(source.clone()),
            destination: Box::new(destination.clone()),
            former,
        };
        self.check(&draft).await
    }

    /// Looks at a stored mirror as it is now.
    pub(super) async fn check_stored(&self, mirror: &str) -> Result<CheckReport> {
        self.check(&Draft::Stored(mirror.to_owned())).await
    }

    /// Looks at a replication slot of a source.
    pub(super) async fn check_slot(&self, source: &PeerSpec, slot: &str) -> Result<CheckReport> {
        self.check(&Draft::Slot { source: Box::new(source.clone()), slot: slot.to_owned() }).await
    }

    async fn check(&self, draft: &Draft) -> Result<CheckReport> {
        let id = self.catalog.create_draft(draft).await?;
        let checked = self.orchestra.check(&id.to_string()).await;
        let report = match checked {
            Ok(()) => self.catalog.draft_result(id).await,
            Err(error) => Err(error),
        };
        // What is left of it is deleted by housekeeping; the answer does not wait for that.
        if let Err(error) = self.catalog.delete_draft(id).await {
            tracing::warn!(code = %error.code(), "a draft was not deleted");
        }
        report?.ok_or_else(|| Error::new(Code::Internal, "the check left no answer"))
    }
}
