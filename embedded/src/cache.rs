//! Where the pinned servers are kept. An entry is a directory that appears complete, by rename, or
//! not at all; a file lock keeps two processes from fetching the same thing.
//!
//! I/O rim.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use millrace_terms::Error;
use nix::unistd::geteuid;

use crate::account::first_barrier;
use crate::unavailable;

/// Environment variable that names the directory.
pub const VARIABLE: &str = "MILLRACE_CACHE";

/// For root, whose home other users cannot enter.
const SYSTEM_DIR: &str = "/var/cache/millrace";

/// The directory of installed servers.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache of this user: `MILLRACE_CACHE`, else `~/.cache/millrace`; for root, whose PostgreSQL
    /// runs as another user, `/var/cache/millrace` if that user could not reach the home.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE if there is no such place, or it cannot be written or reached.
    pub fn open() -> Result<Self, Error> {
        let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = std::env::var_os("HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        Self::at(choose(named, home, geteuid().is_root())?)
    }

    /// A cache in a directory of the caller's choice.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE if it cannot be written or reached.
    pub fn at(dir: PathBuf) -> Result<Self, Error> {
        let dir = std::path::absolute(&dir).map_err(|e| unusable(&dir, &e))?;
        fs::create_dir_all(&dir).map_err(|e| unusable(&dir, &e))?;
        if geteuid().is_root()
            && let Some(barrier) = first_barrier(&dir)
        {
            return Err(unavailable(format!(
                "the cache {} is behind {}, which the user that PostgreSQL runs as cannot enter",
                dir.display(),
                barrier.display()
            ))
            .with_remedy(format!("Set {VARIABLE} to a directory that every user can enter.")));
        }
        Ok(Self { dir })
    }

    /// The directory of the entry `name`, which `make` fills if it is not there yet. `make` gets an
    /// empty directory beside the final one.
    ///
    /// # Errors
    /// Those of `make`, and EMBEDDED_UNAVAILABLE if the cache cannot be written.
    pub fn entry(&self, name: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
        let entry = self.dir.join(name);
        if entry.is_dir() {
            return Ok(entry);
        }
        let failed = |e: std::io::Error| unusable(&self.dir, &e);
        // The lock file stays for ever: removing it would let two processes hold two different ones.
        let lock = File::create(self.dir.join(format!("{name}.lock"))).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if entry.is_dir() {
            return Ok(entry);
        }
        let prefix = format!(".making-{name}-");
        self.remove_left(&prefix).map_err(failed)?;
        let draft = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.dir).map_err(failed)?;
        make(draft.path())?;
        make_readable(draft.path()).map_err(failed)?;
        fs::rename(draft.path(), &entry).map_err(failed)?;
        Ok(entry)
    }

    /// Removes what a process that was killed left. The caller holds the entry's lock.
    fn remove_left(&self, prefix: &str) -> std::io::Result<()> {
        for left in fs::read_dir(&self.dir)? {
            let left = left?;
            if left.file_name().to_string_lossy().starts_with(prefix) {
                fs::remove_dir_all(left.path())?;
            }
        }
        Ok(())
    }
}

fn unusable(dir: &Path, error: &std::io::Error) -> Error {
    unavailable(format!("the cache {} cannot be used: {error}", dir.display()))
        .with_remedy(format!("Set {VARIABLE} to a directory that you can write."))
}

fn choose(named: Option<PathBuf>, home: Option<PathBuf>, is_root: bool) -> Result<PathBuf, Error> {
    if let Some(dir) = named {
        return Ok(dir);
    }
    match home.map(|home| home.join(".cache/millrace")) {
        Some(dir) if !is_root || first_barrier(&dir).is_none() => Ok(dir),
        _ if is_root => Ok(PathBuf::from(SYSTEM_DIR)),
        _ => Err(unavailable("there is no HOME to keep the embedded servers in")
            .with_remedy(format!("Set {VARIABLE} to a directory that you can write."))),
    }
}

/// Lets every user read what was installed, whatever the umask is.
fn make_readable(path: &Path) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let readable = if metadata.is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(readable))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            make_readable(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_named_or_at_home_or_for_root_where_others_reach_it() {
        let dir = |path: &str| Some(PathBuf::from(path));
        assert_eq!(choose(dir("/c"), dir("/home/a"), true).unwrap(), PathBuf::from("/c"));
        assert_eq!(choose(None, dir("/h"), false).unwrap(), PathBuf::from("/h/.cache/millrace"));
        assert_eq!(choose(None, None, true).unwrap(), PathBuf::from(SYSTEM_DIR));
        assert!(choose(None, None, false).unwrap_err().remedy().contains(VARIABLE));
    }

    #[test]
    fn an_entry_is_made_once_and_appears_complete() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { dir: dir.path().to_owned() };
        fs::create_dir(dir.path().join(".making-thing-old")).unwrap();
        let made = std::sync::atomic::AtomicUsize::new(0);
        let make = |draft: &Path| {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            fs::write(draft.join("file"), "x").unwrap();
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(cache.entry("thing", make).unwrap().join("file").exists()));
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert!(!dir.path().join(".making-thing-old").exists());
        let failed = cache.entry("other", |_| Err(unavailable("no")));
        assert_eq!(failed.unwrap_err().message(), "no");
        assert!(!dir.path().join("other").exists());
    }
}
