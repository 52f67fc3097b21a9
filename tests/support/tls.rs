//! Certificates of the tests, and TLS before a server that speaks none.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Where a file of `tests/certificates` is.
pub fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/certificates").join(name)
}

/// What is in it.
pub fn pem(name: &str) -> String {
    std::fs::read_to_string(certificate(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Speaks TLS with the certificate of `server`, in front of the server at `target`, `host:port`; `asks`: only
/// with clients whose certificate the tests' authority has signed. It ends with the test's runtime.
pub async fn before(target: &str, server: &str, asks: bool) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config(server, asks)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let target = target.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                // Who does not trust us, or whom we do not, is what some tests are about.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                drop(copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    address
}

fn certificates(name: &str) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(certificate(name)).expect("a file");
    read.collect::<Result<_, _>>().expect("certificates")
}

fn config(server: &str, asks: bool) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS");
    let builder = match asks {
        false => builder.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("authority.pem") {
                roots.add(authority).expect("an authority");
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_file(certificate(&format!("{server}.key"))).expect("a key");
    builder.with_single_cert(certificates(&format!("{server}.pem")), key).expect("a certificate")
}
