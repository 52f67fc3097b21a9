//! The official `clickhouse` crate.

use std::time::{Duration, Instant};

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use super::{address, client, database};

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Item {
    id: u64,
    group: i32,
    name: String,
}

fn item(id: u64) -> Item {
    Item { id, group: (id % 7) as i32, name: format!("name {id}") }
}

async fn create(client: &Client) {
    let sql = "CREATE TABLE items (id UInt64, group Int32, name String) ENGINE = MergeTree ORDER BY id";
    client.query(sql).execute().await.unwrap();
}

#[tokio::test]
async fn a_million_rows_go_in_and_come_out() {
    const ROWS: u64 = 1_000_000;
    let client = database("million").await;
    create(&client).await;
    let mut insert = client.insert::<Item>("items").await.unwrap();
    for id in 0..ROWS {
        insert.write(&item(id)).await.unwrap();
    }
    insert.end().await.unwrap();
    let count: u64 = client.query("SELECT count() FROM items").fetch_one().await.unwrap();
    assert_eq!(count, ROWS);
    let mut cursor = client.query("SELECT ?fields FROM items ORDER BY id").fetch::<Item>().unwrap();
    let mut next = 0;
    while let Some(row) = cursor.next().await.unwrap() {
        assert_eq!(row, item(next));
        next += 1;
    }
    assert_eq!(next, ROWS);
}

#[tokio::test]
async fn values_are_bound_on_both_sides() {
    let client = database("binds").await;
    create(&client).await;
    let mut insert = client.insert::<Item>("items").await.unwrap();
    for id in 0..100 {
        insert.write(&item(id)).await.unwrap();
    }
    insert.end().await.unwrap();
    let sql = "SELECT ?fields FROM items WHERE group = ? AND name != ? ORDER BY id";
    let rows = client.query(sql).bind(3).bind("name 3").fetch_all::<Item>().await.unwrap();
    assert_eq!(rows.first(), Some(&item(10)));
    let sql = "SELECT name FROM items WHERE id = {id:UInt64}";
    let name: String = client.query(sql).param("id", 42).fetch_one().await.unwrap();
    assert_eq!(name, "name 42");
    let none = client.query("SELECT ?fields FROM items WHERE id = 1000").fetch_all::<Item>().await.unwrap();
    assert_eq!(none, []);
}

