//! `millrace peer update`: from arguments to a request that sets only what is given.
//!
//! I/O rim: reads the password's file or stdin.

use clap::Args;
use millrace_proto::v1::{ClickhouseConfig, Peer, PostgresConfig, UpdatePeerRequest, peer};
use millrace_terms::{Code, Error};

use super::create::{Password, TlsArguments};
use crate::client::request_id;

/// Arguments of `millrace peer update`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace peer update shop-pg --password-stdin < secret
  millrace peer update shop-pg --host db2.internal --password-file /run/secrets/shop
  millrace peer update warehouse --url https://ch2.internal:8443 --password-stdin < secret

What is not given stays, but for the password where the address changes: it is not sent to a server that it \
was not meant for. Mirrors go on with the new settings.")]
pub struct UpdateArguments {
    /// Name of the peer
    pub name: String,
    /// PostgreSQL: host name or address
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    host: Option<String>,
    /// PostgreSQL: port
    #[arg(long, value_name = "NUMBER", conflicts_with = "url")]
    port: Option<u16>,
    /// ClickHouse's HTTP interface: http://host:8123 or https://host:8443
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// User
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    password: Password,
    #[command(flatten)]
    tls: TlsArguments,
    /// ClickHouse: INSERTs per second at most, all tables together
    #[arg(long, value_name = "NUMBER", conflicts_with = "host")]
    max_inserts_per_second: Option<u32>,
    /// ClickHouse: INSERTs at once at most, all tables together
    #[arg(long, value_name = "NUMBER", conflicts_with = "host")]
    max_concurrent_inserts: Option<u32>,
    /// Only check; change nothing
    #[arg(long)]
    validate_only: bool,
    /// Change the peer without connecting to it
    #[arg(long, conflicts_with = "validate_only")]
    skip_validation: bool,
}

impl UpdateArguments {
    /// The request that the arguments stand for, to a peer of the kind of `stored`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if an argument is not for that kind, or the password's source cannot be read.
    pub fn request(self, stored: &Peer) -> Result<UpdatePeerRequest, Error> {
        let config = match stored.config {
            Some(peer::Config::Clickhouse(_)) => self.clickhouse()?,
            _ => self.postgres()?,
        };
        Ok(UpdatePeerRequest {
            peer: Some(Peer { name: self.name, config: Some(config), ..Peer::default() }),
            update_mask: None,
            request_id: request_id(),
            validate_only: self.validate_only,
            skip_validation: self.skip_validation,
        })
    }

    fn postgres(&self) -> Result<peer::Config, Error> {
        let limits = self.max_inserts_per_second.or(self.max_concurrent_inserts);
        if self.url.is_some() || limits.is_some() {
            return Err(self.other_kind("PostgreSQL server: --url and limits of inserts are for ClickHouse"));
        }
        let mut config = PostgresConfig {
            host: self.host.clone().unwrap_or_default(),
            port: self.port.map(u32::from).unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
            password: self.password.resolve()?,
            ..PostgresConfig::default()
        };
        self.tls.apply(&mut config.tls);
        Ok(peer::Config::Postgres(config))
    }

    fn clickhouse(&self) -> Result<peer::Config, Error> {
        if self.host.is_some() || self.port.is_some() {
            return Err(self.other_kind("ClickHouse server: give its --url"));
        }
        let mut config = ClickhouseConfig {
            url: self.url.clone().unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
            password: self.password.resolve()?,
            max_inserts_per_second: self.max_inserts_per_second.unwrap_or_default(),
            max_concurrent_inserts: self.max_concurrent_inserts.unwrap_or_default(),
            ..ClickhouseConfig::default()
        };
        self.tls.apply(&mut config.tls);
        Ok(peer::Config::Clickhouse(config))
    }

    fn other_kind(&self, what: &str) -> Error {
        Error::new(Code::InvalidArgument, format!("peer {} is a {what}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: UpdateArguments,
    }

    fn request(arguments: &[&str], config: peer::Config) -> Result<UpdatePeerRequest, Error> {
        let line = Line::try_parse_from(["update", "p"].iter().chain(arguments)).unwrap();
        line.update.request(&Peer { config: Some(config), ..Peer::default() })
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let stored = || peer::Config::Postgres(PostgresConfig::default());
        let sent = request(&["--host", "db2"], stored()).unwrap().peer.unwrap();
        let host = PostgresConfig { host: "db2".into(), ..PostgresConfig::default() };
        assert_eq!(sent.config, Some(peer::Config::Postgres(host)));
        let wrong = request(&["--url", "http://ch:8123"], stored()).unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument);
    }
}
