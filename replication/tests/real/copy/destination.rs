//! The destination by itself: tables, deletes by version, checks, errors.

use bytes::Bytes;
use millrace_replication::block::{Block, Operation, Stamp};
use millrace_replication::clickhouse::{
    Clickhouse, ClickhouseConfig, InsertCompression, InsertId, TableState, checks,
};
use millrace_replication::types::Field;
use millrace_terms::check::Status;
use millrace_terms::{Code, TableName};

use super::work::{copy_all, insert_id, prepare};
use crate::servers::{Source, destination, sink};

#[tokio::test]
async fn rows_below_a_version_are_deleted_and_tombstones_hide_theirs() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    session.batch_execute("create table public.t (id int4 primary key, v text)").await.unwrap();
    let plan = prepare(&session, &sink, &TableName::new("public", "t")).await;
    // Versions beyond 64 bits: a server that read them as floats would delete too many.
    let version = |n: u128| (1 << 100) + n;
    let mut block = Block::new(plan.clone(), sink.time_range());
    for (id, n, operation) in [
        (1i32, 1, Operation::Snapshot),
        (2, 2, Operation::Insert),
        (3, 3, Operation::Insert),
        (3, 4, Operation::Delete),
    ] {
        block.push_field(0, Field::Binary(&id.to_be_bytes())).unwrap();
        block.push_default(1);
        block.finish_row(Stamp { version: version(n), operation, at: 0 }).unwrap();
    }
    let mut body = Vec::new();
    block.encode_native(0, &mut body).unwrap();
    sink.insert(&plan, Bytes::from(body), &insert_id("t"), || true).await.unwrap();
    let ids = format!("select id from {} order by id", sink.qualified("t"));
    assert_eq!(sink.query::<i32>(&ids).await.unwrap(), [1, 2]);
    sink.purge(&plan, version(2), "").await.unwrap();
    assert_eq!(sink.query::<i32>(&ids).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_table_that_is_there_is_compared_with_the_plan() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    session
        .batch_execute("create table public.t (id int4 primary key, v numeric(12,2), w text[])")
        .await
        .unwrap();
    let plan = prepare(&session, &sink, &TableName::new("public", "t")).await;
    let state = || async { sink.table_state(&plan).await.unwrap() };
    let table = sink.qualified("t");
    assert_eq!(state().await, TableState::Ready);
    sink.execute(&format!("ALTER TABLE {table} ADD COLUMN mine String DEFAULT 'x'")).await.unwrap();
    assert_eq!(state().await, TableState::Ready);
    sink.execute(&format!("ALTER TABLE {table} MODIFY COLUMN v Nullable(String)")).await.unwrap();
    let TableState::Differs(error) = state().await else { panic!("a differing type was not seen") };
    assert_eq!(error.code(), Code::DestinationTableExists);
    assert!(error.message().contains("\"v\""), "{error}");
    let again = sink.create_table(&plan, "").await.unwrap_err();
    assert_eq!(again.code(), Code::DestinationTableExists);
    sink.drop_table("t", "").await.unwrap();
    assert_eq!(state().await, TableState::Missing);
}

