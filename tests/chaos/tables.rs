//! The tables that are written to. Pure.

use rand::RngExt;
use rand::rngs::StdRng;

use super::values::{self, Draw};

/// A table, and how rows of it are drawn.
pub struct Table {
    /// Its name on the source; the name in ClickHouse is the same.
    pub name: &'static str,
    /// What makes it.
    pub ddl: &'static str,
    /// Columns of the key.
    pub key: &'static [&'static str],
    /// The key of a number: the same number, the same key.
    pub of: fn(u32) -> Vec<String>,
    /// The other columns. One of them is `n`, a small integer.
    pub columns: &'static [(&'static str, Draw)],
    /// Whether it may be truncated.
    pub truncated: bool,
    /// Whether the source knows the key. If not, a column of its own keeps all rows different.
    pub keyed: bool,
    /// Whether rows are only ever inserted.
    pub appended: bool,
}

/// All of them. Keys of several types, a second unique index, composite and partitioned keys, each
/// kind of replica identity, columns of every family of types.
pub const TABLES: &[Table] = &[
    Table {
        name: "accounts",
        ddl: "create table accounts (id bigint primary key, handle int unique, n int, name text, big text, balance numeric(20,4), tags text[]);
              alter table accounts alter column big set storage external",
        key: &["id"],
        of: |i| vec![i.to_string()],
        columns: &[
            ("handle", handle),
            ("n", values::integer),
            ("name", values::short_text),
            ("big", values::large_text),
            ("balance", values::decimal),
            ("tags", values::words),
        ],
        truncated: false,
        keyed: true,
        appended: false,
    },
    Table {
        name: "words",
        ddl: "create table words (word text primary key, n int, big text, raw bytea, body jsonb);
              alter table words alter column big set storage external",
        key: &["word"],
        of: |i| vec![format!("key '{i}' \\ \"ü\"")],
        columns: &[
            ("n", values::integer),
            ("big", values::large_text),
            ("raw", values::bytes),
            ("body", values::json),
        ],
        truncated: true,
        keyed: true,
        appended: false,
    },
    Table {
        name: "pairs",
        ddl: "create table pairs (n int, a uuid, b date, at timestamptz, local timestamp, day date, twice int generated always as (n * 2) stored, primary key (b, a))",
        key: &["a", "b"],
        of: |i| vec![format!("00000000-0000-4000-8000-{:012x}", i / 7), format!("2026-01-{:02}", i % 7 + 1)],
        columns: &[
            ("n", values::integer),
            ("at", values::timestamp),
            ("local", values::timestamp),
            ("day", values::date),
        ],
        truncated: true,
        keyed: true,
        appended: false,
    },
    Table {
        name: "regions",
        ddl: "create table regions (region int, id int, n int, big text, mood mood, primary key (region, id)) partition by list (region);
              create table regions_0 partition of regions for values in (0);
              create table regions_1 partition of regions for values in (1);
              create table regions_rest partition of regions default",
        key: &["region", "id"],
        of: |i| vec![(i % 4).to_string(), (i / 4).to_string()],
        columns: &[("n", values::integer), ("big", values::large_text), ("mood", values::mood)],
        truncated: false,
        keyed: true,
        appended: false,
    },
    Table {
        name: "whole",
        ddl: "create table whole (id int primary key, n int, big text, x double precision, exact numeric, flag boolean);
              alter table whole replica identity full",
        key: &["id"],
        of: |i| vec![i.to_string()],
        columns: &[
            ("n", values::integer),
            ("big", values::large_text),
            ("x", values::double),
            ("exact", values::numeric),
            ("flag", values::boolean),
        ],
        truncated: true,
        keyed: true,
        appended: false,
    },
    Table {
        name: "indexed",
        ddl: "create table indexed (n int, code varchar(40) not null, at timestamptz not null, big text, list int[]);
              create unique index indexed_key on indexed (at, code);
              alter table indexed replica identity using index indexed_key",
        key: &["code", "at"],
        of: |i| vec![format!("c{}", i / 5), format!("2026-02-{:02} 12:34:56.789+00", i % 5 + 1)],
        columns: &[("n", values::integer), ("big", values::large_text), ("list", values::integers)],
        truncated: false,
        keyed: true,
        appended: false,
    },
    Table {
        name: "keyless",
        ddl: "create table keyless (line bigserial, id int, n int, name text, x double precision, at timestamptz);
              alter table keyless replica identity full",
        key: &["id"],
        of: |i| vec![i.to_string()],
        columns: &[
            ("n", values::integer),
            ("name", values::short_text),
            ("x", values::double),
            ("at", values::timestamp),
        ],
        truncated: true,
        keyed: false,
        appended: false,
    },
    Table {
        name: "bulk",
        ddl: "create table bulk (id bigint primary key, n int, filler text);
              insert into bulk select i, i % 1000, repeat(md5(i::text), 12) from generate_series(1, 30000) i",
        key: &["id"],
        of: |i| vec![(u64::from(i) * 211).to_string()],
        columns: &[("n", values::integer), ("filler", values::short_text)],
        truncated: false,
        keyed: true,
        appended: false,
    },
    Table {
        name: "journal",
        ddl: "create table journal (line bigserial, n int, name text, at timestamp)",
        key: &[],
        of: |_| Vec::new(),
        columns: &[("n", values::integer), ("name", values::short_text), ("at", values::timestamp)],
        truncated: false,
        keyed: false,
        appended: true,
    },
];

/// What the tables need before they are made.
pub const TYPES: &str = "create type mood as enum ('glad', 'sad', 'so so')";

/// Values of the second unique index: they collide now and then.
fn handle(rng: &mut StdRng) -> values::Value {
    if rng.random_bool(0.2) { None } else { Some(rng.random_range(0..20 * values::KEYS).to_string()) }
}
