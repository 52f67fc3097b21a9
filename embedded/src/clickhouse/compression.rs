//! ClickHouse's own compressed blocks, which `compress=1` and `decompress=1` ask for: 16 bytes of
//! CityHash128 over what follows, a method, the compressed size with that head, the plain size.
//!
//! Pure.

use std::io::{self, Read, Write};

/// Method byte of LZ4.
const LZ4: u8 = 0x82;
/// Method byte of blocks that are not compressed.
const NONE: u8 = 0x02;
const CHECKSUM_BYTES: usize = 16;
const HEAD_BYTES: usize = 9;
/// Largest block taken: ClickHouse's own limit is 1 GiB; clients send 1 MiB at most.
const BLOCK_BYTES_MAX: usize = 128 << 20;
/// Plain bytes of the blocks that we write: ClickHouse's `max_compress_block_size`.
const BLOCK_BYTES: usize = 1 << 20;

/// The checksum as it stands on the wire.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    // The binding's integer has the hash's first half in its upper bits; the wire has it first.
    cityhash_rs::cityhash_102_128(bytes).rotate_right(64).to_le_bytes()
}

/// Reads the plain bytes of compressed blocks.
pub(super) struct BlockReader<R> {
    inner: R,
    frame: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

impl<R: Read> BlockReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, frame: Vec::new(), plain: Vec::new(), at: 0 }
    }

    /// Whether there was another block.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut start = [0; CHECKSUM_BYTES + HEAD_BYTES];
        let first = self.inner.read(&mut start)?;
        if first == 0 {
            return Ok(false);
        }
        self.inner.read_exact(&mut start[first..])?;
        let (sum, head) = start.split_at(CHECKSUM_BYTES);
        let method = head[0];
        let size = |bytes: &[u8]| bytes.try_into().map_or(usize::MAX, |b| u32::from_le_bytes(b) as usize);
        let (packed, plain) = (size(&head[1..5]), size(&head[5..9]));
        if !(HEAD_BYTES..=BLOCK_BYTES_MAX).contains(&packed) || plain > BLOCK_BYTES_MAX {
            return Err(broken("a block is too large"));
        }
        self.frame.clear();
        self.frame.extend_from_slice(head);
        self.frame.resize(packed, 0);
        self.inner.read_exact(&mut self.frame[HEAD_BYTES..])?;
        if checksum(&self.frame) != *sum {
            return Err(broken("the checksum of a block does not match"));
        }
        self.plain.clear();
        self.at = 0;
        match method {
            LZ4 => {
                self.plain.resize(plain, 0);
                let written = lz4_flex::block::decompress_into(&self.frame[HEAD_BYTES..], &mut self.plain);
                if written.ok() != Some(plain) {
                    return Err(broken("a block is damaged"));
                }
            }
            NONE => self.plain.extend_from_slice(&self.frame[HEAD_BYTES..]),
            _ => return Err(broken("only the methods LZ4 and NONE are built")),
        }
        Ok(true)
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = out.len().min(self.plain.len() - self.at);
        out[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes plain bytes as compressed blocks. [`Write::flush`] ends a block.
pub(super) struct BlockWriter<W> {
    inner: W,
    plain: Vec<u8>,
    frame: Vec<u8>,
}

impl<W: Write> BlockWriter<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, plain: Vec::new(), frame: Vec::new() }
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let room = lz4_flex::block::get_maximum_output_size(self.plain.len());
        self.frame.resize(CHECKSUM_BYTES + HEAD_BYTES + room, 0);
        let (start, data) = self.frame.split_at_mut(CHECKSUM_BYTES + HEAD_BYTES);
        let packed = lz4_flex::block::compress_into(&self.plain, data).map_err(io::Error::other)?;
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        start[CHECKSUM_BYTES] = LZ4;
        start[CHECKSUM_BYTES + 1..][..4].copy_from_slice(&size(HEAD_BYTES + packed));
        start[CHECKSUM_BYTES + 5..][..4].copy_from_slice(&size(self.plain.len()));
        self.frame.truncate(CHECKSUM_BYTES + HEAD_BYTES + packed);
        let sum = checksum(&self.frame[CHECKSUM_BYTES..]);
        self.frame[..CHECKSUM_BYTES].copy_from_slice(&sum);
        self.plain.clear();
        self.inner.write_all(&self.frame)
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..count]);
        if self.plain.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_block()?;
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let plain: Vec<u8> = (0..3_000_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let mut writer = BlockWriter::new(Vec::new());
        writer.write_all(&plain).unwrap();
        writer.flush().unwrap();
        let mut packed = writer.inner;
        assert!(packed.len() < plain.len());
        let mut again = Vec::new();
        BlockReader::new(packed.as_slice()).read_to_end(&mut again).unwrap();
        assert!(again == plain);

        packed[100] ^= 1;
        let error = BlockReader::new(packed.as_slice()).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = BlockReader::new(&packed[..10]).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
