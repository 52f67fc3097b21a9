//! ClickHouse: the engine itself, from the library that chDB publishes to npm, behind a server of ours
//! that speaks ClickHouse's HTTP interface. To a client it is ClickHouse.
//!
//! - [`install`] fetches the library; [`serve`] runs the server in this process.
//! - [`Settings`]: what to serve.
//! - `engine`: the C API. `server`, `answer`: from HTTP to the engine and back. `request`, `statement`,
//!   `pieces`, `compression`, `output`, `failure`: the protocol, pure. `body`, `running`: plumbing.

mod answer;
mod body;
mod compression;
mod engine;
mod failure;
mod output;
mod pieces;
mod request;
mod running;
mod server;
mod statement;

use std::fs;
use std::path::PathBuf;

use millrace_terms::Error;

pub use server::{Settings, serve};

use crate::archive::unpack_file;
use crate::cache::Cache;
use crate::download::{Checksum, Pinned, fetch};
use crate::platform::{Platform, unsupported};
use crate::unavailable;

/// The pinned release of the library; the engine in it is ClickHouse 26.7.2.
pub const VERSION: &str = "26.7.3-stable.1";

const LIBRARY: &str = "libchdb.so";

/// The package for a platform. Of the other platforms' packages no checksum could be had yet.
fn pinned(platform: Platform) -> Result<Pinned, Error> {
    match platform {
        Platform::LinuxX64 => Ok(Pinned {
            url: "https://registry.npmjs.org/@chdb/lib-linux-x64-gnu/-/lib-linux-x64-gnu-26.7.3-stable.1.tgz",
            checksum: Checksum::Sha512(
                "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
            ),
        }),
        _ => Err(unsupported("the embedded ClickHouse", std::env::consts::OS, std::env::consts::ARCH)),
    }
}

/// Fetches the engine's library into the cache if it is not there, and returns where it is. Blocks.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if this machine is not supported, or it cannot be fetched.
pub fn install(cache: &Cache) -> Result<PathBuf, Error> {
    let platform = Platform::current()?;
    let package = pinned(platform)?;
    let dir = cache.entry(&format!("clickhouse-{VERSION}-{platform}"), |draft| {
        let archive = draft.join("package.tgz");
        fetch("ClickHouse", &package, &archive)?;
        unpack_file(&archive, &format!("package/{LIBRARY}"), &draft.join(LIBRARY))?;
        fs::remove_file(&archive).map_err(|e| unavailable(format!("{}: {e}", archive.display())))
    })?;
    Ok(dir.join(LIBRARY))
}
