//! Certificates and keys from PEM (RFC 7468).

use std::borrow::Cow;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What PEM text begins with; anything else is the path of a file on this machine.
const BEGIN: &str = "-----BEGIN";

/// PEM text as it is, or the content of the file that is named.
///
/// # Errors
/// What is wrong with the file.
pub fn read(text_or_path: &str) -> Result<Cow<'_, [u8]>, String> {
    if text_or_path.contains(BEGIN) {
        return Ok(Cow::Borrowed(text_or_path.as_bytes()));
    }
    std::fs::read(text_or_path).map(Cow::Owned).map_err(|error| format!("{text_or_path}: {error}"))
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// What is wrong with the text.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(none) if none.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(some) => Ok(some),
        Err(error) => Err(error.to_string()),
    }
}

/// The private key of a PEM text.
///
/// # Errors
/// That there is none. The parser's own words could quote the key, so they are not shown.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "it holds no private key in PEM that can be read".to_owned())
}
