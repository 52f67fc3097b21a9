//! Random transactions. Pure: a seed gives the same ones again, in the same order.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tables::{TABLES, Table};
use super::values::{self, KEYS, Value};

/// Keys that only a swap under way uses, one for each writer.
const SPARE_KEYS: u32 = 1_000_000;
/// Parts that a statement over many rows divides a table into.
const PARTS: u32 = 16;

/// The same for deletes: rows are to be left.
const DELETED_PARTS: u32 = 64;

/// One step of a transaction.
#[derive(Debug)]
pub enum Step {
    /// A statement.
    Sql(String),
    /// A COPY of these lines.
    Copy { statement: String, lines: String },
    /// Nothing, for so many milliseconds.
    Sleep(u64),
}

/// How a transaction ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Rollback,
    /// It is prepared, and committed or rolled back so many milliseconds later.
    Prepare {
        commit: bool,
        after: u64,
    },
}

/// One transaction.
#[derive(Debug)]
pub struct Transaction {
    /// What begins it.
    pub begin: &'static str,
    /// Its groups of steps. If it is guarded, each has a savepoint, and one that fails is left out;
    /// otherwise the whole transaction fails.
    pub groups: Vec<Vec<Step>>,
    pub guarded: bool,
    pub end: End,
    /// Milliseconds until the writer's next one.
    pub pause: u64,
}

/// The transactions of one writer.
pub struct Transactions {
    rng: StdRng,
    writer: u32,
}