#[tokio::test]
async fn failures_have_the_code_of_their_cause() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    session.batch_execute("create table public.t (id int4 primary key)").await.unwrap();
    let plan = prepare(&session, &sink, &TableName::new("public", "t")).await;
    let mut block = Block::new(plan.clone(), sink.time_range());
    block.push_field(0, Field::Text(b"1")).unwrap();
    block.finish_row(Stamp { version: 1, operation: Operation::Insert, at: 0 }).unwrap();
    let mut body = Vec::new();
    block.encode_native(0, &mut body).unwrap();
    let body = Bytes::from(body);

    let closed = sink.insert(&plan, body.clone(), &insert_id("t"), || false).await.unwrap_err();
    assert_eq!(closed.code(), Code::LeaseLost);
    let count = format!("select count() from {}", sink.qualified("t"));
    assert_eq!(sink.query_one::<u64>(&count).await.unwrap(), 0);
    sink.insert(&plan, body.clone(), &insert_id("t"), || true).await.unwrap();
    assert_eq!(sink.query_one::<u64>(&count).await.unwrap(), 1);

    sink.drop_table("t", "").await.unwrap();
    let missing = sink.insert(&plan, body, &insert_id("t"), || true).await.unwrap_err();
    assert_eq!(missing.code(), Code::DestinationTableChanged, "{missing}");

    let mut stranger = crate::servers::sink(&source.word);
    stranger.password = "wrong".into();
    assert_eq!(Clickhouse::connect(&stranger).await.unwrap_err().code(), Code::DestinationAuth);

    let mut nowhere = stranger;
    nowhere.url = "http://127.0.0.1:9".into();
    let error = Clickhouse::connect(&nowhere).await.unwrap_err();
    assert_eq!(error.code(), Code::DestinationUnreachable);
    nowhere.url = "127.0.0.1:8123".into();
    assert_eq!(Clickhouse::connect(&nowhere).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_server_that_can_be_a_destination_passes_and_keeps_nothing() {
    let source = Source::new().await;
    let mut config = sink(&source.word);
    let sink = destination(&source.word).await;
    let found = checks(&config).await;
    assert!(found.iter().all(|check| check.status == Status::Pass), "{found:?}");
    let tables = format!("select count() from system.tables where database = '{}'", sink.database());
    assert_eq!(sink.query_one::<u64>(&tables).await.unwrap(), 0);

    config.database = "not_there_yet".into();
    let found = checks(&config).await;
    assert!(found.iter().all(|check| check.status == Status::Pass), "{found:?}");
    let made = "select count() from system.databases where name = 'not_there_yet'";
    assert_eq!(sink.query_one::<u64>(made).await.unwrap(), 0);
}

#[tokio::test]
async fn queries_are_found_by_the_prefix_of_their_attempt() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    session.batch_execute("create table public.t (id int4 primary key)").await.unwrap();
    let plan = prepare(&session, &sink, &TableName::new("public", "t")).await;
    let mut block = Block::new(plan.clone(), sink.time_range());
    block.push_field(0, Field::Text(b"1")).unwrap();
    block.finish_row(Stamp { version: 1, operation: Operation::Insert, at: 0 }).unwrap();
    let mut body = Vec::new();
    block.encode_native(0, &mut body).unwrap();

    // The server holds the insert open, as the end of its data does not come.
    let id = insert_id("t");
    let mut insert = sink.begin_insert(&plan, &id);
    insert.send(Bytes::from(body.clone())).await.unwrap();
    insert.send(Bytes::from(body)).await.unwrap();
    let table = sink.qualified("t").replace('`', "");
    let running = format!(
        "select count() from system.processes where replaceAll(query, '`', '') like 'INSERT INTO {table}%'"
    );
    while sink.query_one::<u64>(&running).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    sink.kill_queries(&InsertId::attempt_prefix(&id.mirror, "copy-2"), "").await.unwrap();
    sink.kill_queries(&InsertId::attempt_prefix(&id.mirror, &id.attempt), "").await.unwrap();
    insert.end(|| true).await.unwrap_err();
    let count = format!("select count() from {}", sink.qualified("t"));
    assert_eq!(sink.query_one::<u64>(&count).await.unwrap(), 0);
}

#[tokio::test]
async fn a_compressed_insert_of_many_chunks_arrives_whole() {
    let source = Source::new().await;
    destination(&source.word).await;
    let config = ClickhouseConfig { compression: InsertCompression::Lz4, ..sink(&source.word) };
    let (session, sink) = (source.plain_session().await, Clickhouse::connect(&config).await.unwrap());
    session
        .batch_execute(
            "create table public.t (id int4 primary key, v text);
             insert into public.t select n, repeat(md5(n::text), 1000) from generate_series(1, 300) n",
        )
        .await
        .unwrap();
    let plan = prepare(&session, &sink, &TableName::new("public", "t")).await;
    assert_eq!(copy_all(&session, &sink, &plan).await, 300);
    let (rows, bytes): (u64, u64) = sink
        .query_one(&format!("select count(), sum(length(assumeNotNull(v))) from {}", sink.qualified("t")))
        .await
        .unwrap();
    assert_eq!((rows, bytes), (300, 300 * 32_000));
}
