//! What may be asked for and is not built yet: refused by name, never ignored. Each row goes when
//! the feature comes.
//!
//! Pure: no I/O.

use catalog::spec::{PeerConfig, PeerSpec};
use millrace_catalog as catalog;
use millrace_terms::{Code, Error};

/// A refusal: whether a peer asks for the feature, the setting's name, what works instead.
type Refusal = (fn(&PeerSpec) -> bool, &'static str, &'static str);

const PEER: &[Refusal] = &[(
    |peer| matches!(&peer.config, PeerConfig::Clickhouse(config) if !config.cluster.is_empty()),
    "cluster",
    "Leave it empty: tables are made on the server that the URL names.",
)];

/// Refuses what is not built for a peer.
pub(crate) fn check_peer(peer: &PeerSpec) -> Result<(), Error> {
    match PEER.iter().find(|(asks, _, _)| asks(peer)) {
        None => Ok(()),
        Some((_, setting, instead)) => {
            let message = format!("peer {}: {setting} is not built yet", peer.name);
            Err(Error::new(Code::Unimplemented, message)
                .with("field", *setting)
                .with("peer", &peer.name)
                .with_remedy(*instead))
        }
    }
}

#[cfg(test)]
mod tests {
    use catalog::spec::{ClickhousePeer, Secret};

    use super::*;

    #[test]
    fn what_is_built_passes_and_the_rest_is_refused_by_name() {
        let peer = |cluster: &str| PeerSpec {
            name: "warehouse".into(),
            config: PeerConfig::Clickhouse(ClickhousePeer {
                url: "http://localhost:8123".into(),
                user: "default".into(),
                password: Secret::default(),
                database: "shop".into(),
                cluster: cluster.into(),
                tls: Default::default(),
                max_inserts_per_second: 50,
                max_concurrent_inserts: 4,
            }),
        };
        assert_eq!(check_peer(&peer("")), Ok(()));
        let error = check_peer(&peer("main")).unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.message().contains("cluster"), "{error}");
    }
}
