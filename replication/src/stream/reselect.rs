//! Reads unchanged large values from the source. I/O; the text of the query is made purely.
//!
//! One query for up to [`KEYS_MAX`] rows of a table returns the missing columns and its own snapshot.
//! It counts only if that snapshot sees the transactions of all these rows (see `snapshot`); else it is
//! asked again. What is found is the value at the change or a later one, whose own change follows with
//! a higher version. Of a key that is not found a delete or a key change follows: the row is left out.
//!
//! The source is asked by the names that table and columns have now: the log may tell of their renaming
//! later. For a column that is gone nothing is asked, and the row gets the default of its type: that the
//! column is dropped follows in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millrace_terms::{Code, Error, Lsn, Result, quote_ident};
use postgres_types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_util::sync::CancellationToken;

use super::lane::PendingRow;
use super::schema::{Widening, widening};
use super::side::Side;
use super::snapshot::Snapshot;
use super::toast::{Row, Value};
use crate::postgres::{Session, epoch, from_sql};
use crate::table::TablePlan;

/// Pauses until a snapshot sees what was sent.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(500);

/// Attempts to ask by names that become others between two statements.
const NAMES_TRIES: u32 = 5;

/// What the table and its columns are called now, and how values of the key are compared. A type from
/// an extension brings its own `=`, which no search path of ours leads to.
///
/// A type is called by its catalogue name: SQL's names of some (`character`, `bit`) stand for one
/// character or bit, and a value would be cut to that.
const COLUMNS: &str = "
select a.attnum, pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(y.typname),
       coalesce((select pg_catalog.quote_ident(n.nspname) from pg_catalog.pg_operator o
                   join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
                  where o.oprname = '=' and o.oprleft = a.atttypid and o.oprright = a.atttypid limit 1), 'pg_catalog'),
       a.atttypid, $1::oid::regclass::text, c.relkind = 'p', a.attname
  from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
       join pg_catalog.pg_type y on y.oid = a.atttypid join pg_catalog.pg_namespace s on s.oid = y.typnamespace
 where a.attrelid = $1::oid and a.attnum = any ($2::int2[]) and not a.attisdropped";

/// Completes rows, by one question. Those whose key is gone are left out. Gives the end of the log
/// behind the answer, too: what was read is the effect of commits below.
///
/// # Errors
/// `CANCELLED`; `SOURCE_TABLE_MISSING` and `TABLE_SCHEMA_CHANGED`, which are the table's; those of a
/// session.
pub(super) async fn complete(
    side: &Side,
    plan: &TablePlan,
    mut pending: Vec<PendingRow>,
    cancel: &CancellationToken,
) -> Result<(Vec<PendingRow>, Lsn)> {
    let missing = missing_columns(&pending);
    let mut pause = POLL_MIN;
    let (rows, read_end) = loop {
        let session = side.session().await?;
        let (snapshot, rows) = ask(&session, plan, &pending, &missing).await?;
        if pending.iter().all(|row| snapshot.sees(row.xid)) {
            break (rows, epoch::log_end(&session).await?);
        }
        tokio::select! {
            () = cancel.cancelled() => {
                return Err(Error::new(Code::Cancelled, "cancelled while waiting for a transaction to be visible"));
            }
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(POLL_MAX);
    };
    for (pending, found) in pending.iter_mut().zip(rows) {
        if let Some(found) = found {
            pending.row.fill(&found, |_| true);
        }
    }
    pending.retain(|pending| pending.row.is_whole());
    Ok((pending, read_end))
}

fn missing_columns(pending: &[PendingRow]) -> Vec<usize> {
    let missing = |row: &PendingRow| -> Vec<usize> {
        (0..row.row.0.len()).filter(|at| row.row.0[*at] == Value::Missing).collect()
    };
    let all: BTreeSet<usize> = pending.iter().flat_map(missing).collect();
    all.into_iter().collect()
}

/// The table as the source has it now.
struct Now {
    /// As SQL writes it.
    table: String,
    /// The columns that were looked for and are there, by their numbers.
    columns: BTreeMap<i16, ColumnNow>,
}

/// A column as the source has it now.
struct ColumnNow {
    name: String,
    kind: String,
    kind_oid: u32,
    operator_schema: String,
}

/// Asks once. For each row what was found of it, if its key is there.
async fn ask(
    session: &Session,
    plan: &TablePlan,
    pending: &[PendingRow],
    missing: &[usize],
) -> Result<(Snapshot, Vec<Option<Row>>)> {
    let mut tries = 1;
    loop {
        let now = look(session, plan, missing).await?;
        match ask_by(session, plan, &now, pending, missing).await {
            Err(error) if is_renamed(&error) && tries < NAMES_TRIES => tries += 1,
            answer => return answer.map_err(|error| failed(plan, &error)),
        }
    }
}

async fn ask_by(
    session: &Session,
    plan: &TablePlan,
    now: &Now,
    pending: &[PendingRow],
    missing: &[usize],
) -> Result<(Snapshot, Vec<Option<Row>>), Failed> {
    let key = key_columns(plan, now)?;
    let (asked, gone): (Vec<usize>, Vec<usize>) =
        missing.iter().partition(|at| now.columns.contains_key(&plan.columns[**at].attnum));
    let sql = query(plan, now, &key, &asked);
    let arrays: Vec<KeyArray<'_>> = plan
        .key
        .iter()
        .zip(&key)
        .map(|(at, column)| KeyArray { element: column.kind_oid, column: *at, rows: pending })
        .collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as _).collect();
    let answer = session.query(&sql, &parameters).await?;
    let mut snapshot = None;
    let mut found = vec![None; pending.len()];
    for row in &answer {
        if snapshot.is_none() {
            snapshot = Some(Snapshot::parse(row.get(1))?);
        }
        let place = usize::try_from(row.get::<_, i64>(0) - 1).ok().and_then(|at| found.get_mut(at));
        if let (Some(place), true) = (place, row.get(2)) {
            let mut values = vec![Value::Missing; plan.columns.len()];
            gone.iter().for_each(|column| values[*column] = Value::Default);
            for (nth, column) in asked.iter().enumerate() {
                let Raw(value) = row.get(3 + nth);
                values[*column] = match value {
                    None => Value::Null,
                    Some(value) if asks_binary(plan, *column) => Value::Binary(value),
                    Some(value) => Value::Text(value),
                };
            }
            *place = Some(Row(values));
        }
    }
    let snapshot = snapshot.ok_or_else(|| Error::new(Code::Internal, "a reselect of no rows"))?;
    Ok((snapshot, found))
}

