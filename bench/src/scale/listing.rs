//! How long the API takes to show mirrors, where there are many. I/O.

use std::time::Instant;

use anyhow::ensure;
use millrace_proto::v1::mirror::Mode;

use crate::api::asked;
use crate::bed::Bed;
use crate::report::{Line, Rounds};
use crate::seen::latencies;
use crate::{Scope, say};

/// Tables of each of the many mirrors.
const TABLES: usize = 10;
/// Calls of which the latencies are told.
const CALLS: usize = 50;
const MODEL: &str = "model";
const LARGE: &str = "large";

/// Fills the catalog, and asks for what is in it.
///
/// # Errors
/// If something does not work.
pub async fn measure(bed: &mut Bed, scope: &Scope) -> anyhow::Result<Vec<Line>> {
    let (mirrors, times) = scope.or_small((200, 200), (3, 2));
    make_model(bed).await?;
    let catalog = bed.catalog().await?;
    catalog.batch_execute(&copies(mirrors, times)).await?;
    let large = times * TABLES;
    let mut rounds = [Rounds::default(), Rounds::default(), Rounds::default()];
    for _ in 0..scope.rounds {
        let (mut small_took, mut large_took, mut list_took) = (Vec::new(), Vec::new(), Vec::new());
        for call in 0..scope.or_small(CALLS, 2) {
            small_took.push(get(bed, &format!("{MODEL}-{}", call % mirrors + 1), TABLES).await?);
            large_took.push(get(bed, LARGE, large).await?);
            let began = Instant::now();
            // The model itself, and the large one.
            ensure!(bed.api.list().await? == mirrors + 2, "not all mirrors are listed");
            list_took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        for (rounds, took) in rounds.iter_mut().zip([small_took, large_took, list_took]) {
            let figures = latencies(took);
            say(&format!("the API: {figures:.1?}"));
            rounds.add(figures);
        }
    }
    let names = [
        format!("api: GetMirror of {TABLES} tables"),
        format!("api: GetMirror of {large} tables"),
        format!("api: ListMirrors, {mirrors} of {TABLES} tables and one of {large}"),
    ];
    Ok(names.into_iter().zip(&rounds).map(|(name, rounds)| rounds.line(name)).collect())
}

async fn get(bed: &mut Bed, name: &str, tables: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mirror = bed.api.get(name).await?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(mirror.tables.len() == tables, "{name} has {} tables", mirror.tables.len());
    Ok(took)
}

/// The mirror that all others are like. It is paused: nobody works on those that are only in the catalog.
async fn make_model(bed: &mut Bed) -> anyhow::Result<()> {
    let tables: Vec<String> = (0..TABLES).map(|number| format!("model{number}")).collect();
    for table in &tables {
        bed.source.batch_execute(&format!("create table {table} (id bigint primary key, v text)")).await?;
    }
    let mut mirror = asked(MODEL, &tables);
    mirror.mode = Mode::StreamOnly.into();
    bed.api.create_mirror(mirror).await?;
    bed.api.wait_until_streaming(MODEL).await?;
    bed.api.pause(MODEL).await
}

/// The statements that copy the model's rows under other names, and once with each table many times.
fn copies(mirrors: usize, times: usize) -> String {
    let source = "regexp_replace(source_name, '$', '_' || k)";
    let add = |name: &str, k: &str| {
        format!(
            "drop table if exists m, s, t; \
             create temp table m as select * from mirrors where name = '{MODEL}'; \
             update m set name = {name}, spec = spec || jsonb_build_object('name', {name}, 'tables', \
               (select jsonb_agg(asked || jsonb_build_object('source', asked ->> 'source' || '_' || k, \
                  'destination', asked ->> 'destination' || '_' || k)) \
                from jsonb_array_elements(spec -> 'tables') as e (asked), {k} k)); \
             create temp table s as select * from streams where mirror = '{MODEL}'; \
             update s set mirror = {name}, slot = slot || {name}, publication = publication || {name}; \
             create temp table t as select mirror_tables.*, k from mirror_tables, {k} k where mirror = '{MODEL}'; \
             update t set id = nextval(pg_get_serial_sequence('mirror_tables', 'id')), mirror = {name}, \
               source_name = {source}, destination = destination || '_' || k; \
             alter table t drop column k; \
             insert into mirrors select * from m; insert into streams select * from s; \
             insert into mirror_tables overriding system value select * from t; "
        )
    };
    format!(
        "do $$ begin for nth in 1..{mirrors} loop {} end loop; {} end $$",
        add(&format!("'{MODEL}-' || nth"), "generate_series(nth, nth)"),
        add(&format!("'{LARGE}'"), &format!("generate_series(1, {times})")),
    )
}
