//! Unpacking the two forms of archive that the registries hold.
//!
//! I/O rim.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use flate2::read::GzDecoder;
use lzma_rust2::XzReader;
use millrace_terms::Error;

use crate::unavailable;

/// Unpacks the one `.txz` that a zonky `.jar` holds into `target`.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if the archive is damaged or the disk is full.
pub fn unpack_jar(jar: &Path, target: &Path) -> Result<(), Error> {
    try_unpack_jar(jar, target).map_err(|e| failed(jar, &e))
}

fn try_unpack_jar(jar: &Path, target: &Path) -> Result<(), std::io::Error> {
    let mut zip = zip::ZipArchive::new(BufReader::new(File::open(jar)?))?;
    let names = zip.file_names().filter_map(|name| name.ok().map(|name| name.into_owned()));
    let name = names.into_iter().find(|name| name.ends_with(".txz"));
    let name = name.ok_or_else(|| std::io::Error::other("no .txz in the archive"))?;
    let inner = BufReader::new(zip.by_name(&name)?);
    tar::Archive::new(XzReader::new(inner, true)).unpack(target)
}

/// Unpacks one file of a `.tgz` to `target`.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if the archive is damaged, lacks the file, or the disk is full.
pub fn unpack_file(tgz: &Path, name: &str, target: &Path) -> Result<(), Error> {
    try_unpack_file(tgz, name, target).map_err(|e| failed(tgz, &e))
}

fn try_unpack_file(tgz: &Path, name: &str, target: &Path) -> Result<(), std::io::Error> {
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(tgz)?)));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new(name) {
            std::io::copy(&mut entry, &mut File::create(target)?)?;
            return Ok(());
        }
    }
    Err(std::io::Error::other(format!("no {name} in the archive")))
}

fn failed(archive: &Path, error: &std::io::Error) -> Error {
    unavailable(format!("{} cannot be unpacked: {error}", archive.display()))
        .with_remedy("Make room on the disk of the cache, and try again.")
}
