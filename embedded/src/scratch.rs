//! Directories of tests: one for each process, removed by a later run.
//!
//! I/O rim.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes a directory below `parent` for this process. Those of processes that are over are removed: a
/// test process cannot clean up behind servers that die with it.
///
/// # Errors
/// If the directory cannot be made.
pub fn dir(parent: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let alive = entry.file_name().to_str().is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            // Another process may be removing it, too.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    let dir = parent.join(std::process::id().to_string());
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
