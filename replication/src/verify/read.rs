//! Reads the rows of a range from both sides, as digests that can be compared. I/O.
//!
//! The source's rows go through the transcoders that replicate them, so what is compared is what would
//! be written; the destination's are read in the types that were sent (see `form`). The digest is of 128
//! bits: that two rows which differ have the same one does not happen.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use millrace_terms::Result;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::columns::{self, Column};
use super::form::{self, Form};
use super::order::{Order, Range};
use crate::block::{Block, Operation, Stamp};
use crate::clickhouse::Clickhouse;
use crate::clickhouse::ddl::{self, quote_ident};
use crate::copy::{self, Reader, column_expression};
use crate::postgres::{Session, from_sql};
use crate::table::TablePlan;
use crate::types::Field;

/// Rows and bytes of the source that are transcoded at a time.
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 4 << 20;

/// One table on both sides.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// A session on the source with no transaction open.
    pub session: &'a Session,
    /// The destination.
    pub sink: &'a Clickhouse,
    /// The table.
    pub plan: &'a Arc<TablePlan>,
    /// By what its ranges are made.
    pub order: &'a Order,
    /// Whether its rows are in relations beneath it.
    pub with_heirs: bool,
}

/// A digest of 128 bits.
pub(super) type Digest = u128;

/// What is told of a row while it is read.
pub(super) struct Seen<'a> {
    /// Of its sorting key.
    pub(super) key: Digest,
    /// Of all its columns that can be compared.
    pub(super) digest: Digest,
    /// Its version; 0 for a row of the source.
    pub(super) version: u128,
    /// What names it to the destination's server; empty for a row of the source.
    pub(super) handle: &'a [u8],
    /// As COPY gave it; empty for a row of the destination.
    pub(super) raw: &'a [u8],
    columns: &'a [&'a Column<'a>],
    row: usize,
    texts: Vec<Option<&'a [u8]>>,
}

impl Seen<'_> {
    /// A digest of each column that can be compared.
    pub(super) fn columns(&self) -> Vec<u64> {
        let mut bytes = Vec::new();
        let digest = |column: &&Column<'_>| {
            bytes.clear();
            column.write(self.row, false, &mut bytes);
            digest(&bytes) as u64
        };
        self.columns.iter().map(digest).collect()
    }

    /// The texts that were asked for.
    pub(super) fn texts(&self) -> Vec<Option<String>> {
        let text = |text: &Option<&[u8]>| text.map(|text| String::from_utf8_lossy(text).into_owned());
        self.texts.iter().map(text).collect()
    }
}

/// The columns of a plan that can be compared, as indexes into it.
pub(super) fn comparable(plan: &TablePlan) -> Vec<usize> {
    let is_read = |at: &usize| {
        plan.columns.get(*at).is_some_and(|column| matches!(form::of(column), Form::Read { .. }))
    };
    (0..plan.columns.len()).filter(is_read).collect()
}

/// Those of them that the server holds in another type than was sent.
pub(super) fn converted(plan: &TablePlan) -> Vec<usize> {
    let is_converted = |at: &usize| {
        let form = plan.columns.get(*at).map(form::of);
        matches!(form, Some(Form::Read { holds: Some(_), .. }))
    };
    (0..plan.columns.len()).filter(is_converted).collect()
}

