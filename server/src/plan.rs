//! What `apply` does: a document and what is stored become steps. Everything that can be refused
//! without asking a database is refused here, before anything changes.
//!
//! Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};

use catalog::spec::{MirrorSpec, PeerConfig, PeerSpec};
use millrace_catalog as catalog;
use millrace_terms::{Code, Error};

use crate::diff::{self, Change};
use crate::document::Document;
use crate::edit;
use crate::fault::{Answer, invalid};
use crate::refusals;

/// A mirror that is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredMirror {
    /// As it was resolved when it was made.
    pub(crate) spec: MirrorSpec,
    /// Whether it is on its way out.
    pub(crate) dropping: bool,
}

/// One step of an apply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Store a new peer.
    CreatePeer(PeerSpec),
    /// Replace a stored peer.
    UpdatePeer(PeerSpec, Vec<Change>),
    /// Leave a peer.
    KeepPeer(String),
    /// Create a mirror.
    CreateMirror(MirrorSpec),
    /// Change a mirror that runs.
    UpdateMirror(MirrorSpec, Vec<Change>),
    /// Leave a mirror.
    KeepMirror(String),
    /// Drop a mirror that the document does not hold.
    DeleteMirror(String),
    /// Forget a peer that the document does not hold.
    DeletePeer(String),
}

/// Decides the steps, in the order in which they have to be taken.
pub(crate) fn steps(
    document: &Document,
    peers: &[PeerSpec],
    mirrors: &[StoredMirror],
    prune: bool,
) -> Answer<Vec<Step>> {
    let mut steps = Vec::new();
    let stored_peers: BTreeMap<&str, &PeerSpec> =
        peers.iter().map(|peer| (peer.name.as_str(), peer)).collect();
    for peer in &document.peers {
        steps.push(peer_step(peer, stored_peers.get(peer.name.as_str()).copied(), mirrors)?);
    }
    let mut known = stored_peers.clone();
    known.extend(document.peers.iter().map(|peer| (peer.name.as_str(), peer)));
    let stored_mirrors: BTreeMap<&str, &StoredMirror> =
        mirrors.iter().map(|mirror| (mirror.spec.name.as_str(), mirror)).collect();
    for mirror in &document.mirrors {
        check_peers(mirror, &known)?;
        steps.push(mirror_step(mirror, stored_mirrors.get(mirror.name.as_str()).copied())?);
    }
    if prune {
        steps.extend(pruned(document, peers, mirrors)?);
    }
    Ok(steps)
}

fn peer_step(peer: &PeerSpec, stored: Option<&PeerSpec>, mirrors: &[StoredMirror]) -> Answer<Step> {
    refusals::check_peer(peer)?;
    let Some(stored) = stored else {
        return Ok(Step::CreatePeer(peer.clone()));
    };
    if std::mem::discriminant(&stored.config) != std::mem::discriminant(&peer.config) {
        let message =
            format!("peer {} is of another kind: a source does not become a destination", peer.name);
        return Err(Error::new(Code::PeerExists, message).with("peer", peer.name.clone()).into());
    }
    let users = mirrors.iter().map(|mirror| &mirror.spec);
    let users = users.filter(|mirror| mirror.source == peer.name || mirror.destination == peer.name);
    let users: Vec<&str> = users.map(|mirror| mirror.name.as_str()).collect();
    if stored.config.database() != peer.config.database() && !users.is_empty() {
        return Err(catalog::peers::moved(stored, users.join(", ")).into());
    }
    let changes = diff::peers(stored, peer)?;
    Ok(match changes.is_empty() {
        true => Step::KeepPeer(peer.name.clone()),
        false => Step::UpdatePeer(peer.clone(), changes),
    })
}

