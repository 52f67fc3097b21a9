//! curl, as people and scripts use it.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{PASSWORD, USER, address};

struct Reply {
    status: String,
    head: String,
    body: String,
}

fn curl(path: &str, args: &[&str], input: &[u8]) -> Reply {
    let mut child = Command::new("curl")
        .args(["--silent", "--include", "--user", &format!("{USER}:{PASSWORD}")])
        .args(args)
        .arg(format!("http://{}{path}", address()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

#[test]
fn it_answers_like_a_server() {
    assert_eq!(curl("/ping", &[], b"").body, "Ok.\n");
    let reply = curl("/?query=SELECT%201%2B1&query_id=mine", &[], b"");
    assert_eq!((reply.status.as_str(), reply.body.as_str()), ("200", "2\n"));
    assert!(reply.head.contains("x-clickhouse-query-id: mine"), "{}", reply.head);
    assert!(reply.head.contains("x-clickhouse-format: tabseparated"), "{}", reply.head);
    assert!(reply.head.contains("x-clickhouse-timezone: "), "{}", reply.head);
    assert!(reply.head.contains("x-clickhouse-summary: {"), "{}", reply.head);
    let reply = curl("/", &["--data-binary", "@-"], b"SELECT number FROM numbers(2) FORMAT JSONEachRow");
    assert_eq!(reply.body, "{\"number\":0}\n{\"number\":1}\n");
    let reply = curl("/?param_x=5&default_format=CSV", &["--data-binary", "@-"], b"SELECT {x:UInt8}, 'a'");
    assert_eq!(reply.body, "5,\"a\"\n");
}

#[test]
fn it_refuses_like_a_server() {
    let reply = curl("/", &["--data-binary", "@-"], b"SELECT * FROM nowhere");
    assert_eq!(reply.status, "404");
    assert!(reply.head.contains("x-clickhouse-exception-code: 60"), "{}", reply.head);
    let reply = curl("/?query=CREATE%20DATABASE%20from_get", &[], b"");
    assert!(reply.body.starts_with("Code: 164."), "{}", reply.body);
    let reply = curl("/?query=SELECT%201", &["--user", "millrace:wrong"], b"");
    assert_eq!(reply.status, "403");
    let reply = curl("/", &["--data-binary", "@-"], b"SELECT 1; SELECT 2");
    assert!(reply.body.starts_with("Code: 62."), "{}", reply.body);
}

#[test]
fn data_come_after_the_statement_or_in_the_body() {
    let post = |path: &str, sql: &[u8]| curl(path, &["--data-binary", "@-"], sql);
    post("/", b"CREATE DATABASE curl");
    post("/?database=curl", b"CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a");
    for (path, body) in [
        ("/?database=curl", "INSERT INTO t FORMAT JSONEachRow\n{\"a\":1,\"b\":\"x\"}\n"),
        ("/?database=curl", "INSERT INTO t VALUES (2, 'y'), (3, concat('z', 'z'))"),
        ("/?database=curl&query=INSERT%20INTO%20t%20FORMAT%20TSV", "4\tw\n"),
        ("/?query=INSERT%20INTO%20curl.t%20VALUES", "(5, 'v')"),
        ("/", "INSERT INTO curl.t SELECT 6, 'u'"),
    ] {
        let reply = post(path, body.as_bytes());
        assert_eq!(reply.status, "200", "{body}: {}", reply.body);
        assert!(reply.head.contains("\"written_rows\":\""), "{}", reply.head);
    }
    let reply = post("/", b"SELECT groupArray((a, b)) FROM (SELECT * FROM curl.t ORDER BY a)");
    assert_eq!(reply.body, "[(1,'x'),(2,'y'),(3,'zz'),(4,'w'),(5,'v'),(6,'u')]\n");
    let reply = post("/", b"INSERT INTO curl.t FORMAT TSV\nnot a number\n");
    assert_eq!(reply.status, "400", "{}", reply.body);
}

#[test]
fn results_are_compressed_when_that_is_asked_for() {
    let sql = b"SELECT number, toString(number) FROM numbers(500000)";
    let plain = curl("/", &["--data-binary", "@-"], sql);
    let packed = curl("/", &["--data-binary", "@-", "--compressed"], sql);
    assert!(packed.head.contains("content-encoding: gzip"), "{}", packed.head);
    assert!(plain.body == packed.body);
    assert!(plain.body.ends_with("499999\t499999\n"));
    assert_eq!(plain.body.lines().count(), 500_000);
    let sql = b"SELECT number AS n FROM numbers(300000) FORMAT TSVWithNames";
    let names = curl("/", &["--data-binary", "@-"], sql);
    assert_eq!(names.body.lines().count(), 300_001);
}