impl Transactions {
    pub fn new(seed: u64, writer: u32) -> Self {
        Self { rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(writer))), writer }
    }

    /// The first rows of all tables.
    pub fn first_rows(seed: u64) -> Vec<String> {
        let mut own = Self::new(seed, u32::MAX);
        TABLES.iter().map(|table| own.insert_all(table)).collect()
    }

    fn insert_all(&mut self, table: &Table) -> String {
        let rows: Vec<Vec<Value>> = (0..KEYS).map(|key| self.row(table, key)).collect();
        format!("{} on conflict do nothing", insert(table, &rows))
    }

    /// The next transaction.
    pub fn draw(&mut self) -> Transaction {
        let begin = match self.rng.random_range(0..10) {
            0 => "begin isolation level repeatable read",
            1 => "begin isolation level serializable",
            _ => "begin",
        };
        let mut groups = Vec::new();
        for _ in 0..self.rng.random_range(1..8) {
            groups.push(self.group());
        }
        if self.rng.random_bool(0.01) {
            groups.push(vec![Step::Sleep(self.rng.random_range(1_000..4_000))]);
        }
        let guarded = self.rng.random_bool(0.5);
        let end = match self.rng.random_range(0..100) {
            0..6 => End::Rollback,
            6..10 => End::Prepare { commit: self.rng.random_bool(0.7), after: self.rng.random_range(0..800) },
            _ => End::Commit,
        };
        Transaction { begin, groups, guarded, end, pause: self.rng.random_range(0..30) }
    }

    /// Some steps, perhaps rolled back to a savepoint, perhaps kept.
    fn group(&mut self) -> Vec<Step> {
        let table = &TABLES[self.rng.random_range(0..TABLES.len())];
        let mut steps = Vec::new();
        if !self.rng.random_bool(0.25) {
            self.statement(table, &mut steps);
            return steps;
        }
        steps.push(Step::Sql("savepoint s".to_owned()));
        for _ in 0..self.rng.random_range(1..4) {
            self.statement(table, &mut steps);
        }
        let end = if self.rng.random_bool(0.6) { "rollback to s" } else { "release s" };
        steps.push(Step::Sql(end.to_owned()));
        steps
    }

    fn statement(&mut self, table: &Table, steps: &mut Vec<Step>) {
        if table.appended {
            steps.push(Step::Sql(self.insert_some(table)));
            return;
        }
        match self.rng.random_range(0..1_000) {
            0..220 => steps.push(Step::Sql(self.upsert(table))),
            220..520 => steps.push(Step::Sql(self.update(table))),
            520..560 => steps.push(Step::Sql(self.update_many(table))),
            560..680 => {
                let key = self.key();
                steps.push(Step::Sql(format!("delete from {} where {}", table.name, is_key(table, key))));
            }
            680..740 => self.replace(table, steps),
            740..840 => steps.push(Step::Sql(self.change_key(table))),
            840..900 => self.swap(table, steps),
            900..960 => self.copy(table, steps),
            960..990 => {
                let part = self.rng.random_range(0..DELETED_PARTS);
                let table = table.name;
                steps.push(Step::Sql(format!("delete from {table} where n % {DELETED_PARTS} = {part}")));
            }
            990..996 if table.truncated => steps.push(Step::Sql(format!("truncate {}", table.name))),
            _ => steps.push(Step::Sql(self.insert_some(table))),
        }
    }

    fn key(&mut self) -> u32 {
        self.rng.random_range(0..KEYS)
    }

    fn row(&mut self, table: &Table, key: u32) -> Vec<Value> {
        let mut row: Vec<Value> = (table.of)(key).into_iter().map(Some).collect();
        row.extend(table.columns.iter().map(|(_, draw)| draw(&mut self.rng)));
        row
    }

    fn rows(&mut self, table: &Table) -> Vec<Vec<Value>> {
        let mut keys: Vec<u32> = (0..self.rng.random_range(1..12)).map(|_| self.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(|key| self.row(table, key)).collect()
    }

    fn insert_some(&mut self, table: &Table) -> String {
        let rows = self.rows(table);
        format!("{} on conflict do nothing", insert(table, &rows))
    }

    fn upsert(&mut self, table: &Table) -> String {
        let rows = self.rows(table);
        if !table.keyed {
            return insert(table, &rows);
        }
        let (column, _) = table.columns[self.rng.random_range(0..table.columns.len())];
        format!(
            "{} on conflict ({}) do update set n = excluded.n + 1, {column} = excluded.{column}",
            insert(table, &rows),
            table.key.join(", ")
        )
        .replace("n = excluded.n + 1, n = excluded.n", "n = excluded.n")
    }

    /// Some columns of one row. Large ones are rarely among them: they are left as they are.
    fn update(&mut self, table: &Table) -> String {
        let mut sets = Vec::new();
        for (column, draw) in table.columns {
            if self.rng.random_bool(0.3) {
                sets.push(format!("{column} = {}", values::literal(&draw(&mut self.rng))));
            }
        }
        if sets.is_empty() {
            sets.push("n = n + 1".to_owned());
        }
        let key = self.key();
        format!("update {} set {} where {}", table.name, sets.join(", "), is_key(table, key))
    }

    fn update_many(&mut self, table: &Table) -> String {
        let part = self.rng.random_range(0..PARTS);
        format!("update {} set n = n + 1 where n % {PARTS} = {part}", table.name)
    }

    /// Deletes a row and inserts another under its key.
    fn replace(&mut self, table: &Table, steps: &mut Vec<Step>) {
        let key = self.key();
        let row = self.row(table, key);
        steps.push(Step::Sql(format!("delete from {} where {}", table.name, is_key(table, key))));
        steps.push(Step::Sql(insert(table, &[row])));
    }

    fn change_key(&mut self, table: &Table) -> String {
        let (from, to) = (self.key(), self.key());
        let free = format!("not exists (select from {} where {})", table.name, is_key(table, to));
        format!("{} and {free}", set_key(table, from, to, self.rng.random()))
    }

    /// Two rows change keys. (Their large values go along, unchanged.)
    fn swap(&mut self, table: &Table, steps: &mut Vec<Step>) {
        let (a, b, spare) = (self.key(), self.key(), SPARE_KEYS + self.writer);
        if a == b {
            return;
        }
        for (from, to) in [(a, spare), (b, a), (spare, b)] {
            steps.push(Step::Sql(set_key(table, from, to, false)));
        }
    }

    /// Deletes rows and copies others under their keys.
    fn copy(&mut self, table: &Table, steps: &mut Vec<Step>) {
        let mut rows = self.rows(table);
        if let Some(at) = table.columns.iter().position(|(column, _)| *column == "handle") {
            // It is unique, and a COPY cannot pass over a conflict.
            rows.iter_mut().for_each(|row| row[table.key.len() + at] = None);
        }
        for row in &rows {
            let parts = table
                .key
                .iter()
                .zip(row)
                .map(|(column, value)| format!("{column} = {}", values::literal(value)));
            let key = parts.collect::<Vec<_>>().join(" and ");
            steps.push(Step::Sql(format!("delete from {} where {key}", table.name)));
        }
        steps.push(Step::Copy {
            statement: format!("copy {} ({}) from stdin (format csv)", table.name, columns(table)),
            lines: rows.iter().map(|row| values::csv(row)).collect(),
        });
    }
}

fn columns(table: &Table) -> String {
    let others = table.columns.iter().map(|(column, _)| *column);
    table.key.iter().copied().chain(others).collect::<Vec<_>>().join(", ")
}

fn insert(table: &Table, rows: &[Vec<Value>]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|row| format!("({})", row.iter().map(values::literal).collect::<Vec<_>>().join(", ")))
        .collect();
    format!("insert into {} ({}) values {}", table.name, columns(table), rows.join(", "))
}

fn is_key(table: &Table, key: u32) -> String {
    let parts = table.key.iter().zip((table.of)(key));
    let parts = parts.map(|(column, value)| format!("{column} = {}", values::literal(&Some(value))));
    parts.collect::<Vec<_>>().join(" and ")
}

fn set_key(table: &Table, from: u32, to: u32, count: bool) -> String {
    let parts = table.key.iter().zip((table.of)(to));
    let parts = parts.map(|(column, value)| format!("{column} = {}", values::literal(&Some(value))));
    let mut sets: Vec<String> = parts.collect();
    if count {
        sets.push("n = n + 1".to_owned());
    }
    format!("update {} set {} where {}", table.name, sets.join(", "), is_key(table, from))
}
