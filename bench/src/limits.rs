//! What the databases do without us, each measured as we are. I/O.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use tokio::process::Command;

use crate::bed::{Bed, DATABASE};
use crate::meter::{Meter, Parts};

/// Seconds that something took, and what it used.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub seconds: f64,
    pub parts: Parts,
}

/// Reads a table by `psql` in so many ranges of pages at once, binary, to nothing.
///
/// # Errors
/// If `psql` is not there or fails.
pub async fn copy_to_null(bed: &Bed, table: &str, ranges: u64) -> anyhow::Result<Taken> {
    let pages =
        bed.value(&format!("pg_relation_size('{table}') / current_setting('block_size')::int8")).await?;
    let pages: u64 = pages.parse()?;
    let url = url(bed)?;
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    let bound = |at: u64| pages * at / ranges;
    try_join_all((0..ranges).map(|at| {
        let last = if at + 1 == ranges { u64::from(u32::MAX) } else { bound(at + 1) };
        let sql = format!(
            "copy (select * from {table} where ctid >= '({},0)' and ctid < '({last},0)') to stdout (format binary)",
            bound(at)
        );
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &sql, &url]);
        quiet(psql)
    }))
    .await?;
    Ok(Taken { seconds: began.elapsed().as_secs_f64(), parts: meter.end()? })
}

/// Has ClickHouse read the table itself, into a table as ours.
///
/// # Errors
/// ClickHouse's.
pub async fn by_clickhouse(bed: &Bed, table: &str, like: &str) -> anyhow::Result<Taken> {
    let target = format!("{DATABASE}.by_itself");
    bed.clickhouse.execute(&format!("drop table if exists {target} sync")).await?;
    bed.clickhouse.execute(&format!("create table {target} as {DATABASE}.{like}")).await?;
    let config = &bed.source_config;
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => anyhow::bail!("the source has no TCP address"),
    };
    let port = config.get_ports().first().context("the source's port")?;
    let user = config.get_user().context("the source's user")?;
    let password =
        String::from_utf8_lossy(config.get_password().context("the source's password")?).into_owned();
    let columns = bed
        .clickhouse
        .text(&format!(
            "select arrayStringConcat(groupArray(name), ',') from (select name from system.columns \
             where database = '{DATABASE}' and table = '{like}' and not startsWith(name, '_') order by position)"
        ))
        .await?;
    let sql = format!(
        "insert into {target} ({columns}) select {columns} \
         from postgresql('{host}:{port}', '{DATABASE}', '{table}', '{user}', '{password}')"
    );
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    bed.clickhouse.execute(&sql).await?;
    let taken = Taken { seconds: began.elapsed().as_secs_f64(), parts: meter.end()? };
    bed.clickhouse.execute(&format!("drop table {target} sync")).await?;
    Ok(taken)
}

/// Reads a slot up to a position by `pg_recvlogical`, to nothing.
///
/// # Errors
/// If `pg_recvlogical` is not there or fails.
pub async fn recvlogical(bed: &Bed, slot: &str, publication: &str, end: &str) -> anyhow::Result<Taken> {
    let url = url(bed)?;
    let publication = format!("publication_names=\"{publication}\"");
    let meter = Meter::begin(&bed.stack)?;
    let began = Instant::now();
    let mut command = Command::new("pg_recvlogical");
    command.args(["--dbname", &url, "--slot", slot, "--start", "--no-loop", "--fsync-interval=0"]).args([
        "-o",
        "proto_version=1",
        "-o",
        &publication,
        "--endpos",
        end,
        "-f",
        "-",
    ]);
    quiet(command).await?;
    Ok(Taken { seconds: began.elapsed().as_secs_f64(), parts: meter.end()? })
}

/// Runs a program whose output nobody reads.
async fn quiet(mut command: Command) -> anyhow::Result<()> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().await;
    let output = output.with_context(|| format!("running {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The source's database, for programs of PostgreSQL.
fn url(bed: &Bed) -> anyhow::Result<String> {
    let config = &bed.source_config;
    let password =
        String::from_utf8_lossy(config.get_password().context("the source's password")?).into_owned();
    let port = config.get_ports().first().context("the source's port")?;
    let user = config.get_user().context("the source's user")?;
    Ok(format!("postgres://{user}:{password}@127.0.0.1:{port}/{DATABASE}"))
}
