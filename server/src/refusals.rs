//! What may be asked for and is not built yet: refused by name, never ignored. Each row goes when
//! the feature comes.
//!
//! Pure: no I/O.

use catalog::spec::{MirrorSpec, PeerConfig, PeerSpec};
use millrace_catalog as catalog;
use millrace_terms::{Code, Error};

/// A refusal: whether a mirror asks for the feature, the setting's name, what works instead.
type Refusal<T> = (fn(&T) -> bool, &'static str, &'static str);

const PEER: &[Refusal<PeerSpec>] = &[(
    |peer| matches!(&peer.config, PeerConfig::Clickhouse(config) if !config.cluster.is_empty()),
    "cluster",
    "Leave it empty: tables are made on the server that the URL names.",
)];

const MIRROR: &[Refusal<MirrorSpec>] =
    &[(|m| m.settings.streams > 1, "settings.streams", "Use 1, or several mirrors.")];

/// Refuses what is not built for a peer.
pub(crate) fn check_peer(peer: &PeerSpec) -> Result<(), Error> {
    check(peer, PEER, "peer", &peer.name)
}

/// Refuses what is not built for a mirror.
pub(crate) fn check_mirror(mirror: &MirrorSpec) -> Result<(), Error> {
    check(mirror, MIRROR, "mirror", &mirror.name)
}

fn check<T>(spec: &T, table: &[Refusal<T>], kind: &str, name: &str) -> Result<(), Error> {
    match table.iter().find(|(asks, _, _)| asks(spec)) {
        None => Ok(()),
        Some((_, setting, instead)) => {
            Err(Error::new(Code::Unimplemented, format!("{kind} {name}: {setting} is not built yet"))
                .with("field", *setting)
                .with(kind, name)
                .with_remedy(*instead))
        }
    }
}

#[cfg(test)]
mod tests {
    use catalog::spec::{Mode, Settings, TableSpec};

    use super::*;

    fn mirror() -> MirrorSpec {
        MirrorSpec {
            name: "shop".into(),
            source: "pg".into(),
            destination: "ch".into(),
            mode: Mode::default(),
            tables: vec![TableSpec::new("public.orders")],
            settings: Settings::default(),
        }
    }

    #[test]
    fn defaults_are_built_and_the_rest_is_refused_by_name() {
        assert_eq!(check_mirror(&mirror()), Ok(()));
        type Edit = (fn(&mut MirrorSpec), &'static str);
        let edits: [Edit; 1] = [(|m| m.settings.streams = 2, "settings.streams")];
        for (edit, setting) in edits {
            let mut asked = mirror();
            edit(&mut asked);
            let error = check_mirror(&asked).unwrap_err();
            assert_eq!(error.code(), Code::Unimplemented);
            assert!(error.message().contains(setting), "{error}");
        }
    }
}
