//! A source that is another server than before: a standby, a promoted one, another cluster. And one whose
//! log cannot be decoded.

use millrace_replication::postgres::{System, dial_log, identify, left_timeline};
use millrace_replication::stream::{Report, UNDECODABLE};
use millrace_terms::Code;

use crate::mirror::Mirror;
use crate::servers::APPLICATION;

const ITEMS: &str = "create table items (id int primary key, v text)";

/// The name of the source leads to another server by now, between the look at it and the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_writes_another_log_is_not_streamed_from() {
    let mut mirror = Mirror::new(ITEMS, &["items"]).await;
    let here = mirror.config.system.clone();
    for system in [System { timeline: 2, ..here.clone() }, System { id: "1".into(), ..here.clone() }] {
        let refused = dial_log(&mirror.source.config, APPLICATION, &system).await.unwrap_err();
        assert_eq!(refused.code(), Code::SourceInRecovery);
        mirror.config.system = system;
        let refused = mirror.start().failure().await;
        assert_eq!(refused.code(), Code::SourceInRecovery, "{refused}");
        assert!(refused.is_retryable(), "the next attempt looks anew");
    }
    dial_log(&mirror.source.config, APPLICATION, &here).await.unwrap();
    assert_eq!(left_timeline(&mirror.source.config, APPLICATION, &here, 1).await, Ok(None));
    assert_eq!(identify(&mirror.source.config, APPLICATION).await.unwrap().id, here.id);
}

/// A fork is judged by it: everything that was sent is below, and what was announced is far above.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_tells_below_what_it_has_written() {
    let mirror = Mirror::new(ITEMS, &["items"]).await;
    let mut stream = mirror.start();
    mirror.source.run("insert into items values (1, 'a')").await;
    mirror.caught_up(&mut stream).await;
    mirror.source.run("select pg_logical_emit_message(false, 'test', repeat('x', 100000))").await;
    let end = mirror.wal_end().await;
    let reports = stream.reports.clone();
    stream.stop().await;
    let written = reports.lock().unwrap().iter().find_map(|report| match report {
        Report::Written { below } => Some(*below),
        _ => None,
    });
    let written = written.unwrap();
    assert!(written > mirror.config.start && written < end, "{written} {end}");
}

/// A type whose values can be stored and not shown: decoding fails at the row, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_decoded_is_told_from_a_source_that_is_away() {
    let mirror = Mirror::new(
        "create type dumb;
         create function dumb_in(cstring) returns dumb language internal immutable strict as 'int4in';
         create function dumb_out(dumb) returns cstring language internal immutable strict as 'enum_out';
         create type dumb (input = dumb_in, output = dumb_out, internallength = 4, passedbyvalue, alignment = int4);
         create table items (id int primary key, v text)",
        &["items"],
    )
    .await;
    mirror.source.run("alter table items add d dumb; insert into items values (1, 'a', '7')").await;
    for _ in 0..2 {
        let failure = mirror.start_unconfirmed().failure().await;
        assert!(failure.metadata().contains_key(UNDECODABLE), "{failure:?}");
    }
}
