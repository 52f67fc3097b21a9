//! Contexts: servers by name, each with its address, the file of its token and whom to trust. They are
//! kept in `$XDG_CONFIG_HOME/millrace/contexts.yaml`, else `~/.config/millrace/contexts.yaml`, which only
//! its owner may read. There is no secret in it: tokens stay in their files.
//!
//! I/O rim; [`Contexts`] is pure.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use millrace_terms::{Code, Error};
use serde::{Deserialize, Serialize};

/// Rights of the file: its owner's alone.
const FILE_MODE: u32 = 0o600;

/// A server by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Name of the context.
    pub name: String,
    /// URL of the server's gRPC.
    pub address: String,
    /// File that holds the API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// File of authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// File of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// File of the client certificate's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
}

/// All contexts of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one in use where none is named; empty for none.
    #[serde(default)]
    pub current: String,
    /// All of them, by name.
    #[serde(default)]
    pub contexts: Vec<Context>,
}

impl Contexts {
    /// Reads the user's file; without one there are none.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming the file, if it cannot be read.
    pub fn load() -> Result<Self, Error> {
        match path() {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let failed = |why: String| {
            Error::new(Code::InvalidArgument, format!("{}: {why}", path.display())).with_remedy(
                "Correct the file of contexts, or remove it and add them again by `millrace context add`.",
            )
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error.to_string())),
        };
        serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// Writes the user's file.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is no home directory, or the file cannot be written.
    pub fn save(&self) -> Result<(), Error> {
        let path = path().ok_or_else(|| {
            Error::new(Code::InvalidArgument, "there is no directory for the contexts")
                .with_remedy("Set HOME or XDG_CONFIG_HOME.")
        })?;
        self.write(&path)
    }

    /// By a new file and a rename, so that no other command reads half of it.
    fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |why: String| {
            Error::new(Code::InvalidArgument, format!("{}: {why}", path.display()))
                .with_remedy("Check that this user may write there.")
        };
        let yaml = serde_saphyr::to_string(self).map_err(|error| failed(error.to_string()))?;
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
            file.write_all(yaml.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        });
        written.map_err(|error| failed(error.to_string()))
    }

    /// The context of this name.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is none.
    pub fn get(&self, name: &str) -> Result<&Context, Error> {
        self.contexts.iter().find(|context| context.name == name).ok_or_else(|| {
            Error::new(Code::InvalidArgument, format!("no context is called {name}")).with_remedy(
                "See `millrace context list` for the names, or add it by `millrace context add`.",
            )
        })
    }

    /// The context in use where none is named.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the file names one that it does not hold.
    pub fn current(&self) -> Result<Option<&Context>, Error> {
        if self.current.is_empty() { Ok(None) } else { self.get(&self.current).map(Some) }
    }

    /// Puts a context in, in place of one of its name. The first one is in use from now on.
    pub fn put(&mut self, context: Context) {
        if self.contexts.is_empty() {
            self.current.clone_from(&context.name);
        }
        self.contexts.retain(|other| other.name != context.name);
        self.contexts.push(context);
        self.contexts.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Takes a context out. If it was in use, none is.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<(), Error> {
        self.get(name)?;
        self.contexts.retain(|context| context.name != name);
        if self.current == name {
            self.current.clear();
        }
        Ok(())
    }

    /// Has a context used where none is named.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is none of that name.
    pub fn select(&mut self, name: &str) -> Result<(), Error> {
        self.current = self.get(name)?.name.clone();
        Ok(())
    }
}

/// Where the contexts are kept (XDG Base Directory Specification); none without a home.
fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let directory = directory.or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(directory.join("millrace").join("contexts.yaml"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn context(name: &str) -> Context {
        Context { name: name.into(), address: format!("https://{name}:8112"), ..Context::default() }
    }

    #[test]
    fn contexts_are_kept_in_a_file_of_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("millrace/contexts.yaml");
        assert_eq!(Contexts::read(&path), Ok(Contexts::default()));
        let mut contexts = Contexts::default();
        contexts.put(context("prod"));
        contexts.put(Context { token_file: Some("/run/token".into()), ..context("dev") });
        contexts.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Contexts::read(&path).unwrap(), contexts);
        assert_eq!(contexts.current().unwrap().unwrap().name, "prod", "the first one is in use");
        std::fs::write(&path, "contexts: 7").unwrap();
        assert!(Contexts::read(&path).unwrap_err().message().contains("contexts.yaml"));
    }

    #[test]
    fn contexts_are_replaced_selected_and_removed_by_name() {
        let mut contexts = Contexts::default();
        for name in ["b", "a", "b"] {
            contexts.put(context(name));
        }
        assert_eq!(
            contexts.contexts.iter().map(|context| context.name.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        contexts.select("a").unwrap();
        contexts.remove("a").unwrap();
        assert_eq!(contexts.current(), Ok(None));
        assert!(contexts.select("a").is_err() && contexts.remove("a").is_err());
    }
}
