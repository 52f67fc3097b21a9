//! `inet` and `cidr`. Pure.
//!
//! The binary form (PostgreSQL source, `network.c`: `network_send`) is the family, the bits of the
//! netmask, whether it is a `cidr`, the number of bytes, and the address.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Fault;

const FAMILY_4: u8 = 2;
const FAMILY_6: u8 = 3;

/// The parts of the binary form.
struct Binary {
    address: Address,
    bits: u8,
    network: bool,
}

enum Address {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Binary {
    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let ([family, bits, network, length], address) =
            bytes.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
        let address = match (*family, *length) {
            (FAMILY_4, 4) => Address::V4(<[u8; 4]>::try_from(address).map_err(|_| Fault::Malformed)?.into()),
            (FAMILY_6, 16) => {
                Address::V6(<[u8; 16]>::try_from(address).map_err(|_| Fault::Malformed)?.into())
            }
            _ => return Err(Fault::Malformed),
        };
        let value = Self { address, bits: *bits, network: *network != 0 };
        if value.bits > value.bits_max() { Err(Fault::Malformed) } else { Ok(value) }
    }

    fn bits_max(&self) -> u8 {
        match self.address {
            Address::V4(_) => 32,
            Address::V6(_) => 128,
        }
    }
}

/// Appends the text form of a value in its binary form.
pub(super) fn push_inet(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let value = Binary::parse(bytes)?;
    match value.address {
        Address::V4(address) => out.extend_from_slice(address.to_string().as_bytes()),
        Address::V6(address) => push_v6(&address, out),
    }
    if value.network || value.bits < value.bits_max() {
        out.extend_from_slice(format!("/{}", value.bits).as_bytes());
    }
    Ok(())
}

/// As PostgreSQL writes it (`inet_net_ntop.c`): the first of the longest runs of zeros is left out,
/// and addresses that hold one of the fourth version end in dots.
fn push_v6(address: &Ipv6Addr, out: &mut Vec<u8>) {
    let words = address.segments();
    let (start, length) = longest_zeros(&words);
    let [.., a, b, c, d] = address.octets();
    let dotted = start == 0 && (length == 6 || length == 5 && words[5] == 0xffff);
    let mut at = 0;
    while at < words.len() {
        if length >= 2 && at == start {
            out.extend_from_slice(b"::");
            at += length;
            continue;
        }
        if at > 0 && !(length >= 2 && at == start + length) {
            out.push(b':');
        }
        if at == 6 && dotted {
            out.extend_from_slice(Ipv4Addr::new(a, b, c, d).to_string().as_bytes());
            return;
        }
        out.extend_from_slice(format!("{:x}", words[at]).as_bytes());
        at += 1;
    }
}

/// Where the first of the longest runs of zeros begins, and its length.
fn longest_zeros(words: &[u16; 8]) -> (usize, usize) {
    let mut best = (0, 0);
    for start in 0..words.len() {
        let length = words[start..].iter().take_while(|word| **word == 0).count();
        if length > best.1 {
            best = (start, length);
        }
    }
    best
}

/// Appends a host's address in its binary form to an `IPv4` column.
pub(super) fn push_v4_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    match Binary::parse(bytes)? {
        Binary { address: Address::V4(address), bits: 32, .. } => {
            out.extend_from_slice(&address.to_bits().to_le_bytes());
            Ok(())
        }
        _ => Err(Fault::Unrepresentable),
    }
}

/// Appends a host's address in its binary form to an `IPv6` column.
pub(super) fn push_v6_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    match Binary::parse(bytes)? {
        Binary { address: Address::V6(address), bits: 128, .. } => {
            out.extend_from_slice(&address.octets());
            Ok(())
        }
        _ => Err(Fault::Unrepresentable),
    }
}

/// Appends a host's address in its text form to an `IPv4` column.
pub(super) fn push_v4_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let address: Ipv4Addr = host(text)?.parse().map_err(|_| Fault::Unrepresentable)?;
    out.extend_from_slice(&address.to_bits().to_le_bytes());
    Ok(())
}

/// Appends a host's address in its text form to an `IPv6` column.
pub(super) fn push_v6_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let address: Ipv6Addr = host(text)?.parse().map_err(|_| Fault::Unrepresentable)?;
    out.extend_from_slice(&address.octets());
    Ok(())
}

/// The text of a host's address; a `cidr` of one host bears the whole netmask.
fn host(text: &[u8]) -> Result<&str, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Malformed)?;
    let full = if text.contains(':') { "/128" } else { "/32" };
    Ok(text.strip_suffix(full).unwrap_or(text))
}
