use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kind of a failure. It decides the gRPC status, the HTTP status and the CLI's exit code
/// (`google.rpc.Code`; AIP-193).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request is wrong in itself.
    InvalidArgument,
    /// The named object does not exist.
    NotFound,
    /// An object of that name exists already, with another content.
    AlreadyExists,
    /// The request is right, but the system is not in the state it needs.
    FailedPrecondition,
    /// Somebody else changed the object meanwhile.
    Aborted,
    /// Something we depend on cannot be reached right now.
    Unavailable,
    /// Something we depend on did not answer in time.
    DeadlineExceeded,
    /// The caller's credentials, or ours to a peer, were refused.
    Unauthenticated,
    /// The caller, or we to a peer, have not the right to do this.
    PermissionDenied,
    /// A limit is reached.
    ResourceExhausted,
    /// Not built.
    Unimplemented,
    /// Data that must be there is gone.
    DataLoss,
    /// A defect of ours.
    Internal,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $class:ident, $retry:ident, $remedy:literal;)+) => {
        /// A stable code. The text form is the name in upper snake case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Code {
            /// Every code, in the order of the registry.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The stable text form, such as `SOURCE_UNREACHABLE`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name,)+ }
            }

            /// The kind of failure.
            pub const fn class(self) -> Class {
                match self { $(Code::$variant => Class::$class,)+ }
            }

            /// Whether the same call may succeed later with nothing changed by a person. Unknown
            /// failures are retried: a replicator that gives up is worse than one that waits.
            pub const fn is_retryable(self) -> bool {
                match self { $(Code::$variant => codes!(@retry $retry),)+ }
            }

            /// What a person should do.
            pub const fn remedy(self) -> &'static str {
                match self { $(Code::$variant => $remedy,)+ }
            }

            /// What happened, in one line: the code's documentation.
            pub const fn summary(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }

        impl FromStr for Code {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($name => Ok(Code::$variant),)+ _ => Err(()) }
            }
        }
    };
    (@retry retry) => { true };
    (@retry stop) => { false };
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

