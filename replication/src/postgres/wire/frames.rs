//! Messages of the server out of the bytes that were read. Pure.
//!
//! A message is a slice of the buffer it was read into. The buffer is used again when all slices of it are
//! gone, so who keeps a value for long must copy it.

use bytes::{Buf, Bytes, BytesMut};
use millrace_terms::{Code, Error, Result};

/// Room for what is read at once: several milliseconds of a busy log.
const ROOM: usize = 256 << 10;
/// Least room for which a read is worth it.
const ROOM_MIN: usize = 16 << 10;
/// Largest message: PostgreSQL's own limit of a row, and some for what stands around it.
const MESSAGE_BYTES_MAX: usize = (1 << 30) + (1 << 20);
/// A message's kind and its length, which counts itself.
const HEAD: usize = 5;

/// A message of the server.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What it is.
    pub tag: u8,
    /// The rest, without the length.
    pub body: Bytes,
}

/// Bytes that were read.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: BytesMut,
    /// Bytes of the message at the front, as far as it is known; it has not come whole.
    wanted: usize,
    /// The buffer was made for one large message.
    large: bool,
}

impl Frames {
    /// The next message, if it has come whole.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` for a length that cannot be.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Frame>> {
        let Some((&[tag, a, b, c, d], _)) = self.bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let total = u32::from_be_bytes([a, b, c, d]) as usize + 1;
        if !(HEAD..=MESSAGE_BYTES_MAX).contains(&total) {
            return Err(impossible());
        }
        if self.bytes.len() < total {
            self.wanted = total;
            return Ok(None);
        }
        self.wanted = 0;
        let mut body = self.bytes.split_to(total).freeze();
        body.advance(HEAD);
        Ok(Some(Frame { tag, body }))
    }

    /// Where to read to.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.large && self.bytes.is_empty() {
            // The memory of one large message is not kept.
            self.bytes = BytesMut::new();
            self.large = false;
        }
        let missing = self.wanted.saturating_sub(self.bytes.len());
        if self.bytes.capacity() - self.bytes.len() < missing.max(ROOM_MIN) {
            self.large |= missing > ROOM;
            self.bytes.reserve(missing.max(ROOM));
        }
        &mut self.bytes
    }
}

#[cold]
fn impossible() -> Error {
    Error::new(Code::ProtocolViolation, "the source sent a message of an impossible length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_found_whatever_the_pieces(
            messages in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..20),
            size in 1usize..60,
        ) {
            let mut bytes = Vec::new();
            for (tag, body) in &messages {
                bytes.push(*tag);
                bytes.extend((body.len() as u32 + 4).to_be_bytes());
                bytes.extend(body);
            }
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.room().extend_from_slice(piece);
                while let Some(frame) = frames.next().unwrap() {
                    found.push((frame.tag, frame.body.to_vec()));
                }
            }
            prop_assert_eq!(found, messages);
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0u32, 3, u32::MAX] {
            let mut frames = Frames::default();
            frames.room().extend_from_slice(&[b"d", &length.to_be_bytes()[..]].concat());
            assert_eq!(frames.next().unwrap_err().code(), Code::ProtocolViolation, "{length}");
        }
    }

    #[test]
    fn the_memory_of_a_large_message_is_given_back() {
        let mut frames = Frames::default();
        let length = 10 << 20;
        frames.room().extend_from_slice(&[b"d", &(length as u32 + 4).to_be_bytes()[..]].concat());
        assert!(frames.next().unwrap().is_none());
        frames.room().extend_from_slice(&vec![0; length]);
        assert!(frames.next().unwrap().is_some());
        assert!(frames.room().capacity() <= 2 * ROOM);
    }
}