/// Checks that both peers of a mirror are known and of the right kind.
pub(crate) fn check_peers(mirror: &MirrorSpec, known: &BTreeMap<&str, &PeerSpec>) -> Answer<()> {
    let find = |name: &str| {
        known.get(name).copied().ok_or_else(|| {
            Error::new(Code::PeerNotFound, format!("mirror {}: no peer is called {name}", mirror.name))
                .with("mirror", mirror.name.clone())
                .with("peer", name)
        })
    };
    let (source, destination) = (find(&mirror.source)?, find(&mirror.destination)?);
    if !matches!(source.config, PeerConfig::Postgres(_)) {
        return Err(invalid("mirror.source", format!("peer {} is no PostgreSQL server", mirror.source)));
    }
    if !matches!(destination.config, PeerConfig::Clickhouse(_)) {
        let what = format!("peer {} is no ClickHouse server", mirror.destination);
        return Err(invalid("mirror.destination", what));
    }
    Ok(())
}

fn mirror_step(mirror: &MirrorSpec, stored: Option<&StoredMirror>) -> Answer<Step> {
    let Some(stored) = stored else {
        return Ok(Step::CreateMirror(mirror.clone()));
    };
    if stored.dropping {
        let message = format!("mirror {} is being dropped", mirror.name);
        return Err(Error::new(Code::MirrorState, message).with("mirror", mirror.name.clone()).into());
    }
    let changes = edit::preview(&stored.spec, mirror)?;
    Ok(match changes.is_empty() {
        true => Step::KeepMirror(mirror.name.clone()),
        false => Step::UpdateMirror(mirror.clone(), changes),
    })
}

