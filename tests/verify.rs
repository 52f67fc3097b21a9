//! `millrace mirror verify`: what is equal is said to be, while it is written to; what was spoilt by hand is
//! found exactly, and mended.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use millrace_proto::v1::verification::{State, Verdict};
use millrace_proto::v1::{self as api, table};
use serde_json::Value;

use crate::support::bed::{Bed, SOON, connect};
use crate::support::cell::Cell;
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("verify::equal_while_it_is_written_to", equal_while_it_is_written_to),
        test("verify::what_is_spoilt_is_found_and_mended", what_is_spoilt_is_found_and_mended),
        test("verify::tables_that_do_not_stream_are_skipped", tables_that_do_not_stream_are_skipped),
        test("verify::a_killed_worker_costs_a_range", a_killed_worker_costs_a_range),
        test("verify::a_verification_is_ended", a_verification_is_ended),
        test("verify::tables_of_one_destination_are_told_apart", tables_of_one_destination_are_told_apart),
        test("verify::a_truncate_while_it_mends", a_truncate_while_it_mends),
        test("verify::a_sample_compares_some_ranges", a_sample_compares_some_ranges),
    ]
}

/// Runs the command to its end.
async fn millrace(arguments: Vec<String>) -> Output {
    let run = move || {
        let mut command = Command::new(stack::binary());
        command.args(&arguments).args(["--address", &stack::endpoints().grpc]).output().expect("the binary")
    };
    tokio::task::spawn_blocking(run).await.expect("its end")
}

/// Verifies the test's mirror by the command; gives the exit code and the result.
async fn verify(bed: &Bed, further: &[&str]) -> (i32, Value) {
    let mut arguments = ["mirror", "verify", &bed.name, "-o", "json"].map(str::to_owned).to_vec();
    arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
    let output = millrace(arguments).await;
    let text = String::from_utf8_lossy(&output.stdout);
    let result = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("a code"), result)
}

/// Rows that differ: kind, table, key, columns.
fn differences(result: &Value) -> Vec<String> {
    let line = |row: &Value| {
        let key = row["key"].as_array().expect("a key");
        let key: Vec<_> = key.iter().map(|cell| cell["value"].as_str().unwrap_or("NULL")).collect();
        let columns: Vec<_> =
            row["columns"].as_array().expect("columns").iter().filter_map(Value::as_str).collect();
        let (kind, table) = (row["kind"].as_str().expect("a kind"), row["table"].as_str().expect("a table"));
        format!("{kind} {table} {} {}", key.join("/"), columns.join(",")).trim_end().to_owned()
    };
    let mut lines: Vec<_> = result["differences"].as_array().expect("a list").iter().map(line).collect();
    lines.sort();
    lines
}

const TABLES: &str = r#"
    create table numbers (id int primary key, v text, n numeric(10, 2));
    create table words (word text primary key, "Odd Name" int, secret text);
    create table pairs (a int, b timestamptz, c jsonb, d date[], primary key (a, b));
    create table parts (id bigint primary key, v text) partition by hash (id);
    create table parts_0 partition of parts for values with (modulus 2, remainder 0);
    create table parts_1 partition of parts for values with (modulus 2, remainder 1);
    create table log (at timestamptz, line text);
    insert into numbers select i, 'v' || i, i / 8.0 from generate_series(1, 2000) i;
    insert into words select md5(i::text), i, 'secret ' || i from generate_series(1, 500) i;
    insert into pairs select i % 7, '2000-01-01'::timestamptz + i * interval '1 hour', jsonb_build_object('i', i), array['2000-01-01'::date + i] from generate_series(1, 500) i;
    insert into parts select i, 'v' || i from generate_series(1, 500) i;
    insert into log select '2000-01-01'::timestamptz + i * interval '1 hour', 'line ' || i % 10 from generate_series(1, 500) i;
"#;

