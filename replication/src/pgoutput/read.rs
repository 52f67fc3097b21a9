//! Checked reads from a message. Pure.

use bytes::{Buf, Bytes};
use millrace_terms::{Code, Error, Lsn, Result};

/// The error of bytes that are no message.
#[cold]
pub(super) fn violation(what: &str) -> Error {
    Error::new(Code::ProtocolViolation, format!("the replication stream holds {what}"))
}

#[cold]
fn truncated(what: &str) -> Error {
    violation(&format!("a message that ends within {what}"))
}

/// What is left of a message.
pub(super) struct Reader {
    rest: Bytes,
}

macro_rules! number {
    ($name:ident, $kind:ty, $get:ident) => {
        #[inline]
        pub(super) fn $name(&mut self, what: &str) -> Result<$kind> {
            if self.rest.len() < size_of::<$kind>() {
                return Err(truncated(what));
            }
            Ok(self.rest.$get())
        }
    };
}

impl Reader {
    pub(super) fn new(message: Bytes) -> Self {
        Self { rest: message }
    }

    number!(u8, u8, get_u8);
    number!(u16, u16, get_u16);
    number!(u32, u32, get_u32);
    number!(i32, i32, get_i32);
    number!(i64, i64, get_i64);

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn> {
        Ok(Lsn(self.i64("a log position")?.cast_unsigned()))
    }

    pub(super) fn expect(&mut self, mark: u8, what: &str) -> Result<()> {
        if self.u8(what)? == mark { Ok(()) } else { Err(violation(&format!("something else than {what}"))) }
    }

    /// Text that ends in a zero byte. Names are UTF-8, because the session asks for it.
    pub(super) fn string(&mut self, what: &str) -> Result<String> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| truncated(what))?;
        let text = std::str::from_utf8(&self.rest[..end])
            .map_err(|_| violation(&format!("{what} that is not UTF-8")))?
            .to_owned();
        self.rest.advance(end + 1);
        Ok(text)
    }

    /// Bytes behind their number.
    #[inline]
    pub(super) fn counted(&mut self, what: &str) -> Result<Bytes> {
        let length = self.u32(what)? as usize;
        self.take(length, what)
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize, what: &str) -> Result<Bytes> {
        if self.rest.len() < length {
            return Err(truncated(what));
        }
        Ok(self.rest.split_to(length))
    }

    /// The bytes that follow, to look ahead.
    #[inline]
    pub(super) fn peek(&self) -> &[u8] {
        &self.rest
    }

    pub(super) fn skip_rest(&mut self) {
        self.rest.clear();
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(violation("a message with bytes behind its end")) }
    }
}
