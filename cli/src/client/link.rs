//! The connection to the server: where it is, as whom we call, and whom we trust to be it.
//!
//! I/O rim.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use millrace_terms::{Code, Error};
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::settings;

/// Time to connect: a server on the other side of the world answers in less.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Silence on the connection after which the server is asked whether it lives: a watch may be silent
/// for hours, and a dead peer says nothing either.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection whose every request bears the token.
pub type Link = InterceptedService<Channel, Bearer>;

/// How to reach the server, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct LinkArguments {
    /// URL of the server's gRPC; https:// for TLS
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MILLRACE_ADDRESS",
        default_value = "http://127.0.0.1:8112"
    )]
    pub address: String,
    /// API token; better in the variable or a file
    #[arg(long, global = true, value_name = "TOKEN", env = "MILLRACE_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// File that holds the API token
    #[arg(long, global = true, value_name = "PATH", env = "MILLRACE_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// File of authorities (PEM) to trust instead of the system's
    #[arg(long, global = true, value_name = "PATH", env = "MILLRACE_SERVER_CA")]
    pub server_ca: Option<PathBuf>,
    /// File of the client certificate (PEM), for a server that asks for one
    #[arg(long, global = true, value_name = "PATH", env = "MILLRACE_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// File of the client certificate's key (PEM)
    #[arg(long, global = true, value_name = "PATH", env = "MILLRACE_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

impl LinkArguments {
    /// A server that asks for no token.
    pub fn open(address: &str) -> Self {
        Self { address: address.to_owned(), ..Self::default() }
    }

    /// Connects.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the address is no URL or a file cannot be read; SERVER_UNREACHABLE if nothing
    /// answers there, or if it is not whom we trust.
    pub(super) async fn connect(&self) -> Result<Link, Error> {
        let address = &self.address;
        let malformed = |error: &tonic::transport::Error| {
            Error::new(Code::InvalidArgument, format!("--address {address}: {error}"))
                .with_remedy("Give a URL such as http://127.0.0.1:8112 or https://millrace.example:8112.")
        };
        let mut endpoint = Endpoint::from_shared(address.clone()).map_err(|error| malformed(&error))?;
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(self.tls()?).map_err(|error| malformed(&error))?;
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| unreachable(address, &error))?;
        let token = settings::optional(self.token.as_ref(), self.token_file.as_deref())?;
        Ok(InterceptedService::new(channel, Bearer::new(token.as_ref())?))
    }

    fn tls(&self) -> Result<ClientTlsConfig, Error> {
        let mut tls = match &self.server_ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.client_cert, &self.client_key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(tls)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        Error::new(Code::InvalidArgument, format!("{}: {error}", path.display()))
            .with_remedy("Check the path and that this user may read the file.")
            .with("path", path.display().to_string())
    })
}

/// The innermost cause says what happened; the layers above it say "transport error".
fn unreachable(address: &str, error: &tonic::transport::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = if error.source().is_none() { "no answer".to_owned() } else { cause.to_string() };
    Error::new(Code::ServerUnreachable, format!("the server at {address} is unreachable: {cause}"))
        .with("address", address)
}

/// Puts the token into every request.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: Option<&SecretString>) -> Result<Self, Error> {
        let value = token.map(|token| format!("Bearer {}", token.expose_secret()).parse());
        let mut value: Option<MetadataValue<Ascii>> = value.transpose().map_err(|_| {
            Error::new(Code::InvalidArgument, "--token holds characters that a header cannot hold")
        })?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(Self(value))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
