//! The bytes of an answer, compressed as the client asked for.
//!
//! Pure, over any writer.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::compression::BlockWriter;
use super::request::Encoding;

/// A writer that compresses.
pub(super) enum Output<W: Write> {
    Plain(W),
    Lz4(Box<FrameEncoder<W>>),
    Gzip(GzEncoder<W>),
    Blocks(BlockWriter<W>),
}

impl<W: Write> Output<W> {
    pub fn new(encoding: Encoding, inner: W) -> Self {
        match encoding {
            Encoding::Plain => Self::Plain(inner),
            Encoding::Lz4 => {
                let frame = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Linked);
                Self::Lz4(Box::new(FrameEncoder::with_frame_info(frame, inner)))
            }
            Encoding::Gzip => Self::Gzip(GzEncoder::new(inner, flate2::Compression::fast())),
            Encoding::Blocks => Self::Blocks(BlockWriter::new(inner)),
        }
    }

    /// Writes what is held back, and the encoding's end.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut inner) => inner.flush(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?.flush(),
            Self::Gzip(encoder) => encoder.finish()?.flush(),
            Self::Blocks(mut writer) => writer.flush(),
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(bytes),
            Self::Lz4(encoder) => encoder.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Blocks(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Lz4(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Blocks(writer) => writer.flush(),
        }
    }
}