codes! {
    // Requests.
    /// A field of the request or of the file is missing, malformed or out of range.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, stop,
        "Correct the field that the message names.";
    /// No peer of that name.
    PeerNotFound = "PEER_NOT_FOUND", NotFound, stop,
        "See `millrace peer list` for the names.";
    /// A peer of that name exists already.
    PeerExists = "PEER_EXISTS", AlreadyExists, stop,
        "Choose another name, or pass allow_existing if it is the same peer.";
    /// The peer is used by a mirror.
    PeerInUse = "PEER_IN_USE", FailedPrecondition, stop,
        "Drop the mirrors that the message names first.";
    /// No mirror of that name.
    MirrorNotFound = "MIRROR_NOT_FOUND", NotFound, stop,
        "See `millrace mirror list` for the names.";
    /// A mirror of that name exists already.
    MirrorExists = "MIRROR_EXISTS", AlreadyExists, stop,
        "Choose another name, or pass allow_existing if it is the same mirror.";
    /// The mirror's state does not allow this.
    MirrorState = "MIRROR_STATE", FailedPrecondition, stop,
        "See `millrace mirror get NAME` for the state, and do what leads out of it first.";
    /// No table of that name in the mirror.
    TableNotFound = "TABLE_NOT_FOUND", NotFound, stop,
        "See `millrace mirror get NAME` for the tables.";
    /// The mirror has no verification of that id.
    VerificationNotFound = "VERIFICATION_NOT_FOUND", NotFound, stop,
        "Begin one with `millrace mirror verify NAME`; it is kept for a week.";
    /// Somebody else changed the object meanwhile.
    EditConflict = "EDIT_CONFLICT", Aborted, stop,
        "Read the object again and repeat the change.";
    /// Not built yet.
    Unimplemented = "UNIMPLEMENTED", Unimplemented, stop,
        "Leave the setting out; the message names it.";

    // Access.
    /// The caller shows no token, or one that is not known, expired or revoked.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, stop,
        "Pass a token by --token, MILLRACE_TOKEN or the header `authorization: Bearer TOKEN`; an admin makes one with `millrace token create`.";
    /// The caller's role does not allow this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied, stop,
        "Use a token of the role that the message names; an admin makes one with `millrace token create`.";
    /// No token of that name.
    TokenNotFound = "TOKEN_NOT_FOUND", NotFound, stop,
        "See `millrace token list` for the names.";
    /// A token of that name exists already.
    TokenExists = "TOKEN_EXISTS", AlreadyExists, stop,
        "Choose another name, or revoke the other token first.";

    /// The caller asks too often, or too much at once.
    RateLimited = "RATE_LIMITED", ResourceExhausted, retry,
        "Repeat the request after the time that the answer names, and ask more rarely; MILLRACE_REQUESTS_PER_SECOND of the server is the limit.";
    /// The rules of the workers deny the address of a peer.
    AddressDenied = "ADDRESS_DENIED", PermissionDenied, stop,
        "Correct the peer's host; if a peer may be there, say so with MILLRACE_PEER_ALLOW and MILLRACE_PEER_DENY of the workers.";

    // The source.
    /// The source does not accept connections.
    SourceUnreachable = "SOURCE_UNREACHABLE", Unavailable, retry,
        "Check host, port and firewall from the workers' network: the workers dial the source.";
    /// The source refused the user or the password.
    SourceAuth = "SOURCE_AUTH", Unauthenticated, stop,
        "Correct user or password of the peer, and the source's pg_hba.conf for the workers' addresses.";
    /// The source's TLS is not what the peer asks for.
    SourceTls = "SOURCE_TLS", Unavailable, stop,
        "Check the peer's tls.mode, tls.ca and the server's certificate.";
    /// The source refused a right.
    SourcePermission = "SOURCE_PERMISSION", PermissionDenied, stop,
        "Grant what the message names to the peer's user.";
    /// The source's release is not supported.
    SourceVersion = "SOURCE_VERSION", FailedPrecondition, stop,
        "Use PostgreSQL 14 to 18.";
    /// The source is a standby, or a failover is under way.
    SourceInRecovery = "SOURCE_IN_RECOVERY", FailedPrecondition, retry,
        "Point the peer at the primary. During a failover nothing is to be done: it is tried again by itself.";
    /// The source does not write logical WAL.
    SourceWalLevel = "SOURCE_WAL_LEVEL", FailedPrecondition, stop,
        "Run `ALTER SYSTEM SET wal_level = logical;` and restart the source.";
    /// The source has no replication slot or sender left.
    SourceSlotsExhausted = "SOURCE_SLOTS_EXHAUSTED", ResourceExhausted, stop,
        "Raise max_replication_slots and max_wal_senders and restart the source, or drop slots that nobody uses.";
    /// The source table does not exist.
    SourceTableMissing = "SOURCE_TABLE_MISSING", FailedPrecondition, stop,
        "Correct the table's name, or create the table.";
    /// The table has neither a primary key nor a usable replica identity.
    TableWithoutKey = "TABLE_WITHOUT_KEY", FailedPrecondition, stop,
        "Add a primary key, or a replica identity: ALTER TABLE ... REPLICA IDENTITY USING INDEX ... (a unique, immediate, complete index over NOT NULL columns).";
    /// A column's type or a table's form cannot be replicated.
    TableUnsupported = "TABLE_UNSUPPORTED", FailedPrecondition, stop,
        "Exclude what the message names.";
    /// A table changed its columns, its key or its identity in a way that the destination cannot follow.
    TableSchemaChanged = "TABLE_SCHEMA_CHANGED", FailedPrecondition, stop,
        "Resync the table: it is copied again into a rebuilt table.";
    /// The source's publication is missing or does not hold the table.
    PublicationMissing = "PUBLICATION_MISSING", FailedPrecondition, stop,
        "Create the publication or add the table to it, then resume the mirror.";
    /// The mirror's replication slot is gone or invalidated.
    SlotLost = "SLOT_LOST", DataLoss, stop,
        "Resume the mirror: it makes a new slot and copies every table again, because changes since the last position are gone. To have that done without asking, set on_slot_lost: resync.";
    /// The source has no replication slot of that name.
    SlotNotFound = "SLOT_NOT_FOUND", NotFound, stop,
        "See the names by `SELECT slot_name FROM pg_replication_slots;` on the source; `millrace mirror get NAME` shows those of a mirror.";
    /// The mirror's replication slot is held by a session that is not ours.
    SlotInUse = "SLOT_IN_USE", FailedPrecondition, retry,
        "End the session that the message names, or give the mirror another slot.";
    /// A slot or publication of that name exists and is not ours to use.
    SlotExists = "SLOT_EXISTS", FailedPrecondition, stop,
        "Drop the slot or publication that the message names if nobody uses it.";
    /// Decoding fails again and again at one position of the log.
    DecodingStuck = "DECODING_STUCK", DataLoss, stop,
        "PostgreSQL cannot decode its own log at this position. Resume the mirror: it makes a new slot behind it and copies every table again. To have that done without asking, set on_slot_lost: resync.";
    /// The source is not the cluster that the mirror was made for, or it went back in time.
    SourceTimeline = "SOURCE_TIMELINE", FailedPrecondition, stop,
        "Make sure that the peer leads to the primary; then resume the mirror: it copies every table again, because changes that no longer exist may have been copied. To have that done without asking, set on_slot_lost: resync.";
    /// The source answered a statement with an error.
    SourceError = "SOURCE_ERROR", Unavailable, retry,
        "The message holds the server's own words; it is tried again by itself.";
    /// Sessions on the source hold back a copy, or a new replication slot.
    SourceBlocked = "SOURCE_BLOCKED", Unavailable, retry,
        "End the transaction that the message names, or wait for its end.";

    // Values.
    /// A value cannot be held by the destination's type.
    ValueUnrepresentable = "VALUE_UNREPRESENTABLE", FailedPrecondition, stop,
        "Set on_unrepresentable to null or string for the mirror, choose a wider type for the column, or correct the row; then resync the table.";
    /// The source sent bytes that its protocol does not allow.
    ProtocolViolation = "PROTOCOL_VIOLATION", Internal, stop,
        "This is a defect of Millrace or of the server: please report it with the message.";

    // The destination.
    /// The destination does not accept connections.
    DestinationUnreachable = "DESTINATION_UNREACHABLE", Unavailable, retry,
        "Check the URL and the firewall from the workers' network: the workers dial ClickHouse.";
    /// The destination's TLS is not what the peer asks for, or the other way round.
    DestinationTls = "DESTINATION_TLS", Unavailable, retry,
        "Check that the URL's host stands in the server's certificate, that tls.ca holds the authority that signed it, and tls.cert and tls.key if the server asks for a client's.";
    /// The destination refused the user or the password.
    DestinationAuth = "DESTINATION_AUTH", Unauthenticated, stop,
        "Correct user or password of the peer.";
    /// The destination refused a right.
    DestinationPermission = "DESTINATION_PERMISSION", PermissionDenied, stop,
        "Grant what the message names to the peer's user.";
    /// The destination's release is not supported.
    DestinationVersion = "DESTINATION_VERSION", FailedPrecondition, stop,
        "Use ClickHouse 24.8 or later.";
    /// A destination table exists already and cannot take the rows.
    DestinationTableExists = "DESTINATION_TABLE_EXISTS", FailedPrecondition, stop,
        "Drop or rename the destination table, or choose another destination.";
    /// A destination table is gone or does not have the columns that the mirror made.
    DestinationTableChanged = "DESTINATION_TABLE_CHANGED", FailedPrecondition, stop,
        "Undo the change that the message names, or resync the table into a rebuilt one.";
    /// The destination is overloaded: too many parts, queries or too little memory.
    DestinationOverloaded = "DESTINATION_OVERLOADED", ResourceExhausted, retry,
        "It is tried again, slower; look at the destination's merges, memory and max_concurrent_queries.";
    /// The destination answered a statement with an error.
    DestinationError = "DESTINATION_ERROR", Unavailable, retry,
        "The message holds the server's own words; it is tried again by itself.";

    // Our own parts.
    /// The catalog does not accept connections.
    CatalogUnreachable = "CATALOG_UNREACHABLE", Unavailable, retry,
        "Check MILLRACE_CATALOG_URL and that the catalog's PostgreSQL runs.";
    /// The catalog's schema is older or newer than this release needs.
    CatalogVersion = "CATALOG_VERSION", FailedPrecondition, stop,
        "Run `millrace migrate` of the newest release in use.";
    /// The catalog answered a statement with an error.
    CatalogError = "CATALOG_ERROR", Unavailable, retry,
        "The message holds the server's own words; it is tried again by itself.";
    /// Two clocks differ by more than a lag in seconds may be wrong.
    ClockSkew = "CLOCK_SKEW", FailedPrecondition, stop,
        "Synchronise the clocks of both machines (NTP). No data is ordered by them; times that people see are wrong.";
    /// Something that is needed in Temporal is not there, or is switched off.
    TemporalSetup = "TEMPORAL_SETUP", FailedPrecondition, stop,
        "Do what the message says; a restart of a worker makes again what is missing.";
    /// A secret cannot be opened with the keys given.
    SecretKeyMissing = "SECRET_KEY_MISSING", FailedPrecondition, stop,
        "Put the key that the message names into MILLRACE_SECRET_KEYS.";
    /// Temporal does not accept connections.
    TemporalUnreachable = "TEMPORAL_UNREACHABLE", Unavailable, retry,
        "Check MILLRACE_TEMPORAL_ADDRESS and that the Temporal cluster runs.";
    /// No worker took up the work in time.
    NoWorkers = "NO_WORKERS", Unavailable, retry,
        "Start a worker (`millrace worker`) on the same Temporal namespace and queue prefix.";
    /// Another attempt has taken over.
    LeaseLost = "LEASE_LOST", Aborted, stop,
        "Nothing: the newer attempt goes on.";
    /// A worker is shutting down or the work was cancelled.
    Cancelled = "CANCELLED", Unavailable, retry,
        "Nothing: another worker goes on.";
    /// The server has as many requests at work as it takes.
    ServerBusy = "SERVER_BUSY", ResourceExhausted, retry,
        "Repeat the request in a moment; if it goes on, look at what the clients do, or start another server.";
    /// The request was not answered in time; what it began goes on.
    RequestTimeout = "REQUEST_TIMEOUT", DeadlineExceeded, retry,
        "Look at the object, then repeat the request with the same request_id.";
    /// The server cannot be reached by the client.
    ServerUnreachable = "SERVER_UNREACHABLE", Unavailable, retry,
        "Start `millrace server` or `millrace dev`, or say where it is by --address, MILLRACE_ADDRESS or a context (`millrace context list`).";
    /// Something the embedded stack needs is missing on this machine.
    EmbeddedUnavailable = "EMBEDDED_UNAVAILABLE", Unavailable, stop,
        "Install what the message names.";
    /// A defect of ours.
    Internal = "INTERNAL", Internal, retry,
        "This is a defect of Millrace: please report it with the message.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_upper_snake_case_unique_and_has_a_remedy_that_is_a_sentence() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            let name = code.as_str();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert!(code.remedy().ends_with('.'), "{name}: {}", code.remedy());
            assert!(code.summary().ends_with('.'), "{name}: {}", code.summary());
            assert_eq!(name.parse(), Ok(*code));
        }
    }
}
