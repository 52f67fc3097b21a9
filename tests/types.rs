//! Types, end to end: what the copy writes is what the stream writes, and both are what the source
//! holds. (`replication/tests/real/types` has the random tables and every form of every type.)

use libtest_mimic::Trial;
use millrace_proto::v1::settings::OnUnrepresentable;
use millrace_proto::v1::{self as api, mirror, table};

use crate::support::bed::Bed;
use crate::support::{http, stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("types::every_type_streams_as_it_is_copied", every_type_streams_as_it_is_copied),
        test("types::enums_and_composites_grow_while_streaming", enums_and_composites_grow_while_streaming),
        test("types::numbers_are_never_cut", numbers_are_never_cut),
        test("types::chosen_types_hold_the_value", chosen_types_hold_the_value),
        test(
            "types::json_null_is_not_null_and_native_json_is_equal",
            json_null_is_not_null_and_native_json_is_equal,
        ),
        test(
            "types::values_that_cannot_be_held_stop_their_table_alone",
            values_that_cannot_be_held_stop_their_table_alone,
        ),
        test("types::infinities_become_null_where_asked", infinities_become_null_where_asked),
        test("types::every_character_arrives", every_character_arrives),
        test("types::databases_in_latin1", databases_in_latin1),
        test("types::databases_without_an_encoding", databases_without_an_encoding),
        test("types::values_above_15_mb", values_above_15_mb),
    ]
}

/// What the types under test need.
const SETUP: &str = r#"
    create extension hstore; create extension citext; create extension ltree; create extension cube;
    create extension seg; create extension isn; create extension pg_trgm; create extension "uuid-ossp";
    create schema other;
    create type other.mood as enum ('sad', 'it''s "ok"', '');
    create type mood as enum ('other');
    create type pair as (a int, b text, c pg_catalog.timestamptz[]);
    create type nested as (p pair, m other.mood);
    create type floatrange as range (subtype = float8);
    create domain price as numeric(10, 2) check (value >= 0);
    create domain cheap as price;
    create domain codes as varchar(4)[];
"#;

