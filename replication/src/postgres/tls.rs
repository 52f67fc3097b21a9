//! Transport security towards a source: one trust for the sessions of `tokio-postgres` and for the
//! replication connection. Pure but for reading certificates from files.

use millrace_terms::{Code, Error, Result};
use millrace_tls::{Given, Unusable, Verify};
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
    fn verify(&self) -> Verify {
        match self.mode {
            TlsMode::Disable | TlsMode::Prefer => Verify::Nothing,
            TlsMode::Require if self.ca.is_empty() => Verify::Nothing,
            TlsMode::Require | TlsMode::VerifyCa => Verify::Authority,
            TlsMode::VerifyFull => Verify::AuthorityAndHost,
        }
    }
}

/// The connector for `tokio-postgres`.
pub(super) fn connector(tls: &Tls, host: &str) -> Result<MakeRustlsConnect> {
    let given = Given { authorities: &tls.ca, certificate: &tls.cert, key: tls.key.expose_secret() };
    match millrace_tls::client(tls.verify(), given) {
        Ok(config) => Ok(MakeRustlsConnect::new(config)),
        Err(Unusable { part, why }) => {
            let field = part.field();
            Err(Error::new(Code::SourceTls, format!("{field}: {why}"))
                .with("host", host)
                .with("field", field))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_names_its_field() {
        let missing = Tls { mode: TlsMode::VerifyFull, ca: "/no/such/file".into(), ..Tls::default() };
        let error = connector(&missing, "h").map(drop).unwrap_err();
        assert_eq!(error.code(), Code::SourceTls);
        assert!(error.message().starts_with("tls.ca: /no/such/file"), "{error}");
    }

    #[test]
    fn a_given_authority_makes_require_verify() {
        let mut tls = Tls { mode: TlsMode::Require, ..Tls::default() };
        assert_eq!(tls.verify(), Verify::Nothing);
        tls.ca = "-----BEGIN CERTIFICATE-----".into();
        assert_eq!(tls.verify(), Verify::Authority);
    }
}
