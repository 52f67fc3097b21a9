//! Somebody who changes the shape of the tables: further columns come, go and change names, partitions
//! are attached and detached. What the writers write to stays. I/O; what is done next is drawn from the seed
//! and from what is there, because a change that failed may have been made all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::{Client, Config};

use super::tables::{TABLES, Table};
use super::writer;

/// Locks are held by the writers; a change that waits holds them all up.
const SESSION: &str = "set lock_timeout = '300ms'; set statement_timeout = '20s'";
/// Longest wait for one change: the source may be frozen.
const CHANGE_LIMIT: Duration = Duration::from_secs(40);
/// Most further columns of a table.
const COLUMNS_MAX: usize = 4;
/// Numbers of further columns and partitions.
const NUMBERS: u32 = 6;

/// Until told to stop.
pub async fn run(config: Config, seed: u64, stop: Arc<AtomicBool>, log: impl Fn(String) + Send + 'static) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7368);
    let mut session = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..2_500))).await;
        if session.is_none() {
            session = open(&config).await;
        }
        let Some(client) = &session else { continue };
        match tokio::time::timeout(CHANGE_LIMIT, change(client, &mut rng)).await {
            Ok(Ok(sql)) => log(format!("shape: {sql}")),
            Ok(Err(error)) => {
                log(format!("shape: {error}"));
                session = None;
            }
            Err(late) => {
                log(format!("shape: {late}"));
                session = None;
            }
        }
    }
}

async fn open(config: &Config) -> Option<Client> {
    let client = writer::connect(config).await.ok()?;
    client.batch_execute(SESSION).await.ok()?;
    Some(client)
}

/// A last change of every table's rows, so that the stream is told of its last shape.
pub async fn touch(client: &Client) -> Result<(), String> {
    for table in TABLES {
        let sql = match table.appended {
            true => format!("insert into {} (n) values (0)", table.name),
            false => format!("update {} set n = n + 1", table.name),
        };
        client.batch_execute(&sql).await.map_err(|error| format!("{sql}: {error}"))?;
    }
    Ok(())
}

/// A further column: its name, whether it is an integer.
struct Further {
    name: String,
    is_int: bool,
}

async fn further(client: &Client, table: &str) -> Result<Vec<Further>, String> {
    let sql = "select attname::text, atttypid = 'int4'::regtype from pg_attribute
                where attrelid = $1::text::regclass and attname like 'x\\_%' and not attisdropped order by attname";
    let rows = client.query(sql, &[&table]).await.map_err(|error| error.to_string())?;
    Ok(rows.iter().map(|row| Further { name: row.get(0), is_int: row.get(1) }).collect())
}

/// Makes a change; gives what it was.
async fn change(client: &Client, rng: &mut StdRng) -> Result<String, String> {
    let table = &TABLES[rng.random_range(0..TABLES.len())];
    let sql = match table.name == "regions" && rng.random_bool(0.5) {
        true => partitions(client, rng).await?,
        false => columns(table, &further(client, table.name).await?, rng),
    };
    let ran = client.batch_execute(&sql).await.map_err(|error| format!("{sql}: {error}"));
    if ran.is_err() {
        // Refused, such as for a lock: the session goes on.
        client.batch_execute("rollback").await.map_err(|error| error.to_string())?;
    }
    Ok(ran.map_or_else(|error| error, |()| sql))
}

fn columns(table: &Table, further: &[Further], rng: &mut StdRng) -> String {
    let name = table.name;
    let free = format!("x_{}", rng.random_range(0..NUMBERS));
    let is_free = further.iter().all(|column| column.name != free);
    if further.is_empty() || (is_free && further.len() < COLUMNS_MAX && rng.random_bool(0.3)) {
        return add(table, &free, rng);
    }
    let Further { name: column, is_int } = &further[rng.random_range(0..further.len())];
    match rng.random_range(0..12) {
        0..2 if is_free => format!("alter table {name} rename {column} to {free}"),
        0..4 => format!("alter table {name} drop {column}"),
        // Of the same name: another column.
        4 => format!("begin; alter table {name} drop {column}; {}; commit", add(table, column, rng)),
        5 if *is_int && rng.random_bool(0.3) => format!("alter table {name} alter {column} type bigint"),
        _ if table.appended => {
            format!("insert into {name} (n, {column}) select i, null from generate_series(1, 3) i")
        }
        _ => write(table, column, rng),
    }
}

fn add(table: &Table, column: &str, rng: &mut StdRng) -> String {
    let kind = match rng.random_range(0..10) {
        0..3 => "int",
        3..5 => "text",
        5 => "int not null default 5",
        6 => "text default 'it''s a constant'",
        7 => "numeric(12, 3) not null default 1.5",
        8 => "timestamptz default now()",
        _ if rng.random_bool(0.3) => "double precision not null default random()",
        _ => "bigint",
    };
    let added = format!("alter table {} add {column} {kind}", table.name);
    match rng.random_bool(0.5) && !table.appended {
        true => format!("{added}; {}", write(table, column, rng)),
        false => added,
    }
}

/// A value that every type of ours but one takes; that one refuses it, which changes nothing.
fn write(table: &Table, column: &str, rng: &mut StdRng) -> String {
    let (name, part) = (table.name, rng.random_range(0..8));
    let value = match rng.random_range(0..4) {
        0 => "default".to_owned(),
        1 => "'2026-03-04 05:06:07+00'".to_owned(),
        _ => format!("'{part}'"),
    };
    format!("update {name} set {column} = {value} where n % 8 = {part}")
}

/// Partitions of values that the writers do not use.
async fn partitions(client: &Client, rng: &mut StdRng) -> Result<String, String> {
    let number = rng.random_range(0..NUMBERS);
    let (name, value) = (format!("regions_x{number}"), 10 + number);
    let sql = "select c.relispartition from pg_class c where c.relname = $1::text and c.relkind = 'r'";
    let found = client.query_opt(sql, &[&name]).await.map_err(|error| error.to_string())?;
    let attach = format!("alter table regions attach partition {name} for values in ({value})");
    Ok(match found.map(|row| row.get::<_, bool>(0)) {
        None => format!(
            "begin; create table {name} (like regions including all);
             insert into {name} (region, id, n, big) select {value}, i, i, repeat('x', i * 20) from generate_series(1, 200) i;
             {attach}; commit"
        ),
        Some(true) if rng.random_bool(0.5) => format!("alter table regions detach partition {name}"),
        Some(true) => format!("update regions set n = n + 1, big = 'new' where region = {value} and id % 3 = 0; delete from regions where region = {value} and id % 50 = 7"),
        // What it lacks by now it would be refused for.
        Some(false) if rng.random_bool(0.5) => attach,
        Some(false) => format!("drop table {name}"),
    })
}