/// Types, each with two values.
const TYPES: &[(&str, &str, &str)] = &[
    ("bool", "true", "false"),
    ("int2", "-32768", "32767"),
    ("int4", "-2147483648", "2147483647"),
    ("int8", "-9223372036854775808", "9223372036854775807"),
    ("float4", "NaN", "-Infinity"),
    ("float8", "-0", "1.7976931348623157e308"),
    ("numeric", "NaN", "-123456789012345678901234567890.000000000000000000000000000010"),
    ("numeric(20, 4)", "1.5", "-9999999999999999.9999"),
    ("numeric(76, 0)", "-9999999999999999999999999999999999999999999999999999999999999999999999999999", "0"),
    ("numeric(78, 0)", "999999999999999999999999999999999999999999999999999999999999999999999999999999", "1"),
    ("numeric(5, -3)", "12345000", "-1000"),
    ("numeric(3, 6)", "0.000999", "-0.000001"),
    ("text", "", "NULL"),
    ("varchar(9)", "  x  ", "\"q\",{}\\"),
    ("char(5)", "ab", ""),
    ("\"char\"", "x", ""),
    ("name", "a name", "ü"),
    ("bytea", "\\x", "\\x00ff5c2700"),
    ("json", "{\"a\" : 1.00, \"a\": [ ] }", " null "),
    ("jsonb", "{\"a\": 1.00, \"b\": {\"c\": null}}", "\"\\\"\""),
    ("jsonpath", "$.\"a\"[*]?(@.\"b\" > 3)", "strict $"),
    ("uuid", "00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date", "1900-01-01", "2299-12-31"),
    ("timestamp", "1900-01-01 00:00:00.000001", "2299-12-31 23:59:59.999999"),
    ("timestamp(0)", "2001-02-03 04:05:06.7", "1969-12-31 23:59:59"),
    ("timestamptz", "2001-02-03 04:05:06.789-08:30", "1970-01-01 00:00:00+00"),
    ("time", "24:00:00", "00:00:00.000001"),
    ("timetz", "01:02:03.4+05:30", "23:59:59.999999-12"),
    ("interval", "1 year -2 mons 3 days -04:05:06.7", "0"),
    ("interval day to second", "5 days 01:00:00.5", "-1 day"),
    ("money", "-92233720368547758.08", "0.01"),
    ("inet", "10.0.0.1", "2001:db8::/32"),
    ("cidr", "10.0.0.0/8", "::1/128"),
    ("macaddr", "08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"),
    ("macaddr8", "08:00:2b:01:02:03:04:05", "00:00:00:00:00:00:00:00"),
    ("bit(11)", "10101010101", "00000000000"),
    ("varbit", "", "1"),
    ("point", "(1.5,-2)", "(NaN,Infinity)"),
    ("line", "{1,-1,0}", "{0,1,2.5}"),
    ("lseg", "[(0,0),(1,1)]", "[(-1,2),(3,4)]"),
    ("box", "(1,1),(0,0)", "(3,4),(-1,2)"),
    ("path", "((0,0),(1,1),(2,0))", "[(0,0),(1,1)]"),
    ("polygon", "((0,0),(1,1),(2,0))", "((0,0))"),
    ("circle", "<(0,0),5>", "<(1.5,2.5),0>"),
    ("int4range", "[1,5)", "empty"),
    ("int8range", "(,9223372036854775807)", "(,)"),
    ("numrange", "[1.50,2.5]", "(1,2)"),
    ("tsrange", "[2001-01-01,infinity]", "(,2001-01-01 00:00:00.5)"),
    ("tstzrange", "[2001-01-01 00:00:00+03,)", "empty"),
    ("daterange", "[2001-01-01,2001-02-01]", "[-infinity,2001-01-01)"),
    ("int4multirange", "{[1,3),[7,9)}", "{}"),
    ("nummultirange", "{[1.0,3.5),[7,)}", "{(,)}"),
    ("tstzmultirange", "{[2001-01-01 00:00:00+00,)}", "{}"),
    ("floatrange", "[0.1,1e300)", "empty"),
    ("tsvector", "'a':1A,3 'b c':2", "'it''s'"),
    ("tsquery", "'a' & !'b':*A", "'x' <-> 'y'"),
    ("xml", "<a b=\"c\">x &amp; y</a>", "text <b/>"),
    ("oid", "0", "4294967295"),
    ("xid", "4294967295", "3"),
    ("xid8", "18446744073709551615", "0"),
    ("cid", "0", "7"),
    ("tid", "(0,1)", "(4294967295,65535)"),
    ("pg_lsn", "16/B374D848", "0/0"),
    ("pg_snapshot", "10:20:10,14,15", "1:1:"),
    ("int2vector", "1 -2 3", ""),
    ("oidvector", "1 2 3", ""),
    ("regclass", "pg_catalog.pg_class", "0"),
    ("regtype", "pg_catalog.int4", "text[]"),
    ("refcursor", "a cursor", ""),
    ("hstore", "\"a\"=>\"1\", \"b\"=>NULL", ""),
    ("citext", "MiXed", "ß"),
    ("ltree", "Top.a_1.b", ""),
    ("lquery", "*.a{1,2}.!b*", "x@"),
    ("cube", "(1, 2),(3, 4.5)", "(0)"),
    ("seg", "1.5 .. 2.50", "~3"),
    ("isbn13", "978-0-393-04002-9", "978-0-306-40615-7"),
    ("other.mood", "it's \"ok\"", ""),
    ("pair", "(1,\"a,\\\"b\",)", "(,,\"{\"\"2001-01-01 00:00:00+00\"\"}\")"),
    ("nested", "(\"(7,,)\",sad)", "(,)"),
    ("floatrange[]", "{\"[1,2)\"}", "{}"),
    ("price", "12.30", "0"),
    ("cheap", "99999999.99", "0.1"),
];

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// `(id, values and arrays of the one value, of the other, NULLs)`: three rows of all [`TYPES`].
fn rows(first: u32) -> String {
    let row = |offset: u32, values: Vec<String>| format!("({}, {})", first + offset, values.join(", "));
    let of = |swapped: bool| -> Vec<String> {
        TYPES
            .iter()
            .flat_map(|(kind, one, other)| {
                let (value, further) = if swapped { (other, one) } else { (one, other) };
                let value = format!("{}::{kind}", quoted(value));
                if has_no_array(kind) {
                    return vec![value];
                }
                let further = format!("{}::{kind}", quoted(further));
                vec![value.clone(), format!("array[{value}, null, {further}]")]
            })
            .collect()
    };
    let columns = of(false).len();
    [row(0, of(false)), row(1, of(true)), row(2, vec!["null".to_owned(); columns])].join(",\n")
}

