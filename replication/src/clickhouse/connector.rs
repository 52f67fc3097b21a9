//! The HTTP client below the official one: time-outs, TLS with the user's own authorities, and the addresses that
//! a peer may have. I/O.

use std::sync::Arc;
use std::time::Duration;

use ::clickhouse::Client;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use millrace_terms::{Code, Error, Result};
use millrace_tls::{Given, Unusable, Verify};
use rustls::ClientConfig;
use secrecy::ExposeSecret;

use super::ClickhouseTls;
use crate::addresses::AddressRules;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Servers close idle connections after 3 s by default: let go of them before.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that vanished without a word is noticed within a few of these.
const TCP_KEEPALIVE: Duration = Duration::from_secs(20);

/// A client without URL and credentials, for URLs of the kind of this one. Names are resolved anew for each connection, and lead only to where a
/// peer may be.
pub(super) fn client(url: &str, tls: &ClickhouseTls, addresses: &Arc<AddressRules>) -> Result<Client> {
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
        .with_tls_config(tls_config(url, tls)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let http =
        HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE_TIMEOUT).build(connector);
    Ok(Client::with_http_client(http))
}

fn tls_config(url: &str, tls: &ClickhouseTls) -> Result<ClientConfig> {
    // Plain http uses none of it, and has to work on a machine that trusts no authorities.
    let verify = if url.starts_with("http://") { Verify::Nothing } else { Verify::AuthorityAndHost };
    let given = Given { authorities: &tls.ca, certificate: &tls.cert, key: tls.key.expose_secret() };
    millrace_tls::client(verify, given).map_err(|Unusable { part, why }| {
        let field = part.field();
        Error::new(Code::InvalidArgument, format!("{field} cannot be used: {why}")).with("field", field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_read_names_its_field() {
        let tls = ClickhouseTls { ca: "nonsense".into(), ..ClickhouseTls::default() };
        let error = client("https://h", &tls, &Arc::default()).map(drop).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.metadata().get("field").map(String::as_str), Some("tls.ca"));
    }
}
