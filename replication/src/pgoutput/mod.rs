//! The messages of PostgreSQL's plugin `pgoutput`, protocol version 1 (PostgreSQL documentation,
//! section 54.9). Pure: bytes in, borrowed or sliced values out.
//!
//! A message is decoded without copying what it carries: a tuple's fields are slices of the message's
//! own buffer. Every read is checked, so that no input can panic; what does not fit is
//! `PROTOCOL_VIOLATION`.

mod read;
mod tuple;

use bytes::Bytes;
use millrace_terms::{Lsn, Result};

use read::Reader;
pub use tuple::{Datum, Datums, Tuple};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins. Only committed ones are sent.
    Begin(Begin),
    /// It ends.
    Commit(Commit),
    /// The transaction came from another server.
    Origin,
    /// What a relation looks like from here on.
    Relation(Relation),
    /// What a user's type is called.
    Type,
    /// A row is there.
    Insert(Insert),
    /// A row is another.
    Update(Update),
    /// A row is gone.
    Delete(Delete),
    /// All rows of some relations are gone.
    Truncate(Truncate),
    /// Words of an application, outside tables.
    Logical(Logical),
}

/// Decodes one message.
///
/// # Errors
/// `PROTOCOL_VIOLATION` if the bytes are not one whole message of the protocol.
pub fn decode(message: Bytes) -> Result<Message> {
    let mut reader = Reader::new(message);
    let decoded = match reader.u8("the message's kind")? {
        b'B' => Message::Begin(Begin::read(&mut reader)?),
        b'C' => Message::Commit(Commit::read(&mut reader)?),
        b'O' => skip(&mut reader, Message::Origin),
        b'R' => Message::Relation(Relation::read(&mut reader)?),
        b'Y' => skip(&mut reader, Message::Type),
        b'I' => Message::Insert(Insert::read(&mut reader)?),
        b'U' => Message::Update(Update::read(&mut reader)?),
        b'D' => Message::Delete(Delete::read(&mut reader)?),
        b'T' => Message::Truncate(Truncate::read(&mut reader)?),
        b'M' => Message::Logical(Logical::read(&mut reader)?),
        _ => return Err(read::violation("a message of an unknown kind")),
    };
    reader.end()?;
    Ok(decoded)
}

fn skip(reader: &mut Reader, message: Message) -> Message {
    reader.skip_rest();
    message
}

/// `B`: a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// LSN of its commit record.
    pub commit: Lsn,
    /// When it was committed, in microseconds since 2000-01-01.
    pub time: i64,
    /// The lower 32 bits of its id.
    pub xid: u32,
}

impl Begin {
    fn read(reader: &mut Reader) -> Result<Self> {
        Ok(Self {
            commit: reader.lsn()?,
            time: reader.i64("a time")?,
            xid: reader.u32("a transaction's id")?,
        })
    }
}

/// `C`: a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// LSN of its commit record.
    pub commit: Lsn,
    /// Where the commit record ends.
    pub end: Lsn,
    /// When it was committed, in microseconds since 2000-01-01.
    pub time: i64,
}

impl Commit {
    fn read(reader: &mut Reader) -> Result<Self> {
        reader.u8("flags")?;
        Ok(Self { commit: reader.lsn()?, end: reader.lsn()?, time: reader.i64("a time")? })
    }
}

/// `R`: what a relation looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relreplident`: `d`, `i`, `f` or `n`.
    pub identity: u8,
    /// Its columns, in the order of tuples.
    pub columns: Vec<Column>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Whether it belongs to the replica identity.
    pub identity: bool,
    /// Its name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Modifier of its type, -1 for none.
    pub typmod: i32,
}

impl Relation {
    fn read(reader: &mut Reader) -> Result<Self> {
        let oid = reader.u32("a relation's OID")?;
        let schema = reader.string("a schema")?;
        let name = reader.string("a relation's name")?;
        let identity = reader.u8("a replica identity")?;
        let count = reader.u16("a number of columns")?;
        let mut columns = Vec::with_capacity(usize::from(count).min(reader.remaining()));
        for _ in 0..count {
            columns.push(Column {
                identity: reader.u8("a column's flags")? & 1 != 0,
                name: reader.string("a column's name")?,
                type_oid: reader.u32("a column's type")?,
                typmod: reader.i32("a column's modifier")?,
            });
        }
        Ok(Self { oid, schema, name, identity, columns })
    }
}

/// `I`: a row is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// OID of the relation.
    pub relation: u32,
    /// The row.
    pub new: Tuple,
}

impl Insert {
    fn read(reader: &mut Reader) -> Result<Self> {
        let relation = reader.u32("a relation's OID")?;
        reader.expect(b'N', "the new row's mark")?;
        Ok(Self { relation, new: Tuple::read(reader)? })
    }
}

/// What is told of an old row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// The columns of the replica identity; the others are NULL.
    Key(Tuple),
    /// Every column: the identity is FULL.
    Full(Tuple),
}

impl Old {
    /// The columns that are told.
    pub fn tuple(&self) -> &Tuple {
        match self {
            Old::Key(tuple) | Old::Full(tuple) => tuple,
        }
    }
}

/// `U`: a row is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// OID of the relation.
    pub relation: u32,
    /// The row before, if its identity changed or is FULL.
    pub old: Option<Old>,
    /// The row.
    pub new: Tuple,
}

impl Update {
    fn read(reader: &mut Reader) -> Result<Self> {
        let relation = reader.u32("a relation's OID")?;
        let (old, mark) = match reader.u8("an update's mark")? {
            b'K' => (Some(Old::Key(Tuple::read(reader)?)), reader.u8("the new row's mark")?),
            b'O' => (Some(Old::Full(Tuple::read(reader)?)), reader.u8("the new row's mark")?),
            mark => (None, mark),
        };
        if mark != b'N' {
            return Err(read::violation("an update without a new row"));
        }
        Ok(Self { relation, old, new: Tuple::read(reader)? })
    }
}

/// `D`: a row is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// OID of the relation.
    pub relation: u32,
    /// The row before.
    pub old: Old,
}

impl Delete {
    fn read(reader: &mut Reader) -> Result<Self> {
        let relation = reader.u32("a relation's OID")?;
        let old = match reader.u8("a delete's mark")? {
            b'K' => Old::Key(Tuple::read(reader)?),
            b'O' => Old::Full(Tuple::read(reader)?),
            _ => return Err(read::violation("a delete without an old row")),
        };
        Ok(Self { relation, old })
    }
}

/// `T`: all rows of some relations are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncate {
    /// OIDs of the relations.
    pub relations: Vec<u32>,
}

impl Truncate {
    fn read(reader: &mut Reader) -> Result<Self> {
        let count = reader.u32("a number of relations")?;
        reader.u8("options")?;
        let mut relations = Vec::with_capacity((count as usize).min(reader.remaining() / 4));
        for _ in 0..count {
            relations.push(reader.u32("a relation's OID")?);
        }
        Ok(Self { relations })
    }
}

/// `M`: words of an application (`pg_logical_emit_message`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// Whether it belongs to the transaction around it.
    pub transactional: bool,
    /// LSN of its record.
    pub record: Lsn,
    /// Whose words they are.
    pub prefix: String,
    /// The words.
    pub content: Bytes,
}

impl Logical {
    fn read(reader: &mut Reader) -> Result<Self> {
        Ok(Self {
            transactional: reader.u8("flags")? & 1 != 0,
            record: reader.lsn()?,
            prefix: reader.string("a prefix")?,
            content: reader.counted("a message's content")?,
        })
    }
}

#[cfg(test)]
mod tests;
