//! What differs between two readings of a range. Pure.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::read::{Digest, Seen};

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The source has it, the destination does not.
    Missing,
    /// The destination has it, the source does not.
    Extra,
    /// Both have it, with other values.
    Different,
}

/// The rows of one side, by the digests of their keys.
pub(super) type Digests = HashMap<Digest, Digest>;

/// Keys that are not the same on both sides.
pub(super) fn differing(source: &Digests, destination: &Digests) -> Vec<Digest> {
    let changed = source.iter().filter(|(key, digest)| destination.get(key) != Some(digest));
    let extra = destination.keys().filter(|key| !source.contains_key(key));
    changed.map(|(key, _)| *key).chain(extra.copied()).collect()
}

/// A row as it was seen, as far as a person is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) digest: Digest,
    /// 0 for a row of the source.
    pub(super) version: u128,
    /// What names it to the destination's server; empty for a row of the source.
    pub(super) handle: String,
    /// Of each column that can be compared.
    pub(super) columns: Vec<u64>,
    pub(super) texts: Vec<Option<String>>,
}

impl Row {
    pub(super) fn of(seen: &Seen<'_>) -> Self {
        Self {
            digest: seen.digest,
            version: seen.version,
            handle: String::from_utf8_lossy(seen.handle).into_owned(),
            columns: seen.columns(),
            texts: seen.texts(),
        }
    }
}

/// How two rows of a key differ; none if they do not.
pub(super) fn kind(source: Option<&Row>, destination: Option<&Row>) -> Option<Kind> {
    match (source, destination) {
        (Some(_), None) => Some(Kind::Missing),
        (None, Some(_)) => Some(Kind::Extra),
        (Some(source), Some(destination)) if source.digest != destination.digest => Some(Kind::Different),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_extra_and_changed_keys_are_found() {
        let digests = |rows: &[(u128, u128)]| rows.iter().copied().collect::<Digests>();
        let mut found = differing(&digests(&[(1, 1), (2, 2), (3, 3)]), &digests(&[(1, 1), (2, 9), (4, 4)]));
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4]);
        assert!(differing(&digests(&[(1, 1)]), &digests(&[(1, 1)])).is_empty());
    }
}