/// Looks up the columns of the key, and those that are missing.
async fn look(session: &Session, plan: &TablePlan, missing: &[usize]) -> Result<Now> {
    let attnums: Vec<i16> = plan.key.iter().chain(missing).map(|at| plan.columns[*at].attnum).collect();
    let rows = session.query(COLUMNS, &[&plan.oid, &attnums]).await;
    let rows = rows.map_err(|error| from_sql("looking up the columns of a table", &error))?;
    let Some(first) = rows.first() else {
        return Err(Error::new(Code::SourceTableMissing, format!("{} was dropped", plan.source))
            .with("table", plan.source.to_string()));
    };
    // The rows of an ordinary table only: what inherits from it is another table as a rule.
    let only = if first.get(5) || plan.merges_heirs { "" } else { "only " };
    let mut now = Now { table: format!("{only}{}", first.get::<_, &str>(4)), columns: BTreeMap::new() };
    for row in &rows {
        let column = ColumnNow {
            name: row.get(6),
            kind: row.get(1),
            kind_oid: row.get(3),
            operator_schema: row.get(2),
        };
        now.columns.insert(row.get(0), column);
    }
    let is_other = |at: &&usize| {
        let planned = &plan.columns[**at];
        let kind = now.columns.get(&planned.attnum).map(|column| column.kind_oid);
        kind.is_some_and(|kind| widening(kind, planned.type_oid) != Some(Widening::Same))
    };
    match plan.key.iter().chain(missing).find(is_other) {
        Some(at) => {
            Err(changed(plan, format_args!("had the type of column {} changed", plan.columns[*at].name)))
        }
        None => Ok(now),
    }
}

fn key_columns<'a>(plan: &TablePlan, now: &'a Now) -> Result<Vec<&'a ColumnNow>> {
    let column = |at: &usize| {
        let column = now.columns.get(&plan.columns[*at].attnum);
        column.ok_or_else(|| changed(plan, "has lost a column of its key"))
    };
    plan.key.iter().map(column).collect()
}

fn query(plan: &TablePlan, now: &Now, key: &[&ColumnNow], asked: &[usize]) -> String {
    // A row that was found has a key. Who may read some columns only may not name `ctid`.
    let found: Vec<String> = key
        .iter()
        .map(|column| format!("pg_catalog.num_nulls(t.{}) = 0", quote_ident(&column.name)))
        .collect();
    let mut sql = format!("select r.n, pg_current_snapshot()::text, {}", found.join(" and "));
    for column in asked {
        let planned = &plan.columns[*column];
        let name = now.columns.get(&planned.attnum).map_or(&planned.name, |column| &column.name);
        let name = quote_ident(name);
        // `format` calls the type's own output function, which a cast to text does not always do.
        let value = if asks_binary(plan, *column) {
            format!("t.{name}")
        } else {
            format!("case when pg_catalog.num_nulls(t.{name}) = 0 then format('%s', t.{name}) end")
        };
        let _ = write!(sql, ", {value}");
    }
    let arrays: Vec<String> =
        key.iter().enumerate().map(|(nth, column)| format!("${}::{}[]", nth + 1, column.kind)).collect();
    let names: Vec<String> = (0..key.len()).map(|nth| format!("k{nth}")).collect();
    let _ = write!(sql, " from unnest({}) with ordinality r ({}, n)", arrays.join(", "), names.join(", "));
    let on: Vec<String> = key
        .iter()
        .zip(&names)
        .map(|(column, k)| {
            format!("t.{} operator({}.=) r.{k}", quote_ident(&column.name), column.operator_schema)
        })
        .collect();
    let _ = write!(sql, " left join {} t on {} order by r.n", now.table, on.join(" and "));
    sql
}

