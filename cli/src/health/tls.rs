//! TLS of the probe: whom it trusts, and who it says that it is.
//!
//! I/O rim: reads the files.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use millrace_terms::{Code, Error};
use millrace_tls::{Given, Unusable, Verify};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

/// What `https://` may need, as the client's commands have it.
#[derive(Debug, Args)]
pub struct Files {
    /// File of authorities (PEM) to trust instead of the system's
    #[arg(long, value_name = "PATH", env = "MILLRACE_SERVER_CA")]
    server_ca: Option<PathBuf>,
    /// File of the client certificate (PEM), for a server that asks for one
    #[arg(long, value_name = "PATH", env = "MILLRACE_CLIENT_CERT", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// File of the client certificate's key (PEM)
    #[arg(long, value_name = "PATH", env = "MILLRACE_CLIENT_KEY", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl Files {
    /// Makes the connector.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if a file cannot be read.
    pub(super) fn connector(&self) -> Result<TlsConnector, Error> {
        let path = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let [authorities, certificate, key] =
            [&self.server_ca, &self.client_cert, &self.client_key].map(path);
        let given = Given { authorities: &authorities, certificate: &certificate, key: &key };
        match millrace_tls::client(Verify::AuthorityAndHost, given) {
            Ok(config) => Ok(TlsConnector::from(Arc::new(config))),
            Err(Unusable { why, .. }) => Err(Error::new(Code::InvalidArgument, format!("TLS: {why}"))
                .with_remedy(
                    "Give PEM files that this user may read by --server-ca, --client-cert and --client-key.",
                )),
        }
    }
}

/// The name that the server's certificate has to bear.
pub(super) fn name(host: &str) -> std::io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)
}
