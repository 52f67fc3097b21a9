//! The beginning and the end of the transaction in which a partition is read. I/O.

use millrace_terms::{Code, Error, Lsn, Result, TableName};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::shape::Column;
use super::sql;
use crate::postgres::partition::Partition;
use crate::postgres::{Session, describe, from_sql};

/// Attempts to lock a leaf whose name becomes another between two statements. More than anybody renames
/// a table in a row; then it is planned anew.
const ATTEMPTS: u32 = 5;

/// A leaf that is locked against every change of its columns and its file.
#[derive(Debug)]
pub(super) struct Locked {
    /// What it is called now.
    pub(super) leaf: TableName,
    /// The columns of its table.
    pub(super) columns: Vec<Column>,
}

/// Begins the transaction and keeps the leaf as it is. None, and no transaction, if it is not the file that
/// was planned, or does not exist any more.
///
/// # Errors
/// Those of [`from_sql`]; the session must then be closed.
pub(super) async fn lock(session: &Session, partition: &Partition, table: u32) -> Result<Option<Locked>> {
    let mut leaf = partition.leaf.clone();
    for _ in 0..ATTEMPTS {
        match session.simple_query(&sql::lock(&leaf, table)).await {
            Ok(messages) => {
                let mut rows = rows(&messages);
                let found = rows.next().ok_or_else(untold)?;
                let (oid, file) = (number(found, 0)?, number(found, 1)?);
                if (oid, file) == (partition.leaf_oid, partition.filenode) {
                    let columns = rows.map(column).collect::<Result<_>>()?;
                    return Ok(Some(Locked { leaf, columns }));
                }
                roll_back(session).await?;
                if oid == partition.leaf_oid {
                    return Ok(None);
                }
            }
            Err(error) => {
                let error = from_sql("locking the table", &error);
                if error.code() != Code::SourceTableMissing {
                    return Err(error);
                }
                roll_back(session).await?;
            }
        }
        // It bears another name, if it is there at all.
        match describe::name_of(session, partition.leaf_oid).await? {
            Some(name) => leaf = name,
            None => return Ok(None),
        }
    }
    Ok(None)
}

async fn roll_back(session: &Session) -> Result<()> {
    session.batch_execute("rollback").await.map_err(|error| from_sql("ending the transaction", &error))
}

/// Asks for the position behind everything that was read, and ends the transaction.
///
/// # Errors
/// Those of [`from_sql`].
pub(super) async fn end(session: &Session) -> Result<Lsn> {
    let messages =
        session.simple_query(sql::END).await.map_err(|error| from_sql("ending the copy", &error))?;
    let position = rows(&messages).find_map(|row| row.get(0)?.parse().ok());
    position.ok_or_else(|| Error::new(Code::SourceError, "the source did not tell its log position"))
}

/// The rows of an answer.
pub(super) fn rows(messages: &[SimpleQueryMessage]) -> impl Iterator<Item = &SimpleQueryRow> {
    messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// A row of [`sql::columns`].
///
/// # Errors
/// `SOURCE_ERROR` if it is none.
pub(super) fn column(row: &SimpleQueryRow) -> Result<Column> {
    Ok(Column {
        attnum: number(row, 0)?,
        name: row.get(1).ok_or_else(untold)?.to_owned(),
        type_oid: number(row, 2)?,
        typmod: number(row, 3)?,
        nullable: row.get(4) == Some("t"),
        is_virtual: row.get(5) == Some("t"),
    })
}

fn number<T: std::str::FromStr>(row: &SimpleQueryRow, column: usize) -> Result<T> {
    row.get(column).and_then(|text| text.parse().ok()).ok_or_else(untold)
}

fn untold() -> Error {
    Error::new(Code::SourceError, "the source did not tell what it has locked")
}
