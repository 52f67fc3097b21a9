//! The user that PostgreSQL runs as: it refuses to run as root.
//!
//! I/O rim.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use millrace_terms::Error;
use nix::unistd::{Gid, Uid, User, chown, geteuid};

use crate::unavailable;

/// Accounts tried in this order. `postgres` exists where PostgreSQL was ever installed, `nobody`
/// everywhere.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Bits of a directory's mode that let every user look a name up in it.
const TRAVERSABLE: u32 = 0o001;

/// An unprivileged account that root starts PostgreSQL as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account to change to, or `None` if this process is not root and just stays who it is.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE if this is root on a machine without any such account.
    pub fn for_postgres() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in ACCOUNTS {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        Err(unavailable("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
            .with_remedy("Run as another user, or add one: useradd --system postgres."))
    }

    /// Gives a file or directory to the account.
    pub(crate) fn own(self, path: &Path) -> std::io::Result<()> {
        chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        Ok(())
    }
}

/// The first directory on the way to `path` that other users cannot pass, if any. Directories that
/// do not exist yet will be made passable.
pub(crate) fn first_barrier(path: &Path) -> Option<PathBuf> {
    let ancestors: Vec<&Path> =
        path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()).collect();
    let closed = |dir: &&&Path| std::fs::metadata(dir).is_ok_and(|m| m.mode() & TRAVERSABLE == 0);
    ancestors.iter().rev().find(closed).map(|dir| dir.to_path_buf())
}

/// Lets other users pass a directory of our own.
pub(crate) fn make_passable(dir: &Path) -> std::io::Result<()> {
    let mode = std::fs::metadata(dir)?.mode();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode((mode & 0o7777) | 0o011))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_directory_is_found_and_can_be_opened() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(first_barrier(&inner.join("later")).as_deref(), Some(outer.path()));
        make_passable(outer.path()).unwrap();
        assert_eq!(first_barrier(&inner), None);
    }
}