async fn streaming(bed: &Bed) {
    bed.sql(TABLES).await;
    let names = ["public.numbers", "public.words", "public.pairs", "public.parts", "public.log"];
    let mut request = bed.mirror(&names);
    request.tables[1].exclude = vec!["secret".to_owned()];
    let renamed = api::Column { name: "renamed it's".to_owned(), r#type: "Int64".to_owned() };
    request.tables[1].columns.insert("Odd Name".to_owned(), renamed);
    request.tables[4].append_only = true;
    request.settings = Some(api::Settings {
        columns: Some(api::OwnColumns { version: "ver".to_owned(), ..Default::default() }),
        ..Default::default()
    });
    bed.create(request).await.expect("a mirror");
    for name in names {
        bed.wait_table(name, table::State::Streaming).await;
    }
}

async fn equal_while_it_is_written_to(bed: Bed) {
    streaming(&bed).await;
    let session = bed.session().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut i = 0;
        while !stopped.load(Ordering::Relaxed) {
            i += 1;
            let sql = format!(
                "update numbers set n = n + 1 where id % 50 = {i} % 50; delete from numbers where id = 3000 + {i} % 9;
                 insert into numbers values (3000 + {i} % 9, 'again', {i}) on conflict do nothing;
                 update words set \"Odd Name\" = {i} where word like '%' || ({i} % 10); update words set word = word || 'x' where \"Odd Name\" = {i} and word like 'a%';
                 update pairs set a = a + 1 where b < '2000-01-03' and a < 100000; insert into parts values (1000 + {i}, 'new'); delete from parts where id = 1000 + {i} - 20;
                 insert into log values (now(), 'line {i}')"
            );
            session.batch_execute(&sql).await.expect("writes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for _ in 0..2 {
        let (code, result) = verify(&bed, &[]).await;
        assert_eq!((code, &result["verdict"]), (0, &"EQUAL".into()), "{result:#}");
        assert_eq!(differences(&result), [""; 0]);
        for table in result["tables"].as_array().expect("tables") {
            assert_eq!(table["verdict"], "EQUAL", "{result:#}");
            assert_ne!(table["rows_source"], "0");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    let (code, result) = verify(&bed, &["--sample", "10%", "--tables", "public.words,public.log"]).await;
    assert_eq!((code, result["tables"].as_array().map(Vec::len)), (0, Some(2)), "{result:#}");
}

async fn spoil(bed: &Bed) {
    for sql in [
        "delete from numbers where id in (1, 1000, 2000)",
        "insert into numbers select * replace ('by hand' as v, ver + 1 as ver) from numbers final where id in (2, 1001, 1999)",
        "insert into numbers (id, v, n, ver, _is_deleted) values (-5, 'extra', 1, 1, 0), (1000000, 'extra', 1, 7, 0)",
        // Of a version that no log has reached: it would hide every change to come.
        "insert into numbers select * replace (toUInt128('99999999999999999999999999999999') as ver, 'future' as v) from numbers final where id = 1500",
        "insert into words select * replace (-1 as `renamed it's`, ver + 1 as ver) from words final where word = 'c4ca4238a0b923820dcc509a6f75849b'",
        "delete from pairs where a = 3 and b = '2000-01-01 03:00:00'",
    ] {
        bed.clickhouse
            .query(&format!(
                "{sql} {}",
                if sql.starts_with("delete") { "settings lightweight_deletes_sync = 2" } else { "" }
            ))
            .await
            .expect(sql);
    }
}

async fn what_is_spoilt_is_found_and_mended(bed: Bed) {
    streaming(&bed).await;
    // A transaction that is open meanwhile changes nothing of that. Mending waits for its end, as a copy does.
    let open = bed.session().await;
    open.batch_execute("begin; update numbers set v = 'open' where id = 77").await.expect("a transaction");
    spoil(&bed).await;
    let expected = [
        "DIFFERENT public.numbers 1001 v",
        "DIFFERENT public.numbers 1500 v,ver",
        "DIFFERENT public.numbers 1999 v",
        "DIFFERENT public.numbers 2 v",
        "DIFFERENT public.words c4ca4238a0b923820dcc509a6f75849b Odd Name",
        "EXTRA_IN_DESTINATION public.numbers -5",
        "EXTRA_IN_DESTINATION public.numbers 1000000",
        "MISSING_IN_DESTINATION public.numbers 1",
        "MISSING_IN_DESTINATION public.numbers 1000",
        "MISSING_IN_DESTINATION public.numbers 2000",
        "MISSING_IN_DESTINATION public.pairs 3/2000-01-01 03:00:00+00",
    ];
    let (code, result) = verify(&bed, &[]).await;
    assert_eq!((code, &result["verdict"]), (4, &"DIFFERENT".into()), "{result:#}");
    assert_eq!(differences(&result), expected);
    assert!(!result.to_string().contains("by hand"), "values are not told unless they are asked for");
    open.batch_execute("commit").await.expect("a commit");
    let (_, told) = verify(&bed, &["--values", "--tables", "public.numbers"]).await;
    assert!(told.to_string().contains("by hand"));

    let (code, result) = verify(&bed, &["--repair"]).await;
    assert_eq!((code, &result["verdict"]), (0, &"MENDED".into()), "{result:#}");
    assert_eq!(differences(&result), expected);
    let (code, result) = verify(&bed, &[]).await;
    assert_eq!((code, differences(&result).len()), (0, 0), "{result:#}");
    // What streams afterwards is not hidden by what was mended.
    bed.sql("update numbers set v = 'later', n = 0 where id in (1, 2, 1500); insert into numbers values (-5, 'now', 1); delete from numbers where id = 1000").await;
    assert_eq!(bed.wait_equal("numbers", "numbers").await, 2000);
    bed.wait_equal("pairs", "pairs").await;

    // Rows without a name are counted, and not mended.
    bed.clickhouse.query("insert into log select * from log limit 3").await.expect("rows");
    let (code, result) = verify(&bed, &["--repair", "--tables", "public.log"]).await;
    assert_eq!((code, &result["tables"][0]["rows_extra"]), (4, &"3".into()), "{result:#}");
}

async fn tables_that_do_not_stream_are_skipped(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key); create table c (id int primary key, d date)").await;
    bed.mirror_streaming(&["public.a", "public.b", "public.c"]).await;
    let pause =
        api::PauseTableRequest { name: bed.name.clone(), table: "public.b".into(), ..Default::default() };
    bed.mirrors().pause_table(pause).await.expect("a pause");
    bed.sql("insert into c values (1, 'infinity'); insert into b values (1); insert into a values (1)").await;
    bed.wait_table("public.c", table::State::Error).await;
    let (code, result) = verify(&bed, &[]).await;
    assert_eq!((code, &result["verdict"]), (0, &"EQUAL".into()), "{result:#}");
    let reason = |at: usize| result["tables"][at]["skipped"].as_str().expect("a reason");
    assert_eq!((reason(0), reason(1)), ("", "the table is PAUSED"));
    assert!(reason(2).starts_with("the table is ERROR: "), "{}", reason(2));

    let name = bed.name.clone();
    let missing = api::VerifyMirrorRequest { name, tables: vec!["public.z".into()], ..Default::default() };
    let refused = bed.mirrors().verify_mirror(missing).await.expect_err("no such table");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    let pause = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(pause).await.expect("a pause");
    let request = api::VerifyMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let refused = bed.mirrors().verify_mirror(request).await.expect_err("a paused mirror");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
}

async fn begin(bed: &Bed, rows_per_second: i64) -> api::Verification {
    let request = api::VerifyMirrorRequest { name: bed.name.clone(), rows_per_second, ..Default::default() };
    bed.mirrors().verify_mirror(request).await.expect("a verification").into_inner()
}

async fn wait_for(bed: &Bed, id: &str, is_so: impl Fn(&api::Verification) -> bool) -> api::Verification {
    wait::until("the verification", SOON, || async {
        let request =
            api::GetVerificationRequest { name: bed.name.clone(), id: id.to_owned(), ..Default::default() };
        let seen = bed.mirrors().get_verification(request).await.map_err(|status| status.to_string())?;
        let seen = seen.into_inner();
        if is_so(&seen) { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
}

async fn a_killed_worker_costs_a_range(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    bed.sql("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 600000) i; analyze t").await;
    let mut first = cell.worker().await;
    bed.mirror_streaming(&["public.t"]).await;
    let begun = begin(&bed, 150_000).await;
    wait_for(&bed, &begun.id, |seen| seen.ranges_done >= 2).await;
    first.kill();
    let catalog = connect(&cell.catalog, None).await;
    let done = "select string_agg(no || '@' || finished_at, ',' order by no) from verification_ranges where state = 'DONE' and no = any($1)";
    let numbers = catalog.query("select no from verification_ranges where state = 'DONE'", &[]).await;
    let numbers: Vec<i32> = numbers.expect("ranges").iter().map(|row| row.get(0)).collect();
    let before: String = catalog.query_one(done, &[&numbers]).await.expect("ranges").get(0);
    let _second = cell.worker().await;
    let ended = wait_for(&bed, &begun.id, |seen| seen.state() != State::Running).await;
    assert_eq!((ended.state(), ended.verdict()), (State::Completed, Verdict::Equal), "{ended:?}");
    assert_eq!(ended.tables[0].rows_source, 600_000);
    assert!(ended.ranges_total >= 5 && i64::try_from(numbers.len()).unwrap() < ended.ranges_total);
    let after: String = catalog.query_one(done, &[&numbers]).await.expect("ranges").get(0);
    assert_eq!(before, after, "a range that was done is not compared again");
}

async fn a_verification_is_ended(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 400000) i; analyze t").await;
    bed.mirror_streaming(&["public.t"]).await;
    let begun = begin(&bed, 1_000).await;
    wait_for(&bed, &begun.id, |seen| seen.ranges_done >= 1).await;
    let request = api::CancelVerificationRequest { name: bed.name.clone(), id: begun.id.clone() };
    let ended = bed.mirrors().cancel_verification(request).await.expect("an end").into_inner();
    assert_eq!((ended.state(), ended.verdict()), (State::Cancelled, Verdict::Unspecified));
    assert!(ended.ranges_done < ended.ranges_total, "{ended:?}");
    // Asked for by the same request, it is the same.
    let request_id = uuid::Uuid::new_v4().to_string();
    let ask = || api::VerifyMirrorRequest {
        name: bed.name.clone(),
        request_id: request_id.clone(),
        ..Default::default()
    };
    let first = bed.mirrors().verify_mirror(ask()).await.expect("a verification").into_inner();
    let second = bed.mirrors().verify_mirror(ask()).await.expect("a verification").into_inner();
    assert_eq!(first.id, second.id);
    let ended = wait_for(&bed, &first.id, |seen| seen.state() != State::Running).await;
    assert_eq!(ended.verdict(), Verdict::Equal, "{ended:?}");
}

async fn tables_of_one_destination_are_told_apart(bed: Bed) {
    bed.sql(
        "create table eu (id int primary key, v text); create table us (id int primary key, v text);
         insert into eu select i, 'eu' from generate_series(1, 300) i;
         insert into us select i, 'us' from generate_series(1, 300) i",
    )
    .await;
    let mut asked = bed.mirror(&["public.eu", "public.us"]);
    asked.tables.iter_mut().for_each(|table| table.destination = "users".into());
    bed.create(asked).await.expect("a mirror");
    for name in ["public.eu", "public.us"] {
        bed.wait_table(name, table::State::Streaming).await;
    }
    let (code, result) = verify(&bed, &[]).await;
    assert_eq!((code, &result["tables"][0]["rows_source"]), (0, &"300".into()), "{result:#}");

    // The same keys on both sides of it: what is spoilt of one is not looked for, or mended, in the other.
    let name = &bed.name;
    for sql in [
        format!(
            "delete from users where id = 7 and _source = '{name}/public.eu' settings lightweight_deletes_sync = 2"
        ),
        format!(
            "insert into users select * replace ('by hand' as v, _version + 1 as _version) from users final where id = 8 and _source = '{name}/public.us'"
        ),
        format!(
            "insert into users (id, v, _source, _version, _is_deleted) values (-1, 'extra', '{name}/public.us', 1, 0)"
        ),
    ] {
        bed.clickhouse.query(&sql).await.expect("a change by hand");
    }
    let expected = [
        "DIFFERENT public.us 8 v",
        "EXTRA_IN_DESTINATION public.us -1",
        "MISSING_IN_DESTINATION public.eu 7",
    ];
    let (code, result) = verify(&bed, &["--repair"]).await;
    assert_eq!((code, differences(&result)), (0, expected.map(str::to_owned).to_vec()), "{result:#}");
    let (code, result) = verify(&bed, &[]).await;
    assert_eq!((code, differences(&result).len()), (0, 0), "{result:#}");
    super::shared::wait_rows(&bed, &[(name, "eu"), (name, "us")]).await;
    bed.sql("update us set v = 'later' where id in (7, 8); insert into us values (-1, 'now')").await;
    super::shared::wait_rows(&bed, &[(name, "eu"), (name, "us")]).await;
}

/// What is mended is written by an epoch of its own: a TRUNCATE that comes between must win over it, and what is
/// inserted afterwards must stay.
async fn a_truncate_while_it_mends(bed: Bed) {
    bed.sql("create table a (id int primary key); create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 2000) i").await;
    bed.mirror_streaming(&["public.a", "public.t"]).await;
    let spoilt = "delete from t where id % 3 = 0 settings lightweight_deletes_sync = 2";
    for round in 1..=2 {
        bed.clickhouse.query(spoilt).await.expect("rows deleted by hand");
        // Before the first row is mended, an epoch is waited for: until this transaction is over.
        let open = bed.session().await;
        open.batch_execute(&format!("begin; insert into a values ({round})")).await.expect("a transaction");
        let request = api::VerifyMirrorRequest { name: bed.name.clone(), repair: true, ..Default::default() };
        let begun = bed.mirrors().verify_mirror(request).await.expect("a verification").into_inner();
        wait::until("what is missing was found, and its epoch is waited for", SOON, || async {
            let sql = "select count(*) from pg_stat_activity where datname = current_database() and query like '%in a transaction since%' and pid <> pg_backend_pid()";
            let waiting: i64 = bed.source.query_one(sql, &[]).await.map_err(|error| error.to_string())?.get(0);
            if waiting > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
        })
        .await;
        bed.sql(&format!(
            "truncate t; insert into t select i, {round} from generate_series(1, 2000, {round} + 1) i"
        ))
        .await;
        open.batch_execute("commit").await.expect("a commit");
        let ended = wait_for(&bed, &begun.id, |seen| seen.state() != State::Running).await;
        assert_eq!(ended.state(), State::Completed, "{ended:?}");
        assert_eq!(bed.wait_equal("t", "t").await, 2000_u64.div_ceil(round + 1), "round {round}");
        let (code, result) = verify(&bed, &[]).await;
        assert_eq!((code, differences(&result).len()), (0, 0), "round {round}: {result:#}");
    }
}

async fn a_sample_compares_some_ranges(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 400000) i; analyze t").await;
    bed.mirror_streaming(&["public.t"]).await;
    let number = |table: &Value, field: &str| -> u64 {
        table[field]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{field}: {table:#}"))
    };
    let (code, result) = verify(&bed, &["--sample", "30%"]).await;
    let table = &result["tables"][0];
    assert_eq!((code, &table["verdict"]), (0, &"EQUAL".into()), "{result:#}");
    let (cut, total, done) =
        (number(table, "ranges_cut"), number(table, "ranges_total"), number(table, "ranges_done"));
    assert!(cut >= 3 && (1..cut).contains(&total) && done == total, "{table:#}");
    let rows = number(table, "rows_source");
    assert!((1..400_000).contains(&rows) && rows == number(table, "rows_destination"), "{table:#}");

    // Of what is spoilt everywhere it finds its share, of exactly the rows that it looked at.
    let spoilt = "delete from t where id % 100 = 0 settings lightweight_deletes_sync = 2";
    bed.clickhouse.query(spoilt).await.expect("rows deleted by hand");
    let (code, result) = verify(&bed, &["--sample", "30%"]).await;
    let table = &result["tables"][0];
    let (missing, rows) = (number(table, "rows_missing"), number(table, "rows_source"));
    assert_eq!(code, 4, "{result:#}");
    assert!(missing > 0 && missing.abs_diff(rows / 100) <= number(table, "ranges_total"), "{table:#}");
    let (code, result) = verify(&bed, &["--sample", "100%"]).await;
    assert_eq!((code, number(&result["tables"][0], "rows_missing")), (4, 4000), "{}", result["tables"][0]);
}