fn has_no_array(kind: &str) -> bool {
    kind.ends_with("[]")
}

async fn every_type_streams_as_it_is_copied(bed: Bed) {
    bed.sql("set timezone = 'UTC'").await;
    bed.sql(SETUP).await;
    let mut columns = vec!["id int primary key".to_owned()];
    for (at, (kind, ..)) in TYPES.iter().enumerate() {
        columns.push(format!("v{at} {kind}"));
        if !has_no_array(kind) {
            columns.push(format!("a{at} {kind}[]"));
        }
    }
    bed.sql(&format!(
        "create table every ({}); alter table every add d codes, add deep int[][]",
        columns.join(", ")
    ))
    .await;
    bed.sql(&format!("insert into every values {}", rows(1))).await;
    bed.sql("update every set d = '{ab,NULL,\"\"}', deep = '{{1,NULL},{3,4}}' where id = 1; update every set d = '{}', deep = '{}' where id = 2").await;
    bed.mirror_streaming(&["public.every"]).await;
    assert_eq!(bed.wait_equal("every", "every").await, 3);
    bed.sql(&format!("insert into every values {}", rows(101))).await;
    bed.sql("update every s set d = c.d, deep = c.deep from every c where s.id = c.id + 100").await;
    assert_eq!(bed.wait_equal("every", "every").await, 6);
    let sql =
        "select count() from (select * except (id, _version, _synced_at), id % 100 as n from every final) t
               where n in (1, 2, 3)";
    assert_eq!(bed.clickhouse.query(sql).await.expect("a count").trim(), "6");
    let sql = "select uniqExact(cityHash64(toString(tuple(* except (id, _version, _synced_at))), id % 100)) from every final";
    assert_eq!(
        bed.clickhouse.query(sql).await.expect("a count").trim(),
        "3",
        "copied and streamed rows are alike"
    );
    // Every value is replaced by every other.
    let names: Vec<String> = (0..TYPES.len()).map(|at| format!("v{at}")).collect();
    let names = names.join(", ");
    bed.sql(&format!("update every s set ({names}) = (select {names} from every o where o.id = s.id % 3 + 1) where s.id > 100")).await;
    assert_eq!(bed.wait_equal("every", "every").await, 6);
}

