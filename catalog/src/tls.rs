//! Transport security towards the catalog, by the `sslmode` and `sslrootcert` of its URL.
//!
//! The meanings are libpq's (PostgreSQL documentation, section 32.19): below `verify-ca` the
//! connection is encrypted but nobody knows who is at its other end.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use millrace_terms::{Code, Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is verified of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Nothing.
    Nothing,
    /// That a trusted authority signed its certificate.
    Authority,
    /// That, and that the certificate is for the host of the URL.
    AuthorityAndHost,
}

/// Makes the connector. `root_file` is a PEM file of authorities to trust instead of the system's.
pub(crate) fn connector(verify: Verify, root_file: Option<&str>) -> Result<MakeRustlsConnect> {
    // Named, so that no process-wide default is needed.
    let provider = Arc::new(ring::default_provider());
    let inner = match verify {
        Verify::Nothing => None,
        Verify::Authority | Verify::AuthorityAndHost => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root_file)?), Arc::clone(&provider))
                .build()
                .map_err(|error| wrong(format!("no authority can be trusted: {error}")))?,
        ),
    };
    let verifier =
        Verifier { inner, check_host: verify == Verify::AuthorityAndHost, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn wrong(what: String) -> Error {
    Error::new(Code::CatalogUnreachable, format!("TLS towards the catalog: {what}"))
        .with_remedy("Correct sslmode and sslrootcert in MILLRACE_CATALOG_URL.")
}

fn roots(file: Option<&str>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| wrong(format!("sslrootcert {path}: {error}"));
            let file = File::open(path).map_err(|error| unreadable(&error))?;
            for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
        }
        // A system certificate that rustls cannot read is skipped: others may be the one needed.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    check_host: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            // webpki looks at the name last: everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_host => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
