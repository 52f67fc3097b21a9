//! Transport security towards a source: one trust for the sessions of `tokio-postgres` and for the
//! replication connection. Pure but for reading certificates from files.

use std::path::Path;
use std::sync::Arc;

use millrace_terms::{Code, Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Transport security. Certificates are PEM text, or the path of a file on the worker's machine;
/// empty for none.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// As libpq's sslmode.
    pub mode: TlsMode,
    /// Authorities to trust instead of the system's. With it, `require` verifies as `verify-ca`
    /// does, which is libpq's rule too.
    pub ca: String,
    /// Client certificate, with its chain.
    pub cert: String,
    /// Key of the client certificate.
    pub key: SecretString,
}

/// As libpq's sslmode (PostgreSQL documentation, section 32.19).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; nothing is verified.
    #[default]
    Prefer,
    /// Always; verified only if authorities are given.
    Require,
    /// Always; the certificate is verified, the host name is not.
    VerifyCa,
    /// Always; certificate and host name are verified.
    VerifyFull,
}

impl Tls {
    fn verifies(&self) -> Option<HostName> {
        match self.mode {
            TlsMode::Disable | TlsMode::Prefer => None,
            TlsMode::Require => (!self.ca.is_empty()).then_some(HostName::Any),
            TlsMode::VerifyCa => Some(HostName::Any),
            TlsMode::VerifyFull => Some(HostName::Verified),
        }
    }

    fn ca_pem(&self) -> Result<Vec<u8>> {
        pem(&self.ca, "tls.ca")
    }

    fn client_pem(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        match (self.cert.is_empty(), self.key.expose_secret().is_empty()) {
            (true, true) => Ok(None),
            (false, false) => {
                Ok(Some((pem(&self.cert, "tls.cert")?, pem(self.key.expose_secret(), "tls.key")?)))
            }
            _ => Err(Error::new(Code::SourceTls, "a client certificate needs both tls.cert and tls.key")),
        }
    }
}

/// Whose name a verified certificate must bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostName {
    Any,
    Verified,
}

/// PEM text as it is, or the content of the file it names.
fn pem(text_or_path: &str, field: &str) -> Result<Vec<u8>> {
    if text_or_path.contains("-----BEGIN") {
        return Ok(text_or_path.as_bytes().to_vec());
    }
    std::fs::read(Path::new(text_or_path))
        .map_err(|error| Error::new(Code::SourceTls, format!("{field} cannot be read: {error}")))
}

/// The connector for `tokio-postgres`.
pub(super) fn connector(tls: &Tls, host: &str) -> Result<MakeRustlsConnect> {
    Ok(MakeRustlsConnect::new(client_config(tls).map_err(|error| error.with("host", host))?))
}

fn client_config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let refuse = |error: rustls::Error| Error::new(Code::SourceTls, error.to_string());
    let verifier: Arc<dyn ServerCertVerifier> = match tls.verifies() {
        None => Arc::new(Unverified(provider.clone())),
        Some(host_name) => {
            let roots = Arc::new(roots(tls)?);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| Error::new(Code::SourceTls, error.to_string()))?;
            Arc::new(Verified { inner, host_name })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refuse)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((cert, key)) = tls.client_pem()? else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&cert, "tls.cert")?;
    // The parser's error may quote the key, so it is not shown.
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| Error::new(Code::SourceTls, "tls.key holds no private key"))?;
    builder.with_client_auth_cert(chain, key).map_err(refuse)
}

fn certificates(pem: &[u8], field: &str) -> Result<Vec<CertificateDer<'static>>> {
    let refuse = |why: String| Error::new(Code::SourceTls, format!("{field} holds no certificate: {why}"));
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(error.to_string()))?;
    if certificates.is_empty() { Err(refuse("no PEM section".into())) } else { Ok(certificates) }
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if tls.ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in certificates(&tls.ca_pem()?, "tls.ca")? {
            roots
                .add(certificate)
                .map_err(|error| Error::new(Code::SourceTls, format!("tls.ca: {error}")))?;
        }
    }
    if roots.is_empty() {
        return Err(Error::new(Code::SourceTls, "this machine trusts no authorities, and tls.ca is empty"));
    }
    Ok(roots)
}

/// Encrypts, and trusts whoever answers: what `prefer` and `require` promise.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies the chain, and the host name if asked to.
#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    host_name: HostName,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(certificate, chain, name, ocsp, now) {
            // The name is compared last, when the chain is known to be good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.host_name == HostName::Any => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_client_certificate_and_missing_files_are_refused() {
        let half = Tls { cert: "-----BEGIN CERTIFICATE-----".into(), ..Tls::default() };
        assert_eq!(client_config(&half).unwrap_err().code(), Code::SourceTls);
        let missing = Tls { mode: TlsMode::VerifyFull, ca: "/no/such/file".into(), ..Tls::default() };
        assert!(client_config(&missing).unwrap_err().message().starts_with("tls.ca cannot be read"));
    }

    #[test]
    fn a_given_authority_makes_require_verify() {
        let mut tls = Tls { mode: TlsMode::Require, ..Tls::default() };
        assert_eq!(tls.verifies(), None);
        tls.ca = "-----BEGIN CERTIFICATE-----".into();
        assert_eq!(tls.verifies(), Some(HostName::Any));
    }
}
