//! `millrace server`.
//!
//! I/O rim: wiring only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::settings::{CatalogUrl, SecretKeys, Temporal};
use crate::signals;

/// Arguments of `millrace server`.
#[derive(Debug, Args)]
pub struct ServerArguments {
    /// Address and port of gRPC
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_GRPC_LISTEN", default_value = "127.0.0.1:8112")]
    grpc_listen: SocketAddr,
    /// Address and port of HTTP: REST, its documentation, health
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_HTTP_LISTEN", default_value = "127.0.0.1:8113")]
    http_listen: SocketAddr,
    /// Address and port of Prometheus metrics
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_METRICS_LISTEN", default_value = "127.0.0.1:9090")]
    metrics_listen: SocketAddr,
    /// Origins of web pages that may ask, such as https://ui.example.com, several with commas; * for any
    #[arg(long, value_name = "ORIGINS", env = "MILLRACE_CORS_ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// Do without tokens: everybody on this machine may do everything. Refused on other addresses than loopback
    #[arg(long, env = "MILLRACE_INSECURE_NO_AUTH", value_parser = FalseyValueParser::new())]
    insecure_no_auth: bool,
    /// Requests a second of one token at most; 0 for any number
    #[arg(long, value_name = "NUMBER", env = "MILLRACE_REQUESTS_PER_SECOND", default_value_t = 100)]
    requests_per_second: u32,
    /// File of the API's certificate with its chain (PEM): gRPC and HTTP then speak TLS only
    #[arg(long, value_name = "PATH", env = "MILLRACE_API_TLS_CERT", requires = "api_tls_key")]
    api_tls_cert: Option<PathBuf>,
    /// File of the certificate's key (PEM)
    #[arg(long, value_name = "PATH", env = "MILLRACE_API_TLS_KEY", requires = "api_tls_cert")]
    api_tls_key: Option<PathBuf>,
    /// File of authorities (PEM), one of which must have signed the certificate that each client shows
    #[arg(long, value_name = "PATH", env = "MILLRACE_API_TLS_CLIENT_CA", requires = "api_tls_cert")]
    api_tls_client_ca: Option<PathBuf>,
    #[command(flatten)]
    catalog: CatalogUrl,
    #[command(flatten)]
    keys: SecretKeys,
    #[command(flatten)]
    temporal: Temporal,
}

/// Runs the server until SIGINT or SIGTERM.
///
/// # Errors
/// What waiting cannot mend: an address in use, malformed settings, a catalog older than needed.
pub async fn run(arguments: ServerArguments) -> anyhow::Result<ExitCode> {
    let client_ca = arguments.api_tls_client_ca;
    let tls = arguments.api_tls_cert.zip(arguments.api_tls_key);
    let tls = tls.map(|(cert, key)| millrace_server::TlsFiles { cert, key, client_ca });
    let config = millrace_server::Config {
        catalog_url: arguments.catalog.resolve()?,
        secret_keys: arguments.keys.resolve()?,
        temporal_address: arguments.temporal.temporal_address,
        temporal_namespace: arguments.temporal.temporal_namespace,
        queue_prefix: arguments.temporal.queue_prefix,
        grpc_listen: arguments.grpc_listen,
        http_listen: arguments.http_listen,
        metrics_listen: arguments.metrics_listen,
        cors_origins: arguments.cors_origins,
        insecure_no_auth: arguments.insecure_no_auth,
        requests_per_second: arguments.requests_per_second,
        tls,
    };
    millrace_server::run(config, signals::shutdown()?).await?;
    Ok(ExitCode::SUCCESS)
}
