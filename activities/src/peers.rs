//! Peers as the catalog has them, as the data plane takes them. Pure: no I/O.

use std::sync::Arc;

use millrace_catalog::spec::{self, ClickhousePeer, PostgresPeer, Secret};
use millrace_replication::addresses::AddressRules;
use millrace_replication::clickhouse::{ClickhouseConfig, ClickhouseTls, InsertCompression};
use millrace_replication::postgres::{SourceConfig, Tls, TlsMode};
use millrace_terms::{Code, Error};
use secrecy::SecretString;

/// How to reach a source.
pub(crate) fn source(peer: &PostgresPeer, addresses: &Arc<AddressRules>) -> SourceConfig {
    SourceConfig {
        host: peer.host.clone(),
        port: peer.port,
        user: peer.user.clone(),
        password: secret(&peer.password),
        database: peer.database.clone(),
        tls: Tls {
            mode: match peer.tls.mode {
                spec::TlsMode::Disable => TlsMode::Disable,
                spec::TlsMode::Prefer => TlsMode::Prefer,
                spec::TlsMode::Require => TlsMode::Require,
                spec::TlsMode::VerifyCa => TlsMode::VerifyCa,
                spec::TlsMode::VerifyFull => TlsMode::VerifyFull,
            },
            ca: peer.tls.ca.clone(),
            cert: peer.tls.cert.clone(),
            key: secret(&peer.tls.key),
        },
        addresses: addresses.clone(),
    }
}

/// How to reach a destination.
pub(crate) fn destination(peer: &ClickhousePeer, addresses: &Arc<AddressRules>) -> ClickhouseConfig {
    ClickhouseConfig {
        url: peer.url.clone(),
        user: peer.user.clone(),
        password: secret(&peer.password),
        database: peer.database.clone(),
        tls: ClickhouseTls {
            ca: peer.tls.ca.clone(),
            cert: peer.tls.cert.clone(),
            key: secret(&peer.tls.key),
        },
        compression: InsertCompression::Auto,
        addresses: addresses.clone(),
    }
}

fn secret(secret: &Secret) -> SecretString {
    SecretString::from(secret.expose())
}

/// A peer of the other kind than its role asks for.
pub(crate) fn wrong_kind(peer: &str, role: &str, kind: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("peer {peer} cannot be a {role}: it is no {kind} peer"))
}