fn asks_binary(plan: &TablePlan, column: usize) -> bool {
    plan.columns[column].conversion.binary_known()
}

fn changed(plan: &TablePlan, what: impl std::fmt::Display) -> Error {
    Error::new(Code::TableSchemaChanged, format!("{} {what}", plan.source))
        .with("table", plan.source.to_string())
}

/// Why the source could not be asked.
enum Failed {
    /// The answer of the source.
    Sql(tokio_postgres::Error),
    /// What we found ourselves.
    Ours(Error),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Failed::Sql(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Ours(error)
    }
}

fn state(error: &Failed) -> Option<&str> {
    match error {
        Failed::Sql(error) => error.code().map(tokio_postgres::error::SqlState::code),
        Failed::Ours(_) => None,
    }
}

/// Whether a table, schema or column that was there a moment ago is not: it may have another name.
fn is_renamed(error: &Failed) -> bool {
    matches!(state(error), Some("42703" | "42P01" | "3F000"))
}

fn failed(plan: &TablePlan, error: &Failed) -> Error {
    match (state(error), error) {
        // A column is gone or has another type.
        (Some("42703" | "42883" | "42804"), _) => changed(plan, "has changed its columns"),
        (_, Failed::Sql(error)) => {
            from_sql("reading unchanged values", error).with("table", plan.source.to_string())
        }
        (_, Failed::Ours(error)) => error.clone(),
    }
}

/// The values of one key column of all rows, as an array in the form in which they came.
#[derive(Debug)]
struct KeyArray<'a> {
    element: u32,
    column: usize,
    rows: &'a [PendingRow],
}

impl KeyArray<'_> {
    fn values(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter().filter_map(|row| row.row.0.get(self.column))
    }

    fn is_binary(&self) -> bool {
        self.values().any(|value| matches!(value, Value::Binary(_)))
    }

    /// One dimension from 1 (PostgreSQL source, `array_recv`).
    fn write_binary(&self, out: &mut BytesMut) -> Result<(), Box<dyn std::error::Error + Sync + Send>> {
        use bytes::BufMut;
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(self.element);
        out.put_i32(i32::try_from(self.rows.len())?);
        out.put_i32(1);
        for value in self.values() {
            match value {
                Value::Binary(bytes) | Value::Text(bytes) => {
                    out.put_i32(i32::try_from(bytes.len())?);
                    out.put_slice(bytes);
                }
                Value::Null | Value::Default | Value::Missing => out.put_i32(-1),
            }
        }
        Ok(())
    }

    /// Every element in double quotes (PostgreSQL documentation, section 8.15.6).
    fn write_text(&self, out: &mut BytesMut) {
        use bytes::BufMut;
        for (nth, value) in self.values().enumerate() {
            out.put_u8(if nth == 0 { b'{' } else { b',' });
            match value {
                Value::Text(bytes) | Value::Binary(bytes) => {
                    out.put_u8(b'"');
                    for byte in bytes {
                        if matches!(byte, b'"' | b'\\') {
                            out.put_u8(b'\\');
                        }
                        out.put_u8(*byte);
                    }
                    out.put_u8(b'"');
                }
                Value::Null | Value::Default | Value::Missing => out.put_slice(b"NULL"),
            }
        }
        out.put_u8(b'}');
    }
}

impl ToSql for KeyArray<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        if self.is_binary() {
            self.write_binary(out)?;
        } else {
            self.write_text(out);
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        if self.is_binary() { Format::Binary } else { Format::Text }
    }

    postgres_types::to_sql_checked!();
}

/// A value's bytes as they came.
struct Raw(Option<Bytes>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(Some(Bytes::copy_from_slice(raw))))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Operation, Stamp};

    fn rows(values: Vec<Value>) -> Vec<PendingRow> {
        let stamp = Stamp { version: 1, operation: Operation::Update, at: 0 };
        values.into_iter().map(|value| PendingRow { row: Row(vec![value]), stamp, xid: 1 }).collect()
    }

    fn encoded(rows: &[PendingRow]) -> (bool, Vec<u8>) {
        let array = KeyArray { element: 23, column: 0, rows };
        let mut out = BytesMut::new();
        array.to_sql(&Type::INT4_ARRAY, &mut out).unwrap();
        (array.is_binary(), out.to_vec())
    }

    #[test]
    fn keys_keep_the_form_in_which_they_came() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        let (binary, bytes) = encoded(&rows(vec![text("a"), text("q\"b\\c,{}"), text("NULL")]));
        assert!(!binary);
        assert_eq!(bytes, br#"{"a","q\"b\\c,{}","NULL"}"#);
        let (binary, bytes) = encoded(&rows(vec![Value::Binary(Bytes::from_static(&[0, 0, 0, 7]))]));
        assert!(binary);
        assert_eq!(
            bytes,
            [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7]
        );
    }
}
