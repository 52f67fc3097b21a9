//! Doctor: gathers the facts of the installation, has workers look at peers and mirrors, and reports all
//! of it. Makes and changes nothing. I/O; the judgements are in `doctor`.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use millrace_catalog::drafts::CheckReport;
use millrace_proto::v1;
use millrace_proto::v1::diagnosis::Kind;
use millrace_terms::check::{Check, Name, Status};
use millrace_terms::{Code, Error, Result};

use super::Control;
use crate::doctor::{InstallationFacts, MirrorFacts, installation, mirror};
use crate::fault::Answer;
use crate::report;
use crate::text::name_of;

/// Peers and mirrors that workers look at together: a diagnosis must not keep them from their work.
const LOOKS_AT_ONCE: usize = 8;

impl Control {
    /// Looks at the installation, and at the peers and mirrors that are named, or at all.
    pub(crate) async fn doctor(self: Arc<Self>, request: v1::DoctorRequest) -> Answer<v1::DoctorResponse> {
        let (peers, mirrors) = self.patients(request).await?;
        let found = self.installation_checks().await;
        let mut diagnoses = vec![diagnosis(Kind::Installation, "", &found)];
        let is_staffed =
            found.iter().all(|check| check.name != Name::Workers || check.status != Status::Fail);
        let peers = peers.into_iter().map(|name| (Kind::Peer, name));
        let everything = peers.chain(mirrors.into_iter().map(|name| (Kind::Mirror, name)));
        let looks = everything.map(|(kind, name)| self.clone().diagnose(kind, name, is_staffed));
        diagnoses.extend(stream::iter(looks).buffered(LOOKS_AT_ONCE).collect::<Vec<_>>().await);
        let failed = |diagnosis: &v1::Diagnosis| {
            diagnosis.checks.iter().any(|check| check.status() == v1::check::Status::Fail)
        };
        Ok(v1::DoctorResponse { ok: !diagnoses.iter().any(failed), diagnoses })
    }

    async fn diagnose(self: Arc<Self>, kind: Kind, name: String, is_staffed: bool) -> v1::Diagnosis {
        let checks = match kind {
            Kind::Peer => self.peer_checks(&name, is_staffed).await,
            _ => self.mirror_checks(&name, is_staffed).await,
        };
        diagnosis(kind, &name, &checks)
    }

    /// Names of the peers and mirrors to look at. Those that are asked for exist.
    async fn patients(&self, request: v1::DoctorRequest) -> Answer<(Vec<String>, Vec<String>)> {
        let v1::DoctorRequest { peers, mirrors } = request;
        if !peers.is_empty() || !mirrors.is_empty() {
            for name in &peers {
                self.catalog.get_peer(name_of(name)?).await?;
            }
            for name in &mirrors {
                self.catalog.get_mirror(name_of(name)?).await?;
            }
            return Ok((peers, mirrors));
        }
        // A peer whose secrets cannot be opened is the check `secret_keys`, not an error here.
        let peers = self.all_peers().await.unwrap_or_default().into_iter().map(|peer| peer.name).collect();
        let mirrors = self.all_mirrors().await?.iter().map(|mirror| mirror.name().to_owned()).collect();
        Ok((peers, mirrors))
    }

    async fn installation_checks(&self) -> Vec<Check> {
        let (catalog, clock, secrets) =
            tokio::join!(self.catalog.check_version(), self.catalog.clock(), self.all_peers());
        let (temporal, attributes_missing, housekeeping, queues) = tokio::join!(
            self.orchestra.ping(),
            self.orchestra.attributes_missing(),
            self.orchestra.housekeeping(),
            self.orchestra.pollers(),
        );
        installation(&InstallationFacts {
            catalog,
            catalog_version: millrace_catalog::migration::version_needed(),
            clock,
            secrets: secrets.map(drop).map_err(|fault| fault.error),
            temporal,
            namespace: self.orchestra.namespace(),
            attributes_missing,
            housekeeping,
            queues,
        })
    }

    async fn peer_checks(&self, name: &str, is_staffed: bool) -> Vec<Check> {
        let looked = async {
            let peer = self.catalog.get_peer(name).await?;
            self.check_peer(&peer.spec).await
        };
        worker_checks(is_staffed, Box::pin(looked)).await
    }

    async fn mirror_checks(&self, name: &str, is_staffed: bool) -> Vec<Check> {
        let stored = match self.catalog.get_mirror(name).await {
            Ok(stored) => stored,
            // Dropped since it was listed.
            Err(error) => return vec![Check::fail(Name::State, &error)],
        };
        let workflow_runs = self.orchestra.is_at_work(name).await;
        let mut checks = mirror(&MirrorFacts { mirror: stored, workflow_runs, now: Timestamp::now() });
        checks.extend(worker_checks(is_staffed, Box::pin(self.check_stored(name))).await);
        checks
    }
}

/// What workers find. Without workers nobody waits for their time-out: that there are none is told already.
async fn worker_checks(is_staffed: bool, looked: impl Future<Output = Result<CheckReport>>) -> Vec<Check> {
    let looked = match is_staffed {
        true => looked.await,
        false => Err(Error::new(Code::NoWorkers, "there is no worker to look at it")),
    };
    match looked {
        Ok(report) => report.checks,
        Err(error) => vec![Check::fail(Name::Workers, &error)],
    }
}

fn diagnosis(kind: Kind, name: &str, checks: &[Check]) -> v1::Diagnosis {
    v1::Diagnosis { kind: kind.into(), name: name.to_owned(), checks: report::messages(checks) }
}