#[tokio::test]
async fn native_blocks_are_inserted_under_their_column_list() {
    let client = database("native").await;
    create(&client).await;
    // One block: two columns, two rows.
    let mut block = vec![2, 2];
    block.extend(b"\x02id\x06UInt64");
    block.extend([7_u64, 8].map(u64::to_le_bytes).concat());
    block.extend(b"\x04name\x06String\x01a\x01b");
    let sql = "INSERT INTO items (id, name) FORMAT Native";
    let mut insert = client.insert_formatted_with(sql);
    insert.send(block.into()).await.unwrap();
    insert.end().await.unwrap();
    let rows = client.query("SELECT ?fields FROM items ORDER BY id").fetch_all::<Item>().await.unwrap();
    let expected = [(7, "a"), (8, "b")].map(|(id, name)| Item { id, group: 0, name: name.to_owned() });
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn errors_are_the_servers_own() {
    let client = client();
    let code = async |client: Client, sql: &str| match client.query(sql).execute().await.unwrap_err() {
        clickhouse::error::Error::BadResponse(text) => text,
        other => panic!("{sql}: {other:?}"),
    };
    for (sql, number, name) in [
        ("SELECT * FROM nowhere", "Code: 60.", "UNKNOWN_TABLE"),
        ("SELECT 1 +", "Code: 62.", "SYNTAX_ERROR"),
        ("SELECT throwIf(number = 100000) FROM numbers(1000000)", "Code: 395.", "FUNCTION_THROW"),
    ] {
        let text = code(client.clone(), sql).await;
        assert!(
            text.starts_with(number) && text.contains(name) && text.contains("version 26.7"),
            "{sql}: {text}"
        );
    }
    let text = code(client.clone().with_setting("no_such_setting", "1"), "SELECT 1").await;
    assert!(text.starts_with("Code: 115."), "{text}");
    let text = code(client.clone().with_password("wrong"), "SELECT 1").await;
    assert!(text.starts_with("Code: 516."), "{text}");
    let text = code(client.with_database("nowhere"), "SELECT 1").await;
    assert!(text.starts_with("Code: 81."), "{text}");
}

#[tokio::test]
async fn a_failure_in_the_midst_of_a_result_is_seen() {
    let sql = "SELECT throwIf(number = 3000000) AS x FROM numbers(4000000) SETTINGS max_threads = 1";
    let mut cursor = client().query(sql).fetch::<u8>().unwrap();
    let mut rows = 0;
    let error = loop {
        match cursor.next().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => panic!("{rows} rows and no error"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(rows > 0 && error.contains("Code: 395."), "{rows} rows, {error}");
}

#[tokio::test]
async fn settings_do_not_leak_into_the_next_request() {
    let sql = "SELECT value FROM system.settings WHERE name = 'max_block_size'";
    let changed = client().with_setting("max_block_size", "1234");
    let value: String = changed.query(sql).fetch_one().await.unwrap();
    assert_eq!(value, "1234");
    client().query("SET max_block_size = 4321").execute().await.unwrap();
    for _ in 0..20 {
        let value: String = client().query(sql).fetch_one().await.unwrap();
        assert!(!["1234", "4321"].contains(&value.as_str()), "{value}");
    }
}

#[tokio::test]
async fn many_requests_are_answered_at_once() {
    const AT_ONCE: u64 = 48;
    let client = database("many").await;
    create(&client).await;
    let work = (0..AT_ONCE).map(|i| {
        let client = client.clone();
        tokio::spawn(async move {
            for j in 0..5 {
                let mut insert = client.insert::<Item>("items").await.unwrap();
                insert.write(&item(i * 5 + j)).await.unwrap();
                insert.end().await.unwrap();
                let sql = "SELECT count() FROM items WHERE id = ?";
                let count: u64 = client.query(sql).bind(i * 5 + j).fetch_one().await.unwrap();
                assert_eq!(count, 1);
            }
        })
    });
    for done in futures::future::join_all(work).await {
        done.unwrap();
    }
    let count: u64 = client.query("SELECT count() FROM items").fetch_one().await.unwrap();
    assert_eq!(count, AT_ONCE * 5);
}

#[tokio::test]
async fn a_query_is_killed_by_its_id() {
    let slow = client().with_setting("query_id", "kill/me/1");
    let sql = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))";
    let running = tokio::spawn(async move { slow.query(sql).fetch_one::<u64>().await });
    let kill = "KILL QUERY WHERE query_id LIKE 'kill/me/%'";
    let start = Instant::now();
    while !running.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(30), "it is still running");
        client().query(kill).execute().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let error = running.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("Code: 394."), "{error}");
}

#[tokio::test]
async fn an_insert_is_killed_by_its_id() {
    let client = database("killed").await;
    create(&client).await;
    let slow = client.clone().with_setting("query_id", "kill/insert/1");
    let mut insert = slow.insert_formatted_with("INSERT INTO items FORMAT TabSeparated");
    let start = Instant::now();
    let result = loop {
        assert!(start.elapsed() < Duration::from_secs(30), "it is still running");
        let rows: String = (0..20_000).map(|id| format!("{id}\t1\tx\n")).collect();
        if insert.send(rows.into()).await.is_err() {
            break insert.end().await;
        }
        client.query("KILL QUERY WHERE startsWith(query_id, 'kill/insert/')").execute().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if start.elapsed() > Duration::from_secs(2) {
            break insert.end().await;
        }
    };
    let error = result.unwrap_err().to_string();
    assert!(error.contains("Code: 394."), "{error}");
}

#[tokio::test]
async fn an_insert_that_its_client_gives_up_leaves_no_rows() {
    let client = database("given_up").await;
    create(&client).await;
    let mut insert = client.insert::<Item>("items").await.unwrap();
    for id in 0..1000 {
        insert.write(&item(id)).await.unwrap();
    }
    drop(insert);
    for _ in 0..10 {
        let count: u64 = client.query("SELECT count() FROM items").fetch_one().await.unwrap();
        assert_eq!(count, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!address().is_empty());
}
