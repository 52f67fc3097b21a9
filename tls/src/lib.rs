//! Transport security, the same towards every database: what a client verifies of a server, and certificates
//! and keys from PEM. Pure but for reading files and the system's authorities.
//!
//! What is verified follows libpq's `sslmode` (PostgreSQL documentation, section 32.19), which knows two things
//! that TLS libraries do not offer by themselves: to encrypt without knowing who answers, and to check who signed
//! a certificate without looking at the host's name.

mod pem;
mod verifier;

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

pub use pem::{certificates, private_key, read};
use verifier::Verifier;

/// What is verified of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: the connection is encrypted, but nobody knows who is at its other end.
    Nothing,
    /// That a trusted authority signed its certificate.
    Authority,
    /// That, and that the certificate is for the host that was dialled.
    AuthorityAndHost,
}

/// What a client is given. Each is PEM text, or the path of a file of it; empty for none.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Authorities to trust instead of the system's.
    pub authorities: &'a str,
    /// The client's certificate, with its chain.
    pub certificate: &'a str,
    /// The key of that certificate.
    pub key: &'a str,
}

/// Which of the given cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`Given::authorities`], or the system's where none are given.
    Authorities,
    /// [`Given::certificate`].
    Certificate,
    /// [`Given::key`].
    Key,
}

/// Why TLS cannot be set up. The reason never quotes a key.
#[derive(Debug)]
pub struct Unusable {
    /// What is wrong.
    pub part: Part,
    /// What is wrong with it, for people.
    pub why: String,
}

impl Part {
    /// The field of a peer that holds it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Authorities => "tls.ca",
            Self::Certificate => "tls.cert",
            Self::Key => "tls.key",
        }
    }

    fn unusable(self, why: impl std::fmt::Display) -> Unusable {
        Unusable { part: self, why: why.to_string() }
    }
}

/// The client's side of a connection, on `ring`: named, so that no process-wide default is needed.
///
/// # Errors
/// [`Unusable`] if something given cannot be read, if a certificate comes without its key or the other way round,
/// or if something is to be verified and nobody is trusted.
pub fn client(verify: Verify, given: Given<'_>) -> Result<ClientConfig, Unusable> {
    let provider = Arc::new(ring::default_provider());
    let verifier = match verify {
        Verify::Nothing => Verifier::of_nothing(provider.clone()),
        Verify::Authority | Verify::AuthorityAndHost => {
            let host = verify == Verify::AuthorityAndHost;
            Verifier::of_authority(roots(given.authorities)?, host, provider.clone())
                .map_err(|error| Part::Authorities.unusable(error))?
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Part::Authorities.unusable(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match (given.certificate, given.key) {
        ("", "") => Ok(builder.with_no_client_auth()),
        ("", _) => Err(Part::Certificate.unusable("a client's key needs its certificate")),
        (_, "") => Err(Part::Key.unusable("a client certificate needs its key")),
        (certificate, key) => {
            let chain = read(certificate)
                .and_then(|pem| certificates(&pem))
                .map_err(|why| Part::Certificate.unusable(why))?;
            let key = read(key).and_then(|pem| private_key(&pem)).map_err(|why| Part::Key.unusable(why))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| Part::Certificate.unusable(error))
        }
    }
}

/// The given authorities, or the system's.
fn roots(authorities: &str) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        // One that cannot be read is skipped: others may be the one needed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Part::Authorities.unusable("this machine trusts none, and none is given"));
        }
        return Ok(roots);
    }
    let given = read(authorities).and_then(|pem| certificates(&pem));
    for certificate in given.map_err(|why| Part::Authorities.unusable(why))? {
        roots.add(certificate).map_err(|error| Part::Authorities.unusable(error))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Given<'_> = Given { authorities: "", certificate: "", key: "" };

    fn refused(verify: Verify, given: Given<'_>) -> (Part, String) {
        let Unusable { part, why } = client(verify, given).unwrap_err();
        (part, why)
    }

    #[test]
    fn half_a_client_certificate_is_refused() {
        let certificate = Given { certificate: "-----BEGIN CERTIFICATE-----", ..NOTHING };
        assert_eq!(refused(Verify::Nothing, certificate).0, Part::Key);
        let key = Given { key: "-----BEGIN PRIVATE KEY-----", ..NOTHING };
        assert_eq!(refused(Verify::Nothing, key).0, Part::Certificate);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let missing = Given { authorities: "/no/such/file", ..NOTHING };
        let (part, why) = refused(Verify::AuthorityAndHost, missing);
        assert_eq!(part, Part::Authorities);
        assert!(why.contains("/no/such/file"), "{why}");
        let empty = Given { authorities: "-----BEGIN nothing", ..NOTHING };
        assert_eq!(refused(Verify::Authority, empty).0, Part::Authorities);
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_quoted() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/certificates/");
        let (certificate, key) = (format!("{dir}client.pem"), "-----BEGIN secret");
        let (part, why) = refused(Verify::Nothing, Given { certificate: &certificate, key, ..NOTHING });
        assert_eq!(part, Part::Key);
        assert!(!why.contains("secret"), "{why}");
    }

    #[test]
    fn authorities_of_others_are_not_looked_at_where_nothing_is_verified() {
        assert!(client(Verify::Nothing, Given { authorities: "/no/such/file", ..NOTHING }).is_ok());
    }
}