fn pruned(document: &Document, peers: &[PeerSpec], mirrors: &[StoredMirror]) -> Answer<Vec<Step>> {
    let kept: BTreeSet<&str> = document.mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
    let mut steps: Vec<Step> = mirrors
        .iter()
        .filter(|mirror| !kept.contains(mirror.spec.name.as_str()))
        .map(|mirror| Step::DeleteMirror(mirror.spec.name.clone()))
        .collect();
    let kept: BTreeSet<&str> = document.peers.iter().map(|peer| peer.name.as_str()).collect();
    for peer in peers.iter().filter(|peer| !kept.contains(peer.name.as_str())) {
        let user = document.mirrors.iter().find(|m| m.source == peer.name || m.destination == peer.name);
        if let Some(mirror) = user {
            let message =
                format!("peer {} is not in the document, but mirror {} uses it", peer.name, mirror.name);
            return Err(Error::new(Code::PeerInUse, message)
                .with("peer", peer.name.clone())
                .with("mirrors", mirror.name.clone())
                .with_remedy("Put the peer into the document, or apply it without prune.")
                .into());
        }
        steps.push(Step::DeletePeer(peer.name.clone()));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use crate::document;

    use super::*;

    const DOCUMENT: &str = "
peers:
- name: pg
  postgres: {host: h, user: u, database: d, password: p}
- name: ch
  clickhouse: {url: 'http://h:8123'}
mirrors:
- name: shop
  source: pg
  destination: ch
  tables: [{source: public.*}]
";

    fn parsed(text: &str) -> Document {
        document::parse(text).unwrap()
    }

    fn stored(document: &Document) -> Vec<StoredMirror> {
        let mut spec = document.mirrors[0].clone();
        spec.tables[0].source = "public.orders".into();
        spec.tables[0].destination = "orders".into();
        vec![StoredMirror { spec, dropping: false }]
    }

    fn code(result: Answer<Vec<Step>>) -> Code {
        result.unwrap_err().error.code()
    }

    #[test]
    fn what_is_missing_is_created_peers_first() {
        let document = parsed(DOCUMENT);
        let steps = steps(&document, &[], &[], true).unwrap();
        assert!(matches!(&steps[..], [Step::CreatePeer(_), Step::CreatePeer(_), Step::CreateMirror(_)]));
    }

    #[test]
    fn a_second_time_nothing_is_to_do_patterns_included() {
        let document = parsed(DOCUMENT);
        let steps = steps(&document, &document.peers, &stored(&document), true).unwrap();
        let kept =
            [Step::KeepPeer("pg".into()), Step::KeepPeer("ch".into()), Step::KeepMirror("shop".into())];
        assert_eq!(steps, kept);
    }

    #[test]
    fn a_peer_is_updated_and_its_changes_are_named() {
        let document = parsed(DOCUMENT);
        let changed = parsed(&DOCUMENT.replace("host: h,", "host: other,"));
        let steps = steps(&changed, &document.peers, &stored(&document), false).unwrap();
        let Step::UpdatePeer(_, changes) = &steps[0] else { panic!("{steps:?}") };
        assert_eq!(changes[0].to_string(), "postgres.host h -> other");
    }

    #[test]
    fn a_peer_in_use_does_not_lead_to_another_database() {
        let document = parsed(DOCUMENT);
        let changed = parsed(&DOCUMENT.replace("database: d", "database: other"));
        let fault = steps(&changed, &document.peers, &stored(&document), false).unwrap_err();
        assert_eq!(fault.error.code(), Code::PeerInUse);
        assert!(fault.error.message().contains("shop"), "{}", fault.error);
        assert!(steps(&changed, &document.peers, &[], false).is_ok());
    }

    #[test]
    fn a_mirror_is_updated_and_what_cannot_change_is_refused_by_its_field() {
        let document = parsed(DOCUMENT);
        let with = |settings: &str| parsed(&format!("{DOCUMENT}  settings: {settings}\n"));
        let live =
            steps(&with("{flush: {max_rows: 7}}"), &document.peers, &stored(&document), false).unwrap();
        let Step::UpdateMirror(_, changes) = &live[2] else { panic!("{live:?}") };
        assert_eq!(changes[0].to_string(), "settings.flush.max_rows 100000 -> 7");
        let fixed = with("{on_unrepresentable: string}");
        let fault = steps(&fixed, &document.peers, &stored(&document), false).unwrap_err();
        assert_eq!(fault.error.code(), Code::InvalidArgument);
        assert!(fault.error.message().contains("settings.on_unrepresentable"), "{}", fault.error);
        let other = parsed(&DOCUMENT.replace("public.*", "public.items"));
        let steps = steps(&other, &document.peers, &stored(&document), false).unwrap();
        let Step::UpdateMirror(_, changes) = &steps[2] else { panic!("{steps:?}") };
        assert_eq!(changes.len(), 2, "{changes:?}");
    }

    #[test]
    fn what_the_document_does_not_hold_is_pruned_mirrors_first() {
        let document = parsed(DOCUMENT);
        let nothing = Document::default();
        let steps_ = steps(&nothing, &document.peers, &stored(&document), true).unwrap();
        let expected =
            [Step::DeleteMirror("shop".into()), Step::DeletePeer("pg".into()), Step::DeletePeer("ch".into())];
        assert_eq!(steps_, expected);
        assert_eq!(steps(&nothing, &document.peers, &stored(&document), false).unwrap(), []);
        let mirror_only = Document { peers: Vec::new(), mirrors: document.mirrors.clone() };
        assert_eq!(code(steps(&mirror_only, &document.peers, &[], true)), Code::PeerInUse);
    }

    #[test]
    fn peers_must_be_there_and_of_the_right_kind() {
        let missing = parsed(&DOCUMENT.replace("source: pg", "source: gp"));
        assert_eq!(code(steps(&missing, &[], &[], false)), Code::PeerNotFound);
        let swapped = parsed(&DOCUMENT.replace("source: pg", "source: ch"));
        assert_eq!(code(steps(&swapped, &[], &[], false)), Code::InvalidArgument);
        let document = parsed(DOCUMENT);
        let kinds = parsed(
            &DOCUMENT
                .replace("name: pg", "name: x")
                .replace("name: ch", "name: pg")
                .replace("name: x", "name: ch"),
        );
        assert_eq!(code(steps(&kinds, &document.peers, &[], false)), Code::PeerExists);
        let mut dropping = stored(&document);
        dropping[0].dropping = true;
        assert_eq!(code(steps(&document, &document.peers, &dropping, false)), Code::MirrorState);
    }
}
