//! The HTTP client below the official one: time-outs, TLS with the user's own authorities, and the addresses that
//! a peer may have. I/O.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ::clickhouse::Client;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use millrace_terms::{Code, Error, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;

use super::ClickhouseTls;
use crate::addresses::AddressRules;

/// What PEM text begins with; anything else is the path of a file on this machine.
const PEM_START: &str = "-----BEGIN";

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Servers close idle connections after 3 s by default: let go of them before.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that vanished without a word is noticed within a few of these.
const TCP_KEEPALIVE: Duration = Duration::from_secs(20);

/// A client without URL and credentials. Names are resolved anew for each connection, and lead only to where a
/// peer may be.
pub(super) fn client(tls: &ClickhouseTls, addresses: &Arc<AddressRules>) -> Result<Client> {
    let rules = addresses.clone();
    let resolver = tower::service_fn(move |name: Name| {
        let rules = rules.clone();
        // The connector puts the URL's port in.
        async move { rules.resolve(name.as_str(), 0, Code::DestinationUnreachable).await.map(Vec::into_iter) }
    });
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(TCP_KEEPALIVE));
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(tls)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let http =
        HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE_TIMEOUT).build(connector);
    Ok(Client::with_http_client(http))
}

fn tls_config(tls: &ClickhouseTls) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if tls.ca.is_empty() {
        // Without any authority https fails when it is used, with the reason; http needs none.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in certificates("tls.ca", &tls.ca)? {
            roots.add(certificate).map_err(|error| unreadable("tls.ca", &error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::Internal, format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots);
    if tls.cert.is_empty() {
        return Ok(config.with_no_client_auth());
    }
    let key = pem("tls.key", tls.key.expose_secret())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unreadable("tls.key", &error))?;
    config
        .with_client_auth_cert(certificates("tls.cert", &tls.cert)?, key)
        .map_err(|error| unreadable("tls.cert", &error))
}

/// The text itself, or that of the file that it names.
fn pem<'a>(field: &str, text: &'a str) -> Result<Cow<'a, str>> {
    if text.trim_start().starts_with(PEM_START) {
        return Ok(Cow::Borrowed(text));
    }
    std::fs::read_to_string(text).map(Cow::Owned).map_err(|error| unreadable(field, &error))
}

fn certificates(field: &str, text: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem(field, text)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(field, &error))?;
    if certificates.is_empty() {
        return Err(unreadable(field, &"it holds no certificate"));
    }
    Ok(certificates)
}

fn unreadable(field: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("{field} cannot be read as PEM text or file: {why}"))
        .with("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_read_names_its_field() {
        let tls = ClickhouseTls { ca: "nonsense".into(), ..ClickhouseTls::default() };
        let error = client(&tls, &Arc::default()).map(drop).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.metadata().get("field").map(String::as_str), Some("tls.ca"));
    }
}
