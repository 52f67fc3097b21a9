//! `millrace peer create`: from arguments to a request.
//!
//! I/O rim: reads the password's file or stdin.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use millrace_proto::v1::{self, CreatePeerRequest, Peer, TlsConfig, peer};
use millrace_terms::{Code, Error};
use secrecy::{ExposeSecret, SecretString};

use super::address;
use crate::client::request_id;
use crate::settings::read_secret_file;

/// Bytes of a password on stdin at most.
const STDIN_BYTES_MAX: u64 = 64 * 1024;

/// Arguments of `millrace peer create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  MILLRACE_PEER_PASSWORD=... millrace peer create shop-pg --postgres 'host=db.internal user=millrace dbname=shop' --tls-mode require
  millrace peer create shop-pg --postgres postgresql://millrace@db.internal/shop --password-file /run/secrets/shop
  millrace peer create warehouse --clickhouse https://ch.internal:8443 --user millrace --database shop --password-stdin < secret

The workers dial the address, so it is one that their network knows.")]
#[group(id = "kind", required = true, multiple = false, args = ["postgres", "clickhouse"])]
pub struct CreateArguments {
    /// Name: a letter, then letters, digits and dashes, all lower case
    name: String,
    /// PostgreSQL: postgresql://user@host:5432/database, or 'host=... user=... dbname=...'
    #[arg(long, value_name = "ADDRESS")]
    postgres: Option<String>,
    /// ClickHouse's HTTP interface: http://host:8123 or https://host:8443
    #[arg(long, value_name = "URL")]
    clickhouse: Option<String>,
    /// User, if the address does not name one
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Database, if the address does not name one; in ClickHouse it is made if it does not exist
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    #[command(flatten)]
    password: Password,
    #[command(flatten)]
    tls: TlsArguments,
    /// ClickHouse: INSERTs per second at most, all tables together [default: 50]
    #[arg(long, value_name = "NUMBER", conflicts_with = "postgres")]
    max_inserts_per_second: Option<u32>,
    /// ClickHouse: INSERTs at once at most, all tables together [default: 4]
    #[arg(long, value_name = "NUMBER", conflicts_with = "postgres")]
    max_concurrent_inserts: Option<u32>,
    /// Only check; store nothing
    #[arg(long)]
    validate_only: bool,
    /// The same peer may exist already
    #[arg(long)]
    allow_existing: bool,
    /// Store the peer without connecting to it
    #[arg(long, conflicts_with = "validate_only")]
    skip_validation: bool,
}

/// The password: never needed on the command line, where other users of the machine see it.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Password {
    /// Password; better in the variable, a file or on stdin
    #[arg(long, value_name = "TEXT", env = "MILLRACE_PEER_PASSWORD", hide_env_values = true)]
    password: Option<SecretString>,
    /// File that holds the password
    #[arg(long, value_name = "PATH", env = "MILLRACE_PEER_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
}

/// Transport security towards the peer.
#[derive(Debug, Args)]
pub(super) struct TlsArguments {
    /// When TLS is used and what is verified, as libpq's sslmode [default: prefer]
    #[arg(long, value_name = "MODE")]
    tls_mode: Option<TlsMode>,
    /// Authorities to trust: PEM file on the workers' machines
    #[arg(long, value_name = "PATH")]
    tls_ca: Option<String>,
    /// Client certificate: PEM file on the workers' machines
    #[arg(long, value_name = "PATH")]
    tls_cert: Option<String>,
    /// Key of the client certificate: PEM file on the workers' machines
    #[arg(long, value_name = "PATH")]
    tls_key: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TlsMode {
    /// Never
    Disable,
    /// If the server offers it; nothing is verified
    Prefer,
    /// Always; nothing is verified
    Require,
    /// Always; the certificate is verified, the host name is not
    VerifyCa,
    /// Always; certificate and host name are verified
    VerifyFull,
}

impl CreateArguments {
    /// The request that the arguments stand for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if an address or the password's source cannot be read.
    pub fn request(self) -> Result<CreatePeerRequest, Error> {
        let config = match (&self.postgres, &self.clickhouse) {
            (Some(text), _) => self.postgres(text)?,
            (None, Some(text)) => self.clickhouse(text)?,
            (None, None) => {
                return Err(Error::new(Code::InvalidArgument, "--postgres or --clickhouse is missing"));
            }
        };
        let peer = Peer { name: self.name, config: Some(config), ..Peer::default() };
        Ok(CreatePeerRequest {
            peer: Some(peer),
            request_id: request_id(),
            validate_only: self.validate_only,
            allow_existing: self.allow_existing,
            skip_validation: self.skip_validation,
        })
    }

