//! Which role may call which method, and which methods change something.
//!
//! Pure: no I/O.

use Effect::{Changes, Reads};
use Object::{Mirror, Peer, Several, Table, Token};
use millrace_catalog::tokens::Role;
use millrace_catalog::tokens::Role::{Admin, Operator, Viewer};

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only looks.
    Reads,
    /// It makes, changes or removes something: it is written into the audit log.
    Changes(Object),
}

/// What a call changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// A peer.
    Peer,
    /// A mirror.
    Mirror,
    /// A table of a mirror.
    Table,
    /// A token.
    Token,
    /// Whatever the request says.
    Several,
}

/// Every method of the API. Checks of what is not stored yet let workers dial any address, so they are not
/// for viewers.
const METHODS: &[(&str, Role, Effect)] = &[
    ("GetPeer", Viewer, Reads),
    ("ListPeers", Viewer, Reads),
    ("ListSourceTables", Viewer, Reads),
    ("GetReplicationSlot", Viewer, Reads),
    ("ValidatePeer", Operator, Reads),
    ("CreatePeer", Operator, Changes(Peer)),
    ("UpdatePeer", Operator, Changes(Peer)),
    ("DeletePeer", Operator, Changes(Peer)),
    ("CleanupPeer", Operator, Changes(Peer)),
    ("GetMirror", Viewer, Reads),
    ("ListMirrors", Viewer, Reads),
    ("WatchMirror", Viewer, Reads),
    ("ListMirrorEvents", Viewer, Reads),
    ("ListBatches", Viewer, Reads),
    ("ValidateMirror", Operator, Reads),
    ("CreateMirror", Operator, Changes(Mirror)),
    ("UpdateMirror", Operator, Changes(Mirror)),
    ("DeleteMirror", Operator, Changes(Mirror)),
    ("PauseMirror", Operator, Changes(Mirror)),
    ("ResumeMirror", Operator, Changes(Mirror)),
    ("ResyncMirror", Operator, Changes(Mirror)),
    ("PauseTable", Operator, Changes(Table)),
    ("ResumeTable", Operator, Changes(Table)),
    ("CancelTableCopy", Operator, Changes(Table)),
    ("ResyncTable", Operator, Changes(Table)),
    ("DropTable", Operator, Changes(Table)),
    ("VerifyMirror", Operator, Changes(Mirror)),
    // It holds keys of users' rows, and their values if they were asked for.
    ("GetVerification", Operator, Reads),
    ("CancelVerification", Operator, Changes(Mirror)),
    ("CreateToken", Admin, Changes(Token)),
    ("ListTokens", Admin, Reads),
    ("RevokeToken", Admin, Changes(Token)),
    ("ListAuditEntries", Admin, Reads),
    ("GetVersion", Viewer, Reads),
    ("GetSystemStatus", Viewer, Reads),
    ("Doctor", Viewer, Reads),
    ("Export", Viewer, Reads),
    ("Apply", Operator, Changes(Several)),
];

/// The role that a method needs. One that the table does not hold is for admins: a forgotten row opens nothing.
pub(crate) fn needed(method: &str) -> Role {
    row(method).map_or(Admin, |(_, role, _)| *role)
}

/// What a method does.
pub(crate) fn effect(method: &str) -> Effect {
    row(method).map_or(Changes(Several), |(_, _, effect)| *effect)
}

fn row(method: &str) -> Option<&'static (&'static str, Role, Effect)> {
    METHODS.iter().find(|(name, _, _)| *name == method)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of all methods, without their services': they are all different.
    fn methods() -> BTreeSet<String> {
        let pool = prost_reflect::DescriptorPool::decode(millrace_proto::DESCRIPTORS).unwrap();
        let mut names = BTreeSet::new();
        for service in pool.services().filter(|service| service.package_name() == "millrace.v1") {
            for method in service.methods() {
                assert!(names.insert(method.name().to_owned()), "{} twice", method.name());
            }
        }
        names
    }

    #[test]
    fn every_method_has_a_role_and_every_role_a_method() {
        let listed: BTreeSet<String> = METHODS.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        assert_eq!(listed, methods());
        assert_eq!(listed.len(), METHODS.len(), "a method is listed twice");
    }

    #[test]
    fn viewers_change_nothing_and_what_is_not_listed_is_for_admins() {
        for (name, role, effect) in METHODS {
            assert!(*effect == Reads || *role > Viewer, "{name}");
        }
        assert_eq!((needed("Erase"), effect("Erase")), (Admin, Changes(Several)));
        assert!(Viewer < Operator && Operator < Admin);
    }
}