async fn enums_and_composites_grow_while_streaming(bed: Bed) {
    bed.sql(
        r#"create schema "Other"; create type "Other"."Mood" as enum ('sad'); create type pair as (a int, b text);
        create table t (id int primary key, m "Other"."Mood", ms "Other"."Mood"[], p pair);
        insert into t values (1, 'sad', '{sad,null}', '(1,x)')"#,
    )
    .await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql(r#"alter type "Other"."Mood" add value 'glad' before 'sad'"#).await;
    bed.sql("insert into t values (2, 'glad', '{glad,sad}', '(2,y)')").await;
    bed.sql(r#"alter type "Other"."Mood" rename value 'glad' to 'it''s fine'"#).await;
    bed.sql("alter type pair add attribute c int").await;
    bed.sql("insert into t values (3, 'it''s fine', '{}', '(3,z,4)'); update t set m = m, p = p").await;
    // A value that is renamed, or a composite that grows, changes rows without a change in the log:
    // those that are written again hold the new form.
    bed.sql("update t set ms = ms || ms, id = id + 10").await;
    assert_eq!(bed.wait_equal("t", "t").await, 3);
}

async fn numbers_are_never_cut(bed: Bed) {
    let digits = "9".repeat(76);
    let long = format!("{}.{}", "9".repeat(100), "1".repeat(100));
    let insert = |id: u32| {
        format!(
            "insert into t values ({id}, {digits}, {digits}9, {long}, array[{digits}, null]::numeric(76, 0)[], array[{long}, 'NaN', null]),
             ({id} + 1, 0, 0, 0.000, '{{}}', '{{}}'), ({id} + 2, -{digits}, -{digits}9, -{long}, null, null)"
        )
    };
    bed.sql("create table t (id int primary key, d numeric(76, 0), s numeric(78, 0), free numeric, ds numeric(76, 0)[], frees numeric[])").await;
    bed.sql(&insert(1)).await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql(&insert(11)).await;
    assert_eq!(bed.wait_equal("t", "t").await, 6);
    let types = bed
        .clickhouse
        .query("select groupArray(type) from (select type from system.columns where database = currentDatabase() and table = 't' and name in ('d', 's', 'free', 'frees') order by position)")
        .await
        .expect("types");
    assert_eq!(
        types.trim(),
        "['Nullable(Decimal(76, 0))','Nullable(String)','Nullable(String)','Array(Nullable(String))']"
    );
}

async fn chosen_types_hold_the_value(bed: Bed) {
    bed.sql("set timezone = 'UTC'; create table t (id int primary key, s numeric(20, 2) not null, i numeric(78, 0), u numeric(78, 0) not null, d numeric, t time, t3 time not null, l text, ip inet, w int)").await;
    bed.sql(
        "insert into t values
         (1, 12.30, -5789604461865809771178549250434395392663499233282028201972879200395656, 115792089237316195423570985008687907853269984665640564039457584007913129, 1.5, '24:00:00', '01:02:03.456', 'x', '10.0.0.1', 7),
         (2, -1, null, 0, null, null, '00:00', null, null, null)",
    )
    .await;
    let chosen = [
        ("s", "String"),
        ("i", "Int256"),
        ("u", "UInt256"),
        ("d", "Decimal(18, 4)"),
        ("t", "Time64(6)"),
        ("t3", "Time64(3)"),
        ("l", "LowCardinality(String)"),
        ("ip", "IPv4"),
        ("w", "Int64"),
    ];
    let mut request = bed.mirror(&["public.t"]);
    for (name, kind) in chosen {
        let column = api::Column { name: String::new(), r#type: kind.to_owned() };
        request.tables[0].columns.insert(name.to_owned(), column);
    }
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("insert into t select id + 10, s, i, u, d, t, t3, l, ip, w from t").await;
    let sql = "select toString(tuple(* except (_version, _is_deleted, _synced_at))) as line from t final order by id";
    let expected = |id: u32| {
        [
            format!(
                "({id},'12.30',-5789604461865809771178549250434395392663499233282028201972879200395656,115792089237316195423570985008687907853269984665640564039457584007913129,1.5,'24:00:00.000000','01:02:03.456','x','10.0.0.1',7)"
            ),
            format!("({},'-1.00',NULL,0,NULL,NULL,'00:00:00.000',NULL,NULL,NULL)", id + 1),
        ]
    };
    let expected: Vec<String> = expected(1).into_iter().chain(expected(11)).collect();
    bed.wait_lines(sql, &expected).await;
}

async fn json_null_is_not_null_and_native_json_is_equal(bed: Bed) {
    bed.sql("create table t (id int primary key, j json, jb jsonb, jn json not null, native jsonb)").await;
    let insert = |id: u32| {
        format!(
            r#"insert into t values ({id}, null, null, 'null', '{{"a": {{"b": 1, "c": [1, 2.5, "x"]}}}}'), ({id} + 1, 'null', 'null', '{{"a" : 1.00, "a":[ ]}}', '{{"a.b": true, "n": null}}'),
               ({id} + 2, '"null"', '"null"', ' [1,  2]', '{{}}'), ({id} + 3, '""', '{{}}', '""', null)"#
        )
    };
    bed.sql(&insert(1)).await;
    let mut request = bed.mirror(&["public.t"]);
    let column = api::Column { name: String::new(), r#type: "JSON".to_owned() };
    request.tables[0].columns.insert("native".to_owned(), column);
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql(&insert(11)).await;
    let row = |j: &str, jb: &str, jn: &str, native: &str| format!("{j}|{jb}|{jn}|{native}");
    let rows = [
        row("\\N", "\\N", "null", r#"{"a":{"b":1,"c":[1,2.5,"x"]}}"#),
        row("null", "null", r#"{"a" : 1.00, "a":[ ]}"#, r#"{"a":{"b":true}}"#),
        row("\"null\"", "\"null\"", " [1,  2]", "{}"),
        row("\"\"", "{}", "\"\"", "\\N"),
    ];
    let sql = "select concatWithSeparator('|', ifNull(j, '\\\\N'), ifNull(jb, '\\\\N'), jn, ifNull(toString(native), '\\\\N')) as line from t final order by id";
    bed.wait_lines(sql, &[rows.clone(), rows].concat()).await;
}

async fn values_that_cannot_be_held_stop_their_table_alone(bed: Bed) {
    bed.sql("create table good (id int primary key); create table dates (id int primary key, d date not null); create table nans (id int primary key, n numeric(5, 2)); create table copied (id int primary key, ts timestamptz); insert into copied values (1, '-infinity')").await;
    bed.create(bed.mirror(&["public.good", "public.dates", "public.nans", "public.copied"]))
        .await
        .expect("a mirror");
    bed.wait_table("public.copied", table::State::Error).await;
    bed.wait_table("public.good", table::State::Streaming).await;
    bed.wait_table("public.dates", table::State::Streaming).await;
    bed.wait_table("public.nans", table::State::Streaming).await;
    bed.sql("insert into dates values (1, 'infinity'); insert into nans values (1, 'NaN'); insert into good select generate_series(1, 10)").await;
    for (name, column) in [("public.dates", "d"), ("public.nans", "n"), ("public.copied", "ts")] {
        let mirror = bed.wait_table(name, table::State::Error).await;
        let error =
            mirror.tables.iter().find(|t| t.source == name).and_then(|t| t.error.clone()).expect("its error");
        assert_eq!(error.code, "VALUE_UNREPRESENTABLE", "{error:?}");
        assert!(error.message.contains(column), "{error:?}");
        assert!(error.remedy.contains("on_unrepresentable") || error.remedy.contains("type"), "{error:?}");
    }
    assert_eq!(bed.wait_equal("good", "good").await, 10);
}

async fn infinities_become_null_where_asked(bed: Bed) {
    bed.sql("create table t (id int primary key, d date not null, ts timestamp, tz timestamptz not null, n numeric(5, 2), f float8 not null)").await;
    let insert = |id: u32| {
        format!(
            "insert into t values ({id}, 'infinity', '-infinity', 'infinity', 'NaN', 'NaN'), ({id} + 1, '2001-01-01', '2001-01-01', '2001-01-01 00:00:00+00', 1.5, 1.5),
             ({id} + 2, '4713-01-01 BC', '294276-12-31', '0044-03-15 00:00:00+00 BC', null, '-Infinity')"
        )
    };
    bed.sql(&insert(1)).await;
    let mut request = bed.mirror(&["public.t"]);
    let settings =
        api::Settings { on_unrepresentable: OnUnrepresentable::WriteNull.into(), ..Default::default() };
    request.settings = Some(settings);
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql(&insert(11)).await;
    let rows = [
        "(NULL,NULL,NULL,NULL,nan)",
        "('2001-01-01','2001-01-01 00:00:00.000000','2001-01-01 00:00:00.000000',1.5,1.5)",
        "(NULL,NULL,NULL,NULL,-inf)",
    ];
    let sql = "select toString((d, ts, tz, n, f)) as line from t final order by id";
    bed.wait_lines(sql, &[rows, rows].concat()).await;

    // They are counted, those of the copy and those of the stream, and one event tells of them.
    let counted = |column: &str, values: i64| (column.to_owned(), values);
    let expected = [counted("d", 4), counted("ts", 4), counted("tz", 4), counted("n", 2)].into();
    bed.wait_for("values are counted", |mirror| mirror.tables[0].nulled == expected).await;
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    let told: Vec<_> = events.iter().filter(|event| event.code == "VALUE_UNREPRESENTABLE").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message.contains("became NULL") && told[0].message.contains("tz (2)"), "{told:?}");
    let of_mirror = format!("millrace_nulled_values_total{{mirror=\"{}\"}}", bed.name);
    let mut counted = 0;
    for url in &stack::endpoints().metrics {
        let address = url.trim_start_matches("http://").trim_end_matches("/metrics").trim_end_matches('/');
        let metrics = http::get(address, "/metrics").await.expect("metrics");
        let value = |line: &str| line.strip_prefix(&of_mirror)?.trim().parse::<i64>().ok();
        counted += metrics.lines().filter_map(value).sum::<i64>();
    }
    assert_eq!(counted, 14);
}

/// Every character that PostgreSQL has: all planes of Unicode, controls included, NUL excluded.
async fn every_character_arrives(bed: Bed) {
    let insert = |offset: u32| {
        format!(
            "insert into t (id, v, c, ts) select n + {offset}, s, right(s, 40), array[s, null, reverse(s)] from (
                select i / 64 as n, string_agg(chr(i), '' order by i) as s from generate_series(1, 1114111) i
                where i not between 55296 and 57343 group by 1) x"
        )
    };
    bed.sql("create table t (id int primary key, v text, c varchar(40), ts text[]); create table keys (k text primary key, id int)").await;
    bed.sql(&insert(0)).await;
    bed.sql("insert into keys select chr(i), i from generate_series(1, 700) i").await;
    bed.mirror_streaming(&["public.t", "public.keys"]).await;
    bed.sql(&insert(20_000)).await;
    bed.sql("insert into keys select 'x' || chr(i) || 'y', i from generate_series(1, 700) i; delete from keys where id % 2 = 0; update keys set k = k || 'z' where id % 3 = 0").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2 * 17_376);
    assert_eq!(bed.wait_equal("keys", "keys").await, 700);
}

/// Every printable character of LATIN1, also in names and keys; and another collation than the default.
async fn databases_in_latin1(mut bed: Bed) {
    let name = format!("{}_latin1", bed.name.replace('-', "_"));
    bed.move_to(&name, "encoding 'LATIN1' locale 'C' template template0", &name).await;
    bed.sql("create table \"größe\" (\"schlüssel\" text primary key, wert varchar(300), j jsonb)").await;
    let all = "select string_agg(chr(i), '' order by i) as s from generate_series(1, 255) i where i not between 128 and 159";
    bed.sql(&format!(
        "insert into \"größe\" select 'ä' || i, s, to_jsonb(s) from ({all}) x, generate_series(1, 50) i"
    ))
    .await;
    let mirror = bed.mirror_streaming(&["public.größe"]).await;
    let destination = format!("`{}`", mirror.tables[0].destination);
    bed.sql(&format!("insert into \"größe\" select 'ö' || i, s, to_jsonb(s) from ({all}) x, generate_series(1, 50) i; update \"größe\" set \"schlüssel\" = 'ü' || \"schlüssel\" where \"schlüssel\" like '%1%'; delete from \"größe\" where \"schlüssel\" like '%2'")).await;
    assert!(bed.wait_equal("\"größe\"", &destination).await > 50);
}

/// SQL_ASCII is no encoding: the bytes that were stored are the bytes that arrive.
async fn databases_without_an_encoding(mut bed: Bed) {
    let name = format!("{}_ascii", bed.name.replace('-', "_"));
    bed.move_to(&name, "encoding 'SQL_ASCII' locale 'C' template template0", &name).await;
    bed.sql("create table t (id int primary key, v text, ts text[]); insert into t values (1, 'plain', '{a}'), (2, 'größe ☃', '{ü}')").await;
    // Bytes that are no UTF-8, as an application with another encoding would have stored them.
    let bytes = "select i, convert_from(decode('67e4fc80ff', 'hex'), 'SQL_ASCII'), array[convert_from(decode('e4', 'hex'), 'SQL_ASCII')] from";
    bed.sql(&format!("insert into t {bytes} generate_series(10, 12) i")).await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql(&format!(
        "insert into t {bytes} generate_series(20, 22) i; insert into t values (3, 'später', '{{ö}}')"
    ))
    .await;
    let sql = "select concat(toString(id), ' ', lower(hex(v)), ' ', lower(hex(ts[1]))) as line from t final order by id";
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let row = |id: u32, v: &str, t: &str| format!("{id} {} {}", hex(v), hex(t));
    let mut expected = vec![row(1, "plain", "a"), row(2, "größe ☃", "ü"), row(3, "später", "ö")];
    expected.extend([10, 11, 12, 20, 21, 22].map(|id| format!("{id} 67e4fc80ff e4")));
    bed.wait_lines(sql, &expected).await;
}

async fn values_above_15_mb(bed: Bed) {
    bed.sql("create table t (id int primary key, v text, b bytea, j jsonb, n int); alter table t alter v set storage external").await;
    let insert = |id: u32| {
        format!(
            "insert into t select {id}, s, convert_to(s, 'UTF8'), to_jsonb(left(s, 16000000)), 0 from (select repeat('0123456789abcde,', 1200000) as s) x"
        )
    };
    bed.sql(&insert(1)).await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql(&insert(2)).await;
    // What did not change is not sent: it is read again, in full.
    bed.sql("update t set n = 1 where id = 1; update t set n = 2, v = 'short' where id = 2").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
}