/// The names of columns that cannot be compared, each with the reason.
pub fn incomparable(plan: &TablePlan) -> Vec<(String, String)> {
    let reason = |column: &crate::table::ColumnPlan| match form::of(column) {
        Form::Incomparable(why) => Some((column.name.clone(), why)),
        Form::Read { .. } => None,
    };
    plan.columns.iter().filter_map(reason).collect()
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

/// What every row of one read has in common.
struct Shape {
    /// Where the columns that can be compared stand in a block.
    compared: Vec<usize>,
    /// Which of those are the sorting key.
    key: Vec<usize>,
}

impl Shape {
    /// `place` says where a column of the plan stands, by its place among those that can be compared.
    fn of(plan: &TablePlan, place: impl Fn(usize, usize) -> usize) -> Self {
        let compared = comparable(plan);
        let key = plan.order_by.iter().filter_map(|at| compared.iter().position(|of| of == at)).collect();
        let compared = compared.iter().enumerate().map(|(nth, at)| place(nth, *at)).collect();
        Self { compared, key }
    }

    fn columns<'b>(&self, block: &'b columns::Block<'b>) -> Vec<&'b Column<'b>> {
        self.compared.iter().filter_map(|at| block.columns.get(*at)).collect()
    }

    /// Digests of key and row.
    fn digests(&self, columns: &[&Column<'_>], row: usize, bytes: &mut Vec<u8>) -> (Digest, Digest) {
        bytes.clear();
        self.key.iter().filter_map(|at| columns.get(*at)).for_each(|column| column.write(row, true, bytes));
        let key = digest(bytes);
        bytes.clear();
        columns.iter().for_each(|column| column.write(row, false, bytes));
        (key, digest(bytes))
    }
}

impl Sides<'_> {
    /// Reads the source's rows of a range, and the text of the columns `texts` of each.
    ///
    /// # Errors
    /// `VALUE_UNREPRESENTABLE`, and those of [`from_sql`]. The session must be closed then.
    pub(super) async fn read_source(
        &self,
        range: &Range,
        texts: &[usize],
        mut each: impl FnMut(&Seen<'_>) -> Result<()>,
    ) -> Result<()> {
        let sql = self.source_statement(range, texts);
        let stream =
            self.session.copy_out(&sql).await.map_err(|error| from_sql("reading the source", &error))?;
        pin_mut!(stream);
        let mut batch = Batch::new(self);
        let mut reader = Reader::new(self.plan.columns.len() + texts.len());
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| from_sql("reading the source", &error))?;
            reader.feed(&piece, |row| batch.push(row))?;
            if batch.is_full() {
                batch.hand_on(&mut each)?;
            }
        }
        reader.finish()?;
        batch.hand_on(&mut each)
    }

    fn source_statement(&self, range: &Range, texts: &[usize]) -> String {
        let values = self.plan.columns.iter().map(column_expression);
        let texts = texts.iter().filter_map(|at| self.plan.columns.get(*at));
        let selected: Vec<String> = values.chain(texts.map(copy::text_expression)).collect();
        let relation = super::relation(self.plan, self.with_heirs);
        let condition = self.order.on_source(range).map(|it| format!(" where {it}")).unwrap_or_default();
        format!("copy (select {} from {relation}{condition}) to stdout (format binary)", selected.join(", "))
    }

    /// Reads the destination's rows of a range as FINAL has them, and the text of the columns `texts` of each.
    ///
    /// # Errors
    /// By the server's code.
    pub(super) async fn read_destination(
        &self,
        range: &Range,
        texts: &[usize],
        mut each: impl FnMut(&Seen<'_>) -> Result<()>,
    ) -> Result<()> {
        let shape = Shape::of(self.plan, |nth, _| nth);
        let count = shape.compared.len();
        let mut bytes = Vec::new();
        let sql = self.destination_statement(range, texts);
        let mut on_block = |block: &columns::Block<'_>| {
            let columns = shape.columns(block);
            let further = |at: usize| block.columns.get(count + at);
            for row in 0..block.rows {
                let (key, mut digest) = shape.digests(&columns, row, &mut bytes);
                // A value that nobody can have sent.
                if further(1).is_some_and(|holds| holds.number(row) == 0) {
                    digest = !digest;
                }
                each(&Seen {
                    key,
                    digest,
                    version: further(0).map_or(0, |version| version.number(row)),
                    handle: further(2).and_then(|handle| handle.text(row)).unwrap_or_default(),
                    raw: &[],
                    columns: &columns,
                    row,
                    texts: (0..texts.len()).map(|at| further(3 + at)?.text(row)).collect(),
                })?;
            }
            Ok(())
        };
        let mut reader = columns::Reader::default();
        self.sink.read_native(&sql, true, |piece| reader.feed(piece, &mut on_block)).await?;
        reader.finish(&mut on_block)
    }

    fn destination_statement(&self, range: &Range, texts: &[usize]) -> String {
        let (mut selected, mut conditions) = (Vec::new(), Vec::new());
        for column in &self.plan.columns {
            if let Form::Read { value, holds } = form::of(column) {
                selected.push(value);
                conditions.extend(holds);
            }
        }
        selected.push(quote_ident(&self.plan.own.version));
        let holds = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        selected.push(format!("toUInt8({holds})"));
        // Only who asks for texts wants to name rows.
        selected.push(if texts.is_empty() { "''".to_owned() } else { handle(self.plan) });
        for column in texts.iter().filter_map(|at| self.plan.columns.get(*at)) {
            selected.push(format!("toString({})", quote_ident(&column.destination)));
        }
        let named = named(selected.iter());
        self.of_destination(range, &named)
    }

    /// The highest version of each key of a range that there is, tombstones included.
    ///
    /// # Errors
    /// By the server's code.
    pub(super) async fn read_versions(
        &self,
        range: &Range,
        is_wanted: impl Fn(Digest) -> bool,
    ) -> Result<HashMap<Digest, u128>> {
        let keys = self.plan.order_by.iter().filter_map(|at| self.plan.columns.get(*at));
        let mut selected: Vec<String> = keys
            .filter_map(|column| match form::of(column) {
                Form::Read { value, .. } => Some(value),
                Form::Incomparable(_) => None,
            })
            .collect();
        let count = selected.len();
        selected.push(quote_ident(&self.plan.own.version));
        let sql = self.of_destination(range, &named(selected.iter()));
        let (mut versions, mut bytes) = (HashMap::new(), Vec::new());
        let mut on_block = |block: &columns::Block<'_>| {
            for row in 0..block.rows {
                bytes.clear();
                block.columns.iter().take(count).for_each(|column| column.write(row, true, &mut bytes));
                let key = digest(&bytes);
                if is_wanted(key) {
                    let version = block.columns.get(count).map_or(0, |version| version.number(row));
                    let highest = versions.entry(key).or_insert(0);
                    *highest = version.max(*highest);
                }
            }
            Ok(())
        };
        let mut reader = columns::Reader::default();
        self.sink.read_native(&sql, false, |piece| reader.feed(piece, &mut on_block)).await?;
        reader.finish(&mut on_block)?;
        Ok(versions)
    }

    fn of_destination(&self, range: &Range, selected: &str) -> String {
        let table = self.sink.qualified(&self.plan.destination);
        format!("SELECT {selected} FROM {table} WHERE {}", condition(self.plan, self.order, range))
    }
}

