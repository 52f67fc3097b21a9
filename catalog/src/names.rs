//! The names of everything that Millrace makes on a source. One function makes them all, so that
//! they are found again, and never collide with another installation's.
//!
//! Pure: no I/O.

use std::fmt;

/// PostgreSQL cuts longer names (NAMEDATALEN - 1; documentation, section 4.1.1), so ours never are.
const NAME_BYTES_MAX: usize = 63;

/// An installation of Millrace: six hexadecimal digits made at the first migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation(pub String);

impl Installation {
    /// The replication slot of a mirror's stream: `millrace_<installation>[_<stream>]_<mirror>`,
    /// with `_` for `-`, because slot names hold only lower-case letters, digits and `_`. The first
    /// stream bears no number. The number stands before the mirror, whose name begins with a letter:
    /// behind it, stream 2 of `shop` and stream 0 of `shop-2` would be one name.
    pub fn slot(&self, mirror: &str, stream: u32) -> String {
        match stream {
            0 => self.object(mirror),
            n => self.object(&format!("{n}_{mirror}")),
        }
    }

    /// The publication of a mirror's stream: of its tables alone, so that a stream is not sent the rows of
    /// the others. Called as its slot is.
    pub fn publication(&self, mirror: &str, stream: u32) -> String {
        self.slot(mirror, stream)
    }

    /// What the names of all slots and publications begin with.
    pub fn prefix(&self) -> String {
        format!("millrace_{}_", self.0)
    }

    /// The `application_name` of a stream's sessions: it tells our own walsender from a foreign one.
    pub fn stream_application(&self, mirror: &str, stream: u32, lease: i64) -> String {
        format!("{}{lease}", self.stream_application_prefix(mirror, stream))
    }

    /// What the `application_name` of every attempt of a stream begins with.
    pub fn stream_application_prefix(&self, mirror: &str, stream: u32) -> String {
        format!("millrace/{}/{mirror}/{stream}/", self.0)
    }

    /// The `application_name` of all other sessions.
    pub fn application(&self, mirror: &str) -> String {
        format!("millrace/{}/{mirror}", self.0)
    }

    fn object(&self, what: &str) -> String {
        shorten(format!("millrace_{}_{}", self.0, what.replace('-', "_")))
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name over 63 bytes ends in `_` and eight hexadecimal digits of its hash.
fn shorten(name: String) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let mut end = NAME_BYTES_MAX - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{:08x}", &name[..end], fnv1a(name.as_bytes()))
}

/// FNV-1a, 32 bits: stable over releases, which `std`'s hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_short_and_distinct() {
        let here = Installation("a1b2c3".into());
        assert_eq!(here.slot("shop-eu", 0), "millrace_a1b2c3_shop_eu");
        assert_eq!(here.slot("shop-eu", 2), "millrace_a1b2c3_2_shop_eu");
        assert_eq!(here.publication("shop-eu", 2), "millrace_a1b2c3_2_shop_eu");
        assert_ne!(here.slot("shop", 2), here.slot("shop-2", 0));
        let long = here.slot(&"x".repeat(60), 0);
        assert_eq!(long.len(), NAME_BYTES_MAX);
        assert_ne!(long, here.slot(&"x".repeat(61), 0));
    }
}
