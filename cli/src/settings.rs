//! Settings that several processes share: each a flag and an environment variable, secrets also as
//! the path of a file (`*_FILE`), as container platforms mount them.
//!
//! I/O rim: reads the files of secrets.

use std::path::{Path, PathBuf};

use clap::Args;
use millrace_terms::{Code, Error};
use secrecy::SecretString;

/// Most bytes of a file that holds a secret: far above any key or URL, and no device or log that
/// was named by mistake is read into memory.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where the catalog is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct CatalogUrl {
    /// URL of the catalog's PostgreSQL, such as postgresql://user:password@host/millrace
    #[arg(long, value_name = "URL", env = "MILLRACE_CATALOG_URL", hide_env_values = true)]
    catalog_url: Option<SecretString>,
    /// File that holds the URL of the catalog
    #[arg(long, value_name = "PATH", env = "MILLRACE_CATALOG_URL_FILE")]
    catalog_url_file: Option<PathBuf>,
}

impl CatalogUrl {
    /// The URL.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the file cannot be read.
    pub fn resolve(&self) -> Result<SecretString, Error> {
        secret("catalog-url", self.catalog_url.as_ref(), self.catalog_url_file.as_deref())
    }
}

/// The keys that seal the peers' secrets in the catalog.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SecretKeys {
    /// Keys that seal peers' secrets: id:base64 of 32 bytes, comma-separated; the first one seals
    #[arg(long, value_name = "KEYS", env = "MILLRACE_SECRET_KEYS", hide_env_values = true)]
    secret_keys: Option<SecretString>,
    /// File that holds the keys
    #[arg(long, value_name = "PATH", env = "MILLRACE_SECRET_KEYS_FILE")]
    secret_keys_file: Option<PathBuf>,
}

impl SecretKeys {
    /// The keys, as text.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the file cannot be read.
    pub fn resolve(&self) -> Result<SecretString, Error> {
        secret("secret-keys", self.secret_keys.as_ref(), self.secret_keys_file.as_deref())
    }
}

/// The admin token of an installation, where it is not to be drawn.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct AdminTokenArguments {
    /// Admin token to store: mlr_<12 hexadecimal digits>_<64 hexadecimal digits>; without it one is made and printed
    #[arg(long, value_name = "TOKEN", env = "MILLRACE_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<SecretString>,
    /// File that holds the admin token
    #[arg(long, value_name = "PATH", env = "MILLRACE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl AdminTokenArguments {
    /// The token, if one is given.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the file cannot be read.
    pub fn resolve(&self) -> Result<Option<SecretString>, Error> {
        optional(self.admin_token.as_ref(), self.admin_token_file.as_deref())
    }
}

/// Where Temporal is, and which task queues are ours.
#[derive(Debug, Args)]
pub struct Temporal {
    /// URL of the Temporal cluster's frontend
    #[arg(
        long,
        value_name = "URL",
        env = "MILLRACE_TEMPORAL_ADDRESS",
        default_value = "http://127.0.0.1:7233"
    )]
    pub temporal_address: String,
    /// Temporal namespace; it must exist
    #[arg(long, value_name = "NAME", env = "MILLRACE_TEMPORAL_NAMESPACE", default_value = "default")]
    pub temporal_namespace: String,
    /// What the task queues' names begin with: PREFIX-control, PREFIX-snapshot, PREFIX-stream
    #[arg(long, value_name = "PREFIX", env = "MILLRACE_QUEUE_PREFIX", default_value = "millrace")]
    pub queue_prefix: String,
}

/// A secret given directly or as a file; the definition of the flags lets exactly one through.
fn secret(flag: &str, value: Option<&SecretString>, file: Option<&Path>) -> Result<SecretString, Error> {
    let missing = || Error::new(Code::InvalidArgument, format!("--{flag} is missing"));
    optional(value, file)?.ok_or_else(missing)
}

/// A secret given directly, as a file, or not at all.
///
/// # Errors
/// INVALID_ARGUMENT if the file cannot be read.
pub fn optional(value: Option<&SecretString>, file: Option<&Path>) -> Result<Option<SecretString>, Error> {
    match (value, file) {
        (Some(value), _) => Ok(Some(value.clone())),
        (None, Some(path)) => read_secret_file(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The content of a secret's file, without the line end that editors put there.
///
/// # Errors
/// INVALID_ARGUMENT if it cannot be read, is not UTF-8, or is larger than 64 KiB.
pub fn read_secret_file(path: &Path) -> Result<SecretString, Error> {
    let failed = |why: String| {
        Error::new(Code::InvalidArgument, format!("{}: {why}", path.display()))
            .with_remedy("Check the path and that this user may read the file.")
            .with("path", path.display().to_string())
    };
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(failed(format!("{size} bytes are too many for a secret ({SECRET_BYTES_MAX} at most)")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_secret_file_loses_its_line_end_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, " p w \r\n").unwrap();
        assert_eq!(read_secret_file(&path).unwrap().expose_secret(), " p w ");
        let error = read_secret_file(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("none"), "{error}");
    }
}
