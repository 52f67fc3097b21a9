//! Peers: the API's form to the catalog's, and back without the secrets.

use catalog::spec::{ClickhousePeer, PeerConfig, PeerSpec, PostgresPeer, Secret, Tls, TlsMode};
use millrace_catalog as catalog;
use millrace_proto::v1;

use crate::fault::{Answer, Violations, invalid};
use crate::validate;

/// Reads a peer; everything that is wrong with it is told at once.
pub(crate) fn to_spec(peer: Option<&v1::Peer>) -> Answer<PeerSpec> {
    let peer = peer.ok_or_else(|| invalid("peer", "must be set"))?;
    let config = match &peer.config {
        Some(v1::peer::Config::Postgres(config)) => PeerConfig::Postgres(postgres_spec(config)?),
        Some(v1::peer::Config::Clickhouse(config)) => PeerConfig::Clickhouse(clickhouse_spec(config)?),
        None => return Err(invalid("peer.config", "postgres or clickhouse must be set")),
    };
    let spec = PeerSpec { name: peer.name.clone(), config };
    let mut violations = Violations::default();
    validate::peer(&spec, "peer", &mut violations);
    violations.into_result()?;
    Ok(spec)
}

/// Puts the secrets that an update does not give into it. Where the address changes, they must be given:
/// a stored one is not sent to a server that its owner did not mean it for.
pub(crate) fn keep_secrets(peer: &mut v1::Peer, stored: &PeerSpec) -> Answer<()> {
    match (&mut peer.config, &stored.config) {
        (Some(v1::peer::Config::Postgres(config)), PeerConfig::Postgres(before)) => {
            let moves = config.host != before.host || or(config.port, 5432) != u32::from(before.port);
            keep(&mut config.password, &before.password, moves, "peer.postgres.password")?;
            if let Some(tls) = &mut config.tls {
                keep(&mut tls.key, &before.tls.key, false, "peer.postgres.tls.key")?;
            }
        }
        (Some(v1::peer::Config::Clickhouse(config)), PeerConfig::Clickhouse(before)) => {
            let moves = config.url != before.url;
            keep(&mut config.password, &before.password, moves, "peer.clickhouse.password")?;
            if let Some(tls) = &mut config.tls {
                keep(&mut tls.key, &before.tls.key, false, "peer.clickhouse.tls.key")?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// A key is never sent, so it may stay even if the server is another one.
fn keep(given: &mut Option<String>, stored: &Secret, moves: bool, field: &str) -> Answer<()> {
    if given.is_some() || stored.is_empty() {
        return Ok(());
    }
    if moves {
        return Err(invalid(field, "must be given again where the address changes"));
    }
    *given = Some(stored.expose().to_owned());
    Ok(())
}

fn postgres_spec(config: &v1::PostgresConfig) -> Answer<PostgresPeer> {
    let port = u16::try_from(or(config.port, 5432))
        .map_err(|_| invalid("peer.postgres.port", "must be 1 to 65535"))?;
    Ok(PostgresPeer {
        host: config.host.clone(),
        port,
        user: config.user.clone(),
        password: secret(&config.password),
        database: config.database.clone(),
        tls: tls_spec(config.tls.as_ref(), "peer.postgres.tls.mode")?,
    })
}

fn clickhouse_spec(config: &v1::ClickhouseConfig) -> Answer<ClickhousePeer> {
    let or_default = |text: &str| if text.is_empty() { "default".to_owned() } else { text.to_owned() };
    Ok(ClickhousePeer {
        url: config.url.clone(),
        user: or_default(&config.user),
        password: secret(&config.password),
        database: or_default(&config.database),
        cluster: config.cluster.clone(),
        tls: tls_spec(config.tls.as_ref(), "peer.clickhouse.tls.mode")?,
        max_inserts_per_second: or(config.max_inserts_per_second, 50),
        max_concurrent_inserts: or(config.max_concurrent_inserts, 4),
    })
}

fn tls_spec(tls: Option<&v1::TlsConfig>, field: &str) -> Answer<Tls> {
    use v1::tls_config::Mode;
    let Some(tls) = tls else {
        return Ok(Tls::default());
    };
    let mode =
        Mode::try_from(tls.mode).map_err(|_| invalid(field, "is not a value that this server knows"))?;
    Ok(Tls {
        mode: match mode {
            Mode::Unspecified | Mode::Prefer => TlsMode::Prefer,
            Mode::Disable => TlsMode::Disable,
            Mode::Require => TlsMode::Require,
            Mode::VerifyCa => TlsMode::VerifyCa,
            Mode::VerifyFull => TlsMode::VerifyFull,
        },
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: secret(&tls.key),
    })
}

fn secret(text: &Option<String>) -> Secret {
    Secret::new(text.clone().unwrap_or_default())
}

fn or(number: u32, default: u32) -> u32 {
    if number == 0 { default } else { number }
}

/// The API's form, without the secrets. Times and etag are added by the caller.
pub(crate) fn from_spec(spec: &PeerSpec) -> v1::Peer {
    let kind = match &spec.config {
        PeerConfig::Postgres(_) => v1::peer::Kind::Postgres,
        PeerConfig::Clickhouse(_) => v1::peer::Kind::Clickhouse,
    };
    let config = match &spec.config {
        PeerConfig::Postgres(config) => v1::peer::Config::Postgres(v1::PostgresConfig {
            host: config.host.clone(),
            port: u32::from(config.port),
            user: config.user.clone(),
            password: None,
            password_set: !config.password.is_empty(),
            database: config.database.clone(),
            tls: Some(tls_message(&config.tls)),
        }),
        PeerConfig::Clickhouse(config) => v1::peer::Config::Clickhouse(v1::ClickhouseConfig {
            url: config.url.clone(),
            user: config.user.clone(),
            password: None,
            password_set: !config.password.is_empty(),
            database: config.database.clone(),
            cluster: config.cluster.clone(),
            tls: Some(tls_message(&config.tls)),
            max_inserts_per_second: config.max_inserts_per_second,
            max_concurrent_inserts: config.max_concurrent_inserts,
        }),
    };
    v1::Peer { name: spec.name.clone(), config: Some(config), kind: kind.into(), ..Default::default() }
}

fn tls_message(tls: &Tls) -> v1::TlsConfig {
    use v1::tls_config::Mode;
    let mode = match tls.mode {
        TlsMode::Disable => Mode::Disable,
        TlsMode::Prefer => Mode::Prefer,
        TlsMode::Require => Mode::Require,
        TlsMode::VerifyCa => Mode::VerifyCa,
        TlsMode::VerifyFull => Mode::VerifyFull,
    };
    v1::TlsConfig {
        mode: mode.into(),
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: None,
        key_set: !tls.key.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres() -> v1::Peer {
        let config = v1::PostgresConfig {
            host: "127.0.0.1".into(),
            user: "replicator".into(),
            password: Some("hunter2".into()),
            database: "shop".into(),
            tls: Some(v1::TlsConfig { key: Some("hunter2".into()), cert: "c".into(), ..Default::default() }),
            ..Default::default()
        };
        v1::Peer {
            name: "shop-pg".into(),
            config: Some(v1::peer::Config::Postgres(config)),
            ..Default::default()
        }
    }

    #[test]
    fn defaults_are_filled_in_and_secrets_go_in_but_not_out() {
        let spec = to_spec(Some(&postgres())).unwrap();
        let PeerConfig::Postgres(config) = &spec.config else { panic!("not postgres") };
        assert_eq!((config.port, config.tls.mode), (5432, TlsMode::Prefer));
        assert_eq!(config.password.expose(), "hunter2");

        let json = serde_json::to_value(from_spec(&spec)).unwrap();
        assert_eq!(json["postgres"]["password_set"], true);
        assert_eq!(json["postgres"]["tls"]["mode"], "PREFER");
        assert!(!json.to_string().contains("hunter2"), "{json}");
    }

    #[test]
    fn what_goes_out_comes_back_but_for_the_secrets() {
        let clickhouse = v1::ClickhouseConfig { url: "http://ch:8123".into(), ..Default::default() };
        let peer = v1::Peer {
            name: "warehouse".into(),
            config: Some(v1::peer::Config::Clickhouse(clickhouse)),
            ..Default::default()
        };
        let spec = to_spec(Some(&peer)).unwrap();
        assert_eq!(to_spec(Some(&from_spec(&spec))), Ok(spec));
    }

    #[test]
    fn secrets_that_are_not_given_stay_but_are_not_sent_elsewhere() {
        let stored = to_spec(Some(&postgres())).unwrap();
        let update = |change: fn(&mut v1::PostgresConfig)| {
            let mut peer = from_spec(&stored);
            let Some(v1::peer::Config::Postgres(config)) = &mut peer.config else { panic!("{peer:?}") };
            change(config);
            keep_secrets(&mut peer, &stored)?;
            to_spec(Some(&peer))
        };
        assert_eq!(update(|_| {}), Ok(stored.clone()));
        let moved = update(|config| config.host = "10.0.0.2".into()).unwrap_err();
        assert_eq!(moved.field_names(), ["peer.postgres.password"]);
        let given = update(|config| {
            config.host = "10.0.0.2".into();
            config.password = Some("hunter3".into());
        });
        let PeerConfig::Postgres(config) = given.unwrap().config else { panic!("not postgres") };
        assert_eq!((config.password.expose(), config.tls.key.expose()), ("hunter3", "hunter2"));
        let removed = update(|config| config.password = Some(String::new())).unwrap();
        let PeerConfig::Postgres(config) = removed.config else { panic!("not postgres") };
        assert!(config.password.is_empty());
    }

    #[test]
    fn a_peer_without_config_or_with_an_unknown_enum_value_is_refused() {
        assert_eq!(to_spec(None).unwrap_err().field_names()[0], "peer");
        let none = v1::Peer { name: "a".into(), ..Default::default() };
        assert_eq!(to_spec(Some(&none)).unwrap_err().field_names()[0], "peer.config");
        let mut peer = postgres();
        if let Some(v1::peer::Config::Postgres(config)) = &mut peer.config {
            config.tls = Some(v1::TlsConfig { mode: 99, ..Default::default() });
        }
        assert_eq!(to_spec(Some(&peer)).unwrap_err().field_names()[0], "peer.postgres.tls.mode");
    }
}