    fn postgres(&self, text: &str) -> Result<peer::Config, Error> {
        // The user may come by its own flag, which the address must not be refused for.
        let text = match &self.user {
            Some(user) if !text.contains("://") => format!("{text} user={}", quote(user)),
            _ => text.to_owned(),
        };
        let mut config = address::postgres(&text)?;
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        if let Some(database) = &self.database {
            config.database.clone_from(database);
        }
        config.password = self.password.resolve()?.or(config.password);
        self.tls.apply(&mut config.tls);
        Ok(peer::Config::Postgres(config))
    }

    fn clickhouse(&self, text: &str) -> Result<peer::Config, Error> {
        let mut config = address::clickhouse(text)?;
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        if let Some(database) = &self.database {
            config.database.clone_from(database);
        }
        config.password = self.password.resolve()?.or(config.password);
        config.max_inserts_per_second = self.max_inserts_per_second.unwrap_or_default();
        config.max_concurrent_inserts = self.max_concurrent_inserts.unwrap_or_default();
        self.tls.apply(&mut config.tls);
        Ok(peer::Config::Clickhouse(config))
    }
}

/// A value as libpq's pairs take it.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

impl Password {
    /// The password, if one is given.
    pub(super) fn resolve(&self) -> Result<Option<String>, Error> {
        if let Some(password) = &self.password {
            return Ok(Some(password.expose_secret().to_owned()));
        }
        if let Some(path) = &self.password_file {
            return Ok(Some(read_secret_file(path)?.expose_secret().to_owned()));
        }
        if !self.password_stdin {
            return Ok(None);
        }
        let mut text = String::new();
        let read = std::io::stdin().lock().take(STDIN_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| Error::new(Code::InvalidArgument, format!("--password-stdin: {error}")))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl TlsArguments {
    /// Sets what is given.
    pub(super) fn apply(&self, config: &mut Option<TlsConfig>) {
        let mode = self.tls_mode.map(|mode| match mode {
            TlsMode::Disable => v1::tls_config::Mode::Disable,
            TlsMode::Prefer => v1::tls_config::Mode::Prefer,
            TlsMode::Require => v1::tls_config::Mode::Require,
            TlsMode::VerifyCa => v1::tls_config::Mode::VerifyCa,
            TlsMode::VerifyFull => v1::tls_config::Mode::VerifyFull,
        });
        if mode.is_none() && self.tls_ca.is_none() && self.tls_cert.is_none() && self.tls_key.is_none() {
            return;
        }
        let config = config.get_or_insert_default();
        if let Some(mode) = mode {
            config.set_mode(mode);
        }
        if let Some(ca) = &self.tls_ca {
            config.ca.clone_from(ca);
        }
        if let Some(cert) = &self.tls_cert {
            config.cert.clone_from(cert);
        }
        if let Some(key) = &self.tls_key {
            config.key = Some(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        create: CreateArguments,
    }

    fn request(arguments: &[&str]) -> Result<CreatePeerRequest, Error> {
        let only = Only::try_parse_from(std::iter::once(&"create").chain(arguments)).unwrap();
        only.create.request()
    }

    #[test]
    fn flags_complete_and_outrank_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, "hunter2\n").unwrap();
        let file = file.to_str().unwrap();
        let arguments =
            ["p", "--postgres", "host=h", "--user", "it's", "--password-file", file, "--tls-mode", "require"];
        let made = request(&arguments).unwrap();
        let Some(peer::Config::Postgres(config)) = made.peer.unwrap().config else { panic!() };
        assert_eq!((config.user.as_str(), config.password.as_deref()), ("it's", Some("hunter2")));
        assert_eq!(config.tls.unwrap().mode().as_str_name(), "REQUIRE");

        let made = request(&["c", "--clickhouse", "http://a:b@h/d", "--database", "e"]).unwrap();
        let Some(peer::Config::Clickhouse(config)) = made.peer.unwrap().config else { panic!() };
        assert_eq!((config.user.as_str(), config.database.as_str()), ("a", "e"));
        assert_eq!(config.password.as_deref(), Some("b"));
    }
}