/// Expressions with names that no column of a table has: one of them would be taken for the other.
fn named<'a>(expressions: impl Iterator<Item = &'a String>) -> String {
    let named: Vec<_> =
        expressions.enumerate().map(|(at, it)| format!("{it} AS `millrace\\t{at}`")).collect();
    named.join(", ")
}

/// The condition for a row of the destination table to be this source table's, and of a range.
pub(super) fn condition(plan: &TablePlan, order: &Order, range: &Range) -> String {
    let parts: Vec<String> =
        [ddl::of_source(plan), order.on_destination(plan, range)].into_iter().flatten().collect();
    if parts.is_empty() { "1".to_owned() } else { parts.join(" AND ") }
}

/// An expression that names a row to the destination's server by its sorting key: no value of it has to
/// travel back and forth. As text, in which NULL is not the empty value.
pub(super) fn handle(plan: &TablePlan) -> String {
    let key = plan.order_by.iter().filter_map(|at| plan.columns.get(*at));
    let key: Vec<_> = key.map(|column| quote_ident(&column.destination)).collect();
    format!("hex(sipHash128(toString(tuple({}))))", key.join(", "))
}

/// Rows of the source that are transcoded together.
struct Batch {
    shape: Shape,
    block: Block,
    /// For each column whether it is read in binary form.
    binary: Vec<bool>,
    /// The rows as they came, one behind the other, and where each ends.
    raw: Vec<u8>,
    ends: Vec<usize>,
    encoded: Vec<u8>,
}

impl Batch {
    fn new(sides: &Sides<'_>) -> Self {
        let plan = sides.plan;
        Self {
            shape: Shape::of(plan, |_, at| at),
            block: Block::new(plan.clone(), sides.sink.time_range()),
            binary: plan.columns.iter().map(|column| column.conversion.binary_known()).collect(),
            raw: Vec::new(),
            ends: Vec::new(),
            encoded: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.block.rows() >= BATCH_ROWS || self.block.bytes() >= BATCH_BYTES
    }

    fn push(&mut self, row: copy::Row<'_>) -> Result<()> {
        push_row(&mut self.block, &self.binary, row, 0)?;
        self.raw.extend_from_slice(row.body());
        self.ends.push(self.raw.len());
        Ok(())
    }

    /// Hands the rows on and empties the batch.
    fn hand_on(&mut self, each: &mut impl FnMut(&Seen<'_>) -> Result<()>) -> Result<()> {
        self.encoded.clear();
        self.block.encode_native(0, &mut self.encoded)?;
        let (shape, raw, ends, width) = (&self.shape, &self.raw, &self.ends, self.binary.len());
        let mut bytes = Vec::new();
        let mut on_block = |block: &columns::Block<'_>| {
            let columns = shape.columns(block);
            let begins = std::iter::once(0).chain(ends.iter().copied());
            for (row, (begin, end)) in begins.zip(ends.iter().copied()).enumerate() {
                let (key, digest) = shape.digests(&columns, row, &mut bytes);
                let raw = raw.get(begin..end).unwrap_or_default();
                let texts = copy::Row::of_body(raw).fields().skip(width).collect();
                each(&Seen { key, digest, version: 0, handle: &[], raw, columns: &columns, row, texts })?;
            }
            Ok(())
        };
        let mut reader = columns::Reader::default();
        reader.feed(&self.encoded, &mut on_block)?;
        reader.finish(&mut on_block)?;
        self.block.clear();
        self.raw.clear();
        self.ends.clear();
        Ok(())
    }
}

/// Appends a row that COPY gave to a block.
pub(super) fn push_row(block: &mut Block, binary: &[bool], row: copy::Row<'_>, version: u128) -> Result<()> {
    for (column, (value, binary)) in row.fields().zip(binary).enumerate() {
        let field = match value {
            None => Field::Null,
            Some(bytes) if *binary => Field::Binary(bytes),
            Some(bytes) => Field::Text(bytes),
        };
        block.push_field(column, field)?;
    }
    let at = if version == 0 { 0 } else { copy::now() };
    let stamp = Stamp { version, operation: Operation::Snapshot, at };
    block.finish_row(stamp)
}
