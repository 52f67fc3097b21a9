//! Copies: what was in a table when the mirror was created arrives, whatever its types.

use libtest_mimic::Trial;
use millrace_proto::v1::mirror;

use crate::support::bed::Bed;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("snapshot::copies_every_common_type", copies_every_common_type),
        test("snapshot::copies_empty_tables", copies_empty_tables),
        test("snapshot::copiers_share_partitions", copiers_share_partitions),
        test("snapshot::keeps_odd_names", keeps_odd_names),
    ]
}

/// Every common type, each nullable, with the values that break naive readers.
pub const TYPES: &str = r#"
    create type mood as enum ('sad', 'ok', 'it''s "fine"');
    create table types (
        id bigint primary key, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8,
        n numeric(12, 2), wide numeric(60, 20), free numeric, t text, v varchar(40), c char(5), y bytea,
        j json, jb jsonb, u uuid, d date, ts timestamp, tz timestamptz, m mood,
        ab bool[], ai int4[], al int8[], af float8[], an numeric(10, 3)[], at text[], ay bytea[], au uuid[],
        ad date[], ats timestamp[], atz timestamptz[], am mood[])"#;

/// Rows `first..first + 6`: extremes, empties, all NULL.
pub fn types_rows(first: i64) -> String {
    let row = |offset: i64, values: &str| format!("({}, {values})", first + offset);
    let nulls = ["null"; 32].join(", ");
    [
        row(0, r#"true, 32767, 2147483647, 9223372036854775807, 'NaN', 'Infinity', 9999999999.99,
            1234567890123456789012345678901234567890.12345678901234567890, 0.00000000000000000000000001,
            E'tab\tnewline\nquote''back\\slash \u00e9 \u4e2d \U0001F600', 'varchar', 'ab', '\x00ff5c27',
            '{"a" : 1.00, "a": [ ]}', '{"b": {"c": null}, "a": 1.0}', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
            '2262-04-11', '2262-04-11 23:47:16.854775', '1969-12-31 23:59:59.999999+00', 'it''s "fine"',
            '{true,false,null}', '{1,-1,null,2147483647}', '{}', '{1.5,NaN,null}', '{1.5,-0.001,null}',
            array['a', 'NULL', null, '', 'x"y,{}\', 'é'], array['\x00'::bytea, null], array['00000000-0000-0000-0000-000000000001'::uuid],
            array['1970-01-01'::date, null], array['2000-01-01 00:00:00.000001'::timestamp],
            array['2000-01-01 12:00:00+02'::timestamptz, null], array['sad'::mood, null]"#),
        row(1, r#"false, -32768, -2147483648, -9223372036854775808, '-Infinity', '-0', -9999999999.99,
            -1234567890123456789012345678901234567890.12345678901234567890, -123456789012345678901234567890.5,
            '', '', '', '', 'null', 'null', '00000000-0000-0000-0000-000000000000',
            '1900-01-01', '1900-01-01 00:00:00', '1900-01-01 00:00:00+00', 'sad',
            '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'"#),
        row(2, &nulls),
        row(3, r#"true, 0, 0, 0, 0, 1e-300, 0, 0, 0.10, ' ', ' ', ' ', '\x', '""', '"\u0041"', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
            '1970-01-01', '1970-01-01 00:00:00', '1970-01-01 00:00:00+00', 'ok',
            null, null, null, null, null, null, null, null, null, null, null, null"#),
        row(4, r#"true, 1, 1, 1, 3.4028235e38, 1.7976931348623157e308, 0.01, 0.00000000000000000001, 100000, repeat('long ', 20000), 'v', 'c',
            decode(repeat('00ff', 5000), 'hex'), ('[' || repeat('1,', 5000) || '1]')::json, ('[' || repeat('1,', 5000) || '1]')::jsonb,
            gen_random_uuid(), '2024-02-29', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789+05:30', 'ok',
            '{t}', array(select generate_series(1, 1000)), '{1}', '{1}', '{1}', '{a}', '{}', '{}', '{}', '{}', '{}', '{}'"#),
        row(5, r#"true, 1, 1, 1, 1.1754944e-38, 5e-324, 12.30, 12.30, 1e50, '\N', '\N', 'x', '\x5c4e', '{}', '{}', gen_random_uuid(),
            '2024-12-31', '2024-12-31 23:59:59.9', '2024-12-31 23:59:59.9-11', 'ok',
            '{f}', '{0}', '{0}', '{0}', '{0}', array[E'\n\t\\'], '{}', '{}', '{}', '{}', '{}', '{}'"#),
    ]
    .join(",\n")
}

async fn copies_every_common_type(bed: Bed) {
    bed.sql(TYPES).await;
    bed.sql(&format!("insert into types values {}", types_rows(1))).await;
    bed.mirror_streaming(&["public.types"]).await;
    assert_eq!(bed.wait_equal("types", "types").await, 6);
    // The same values by the stream, and every value replaced by every other.
    bed.sql(&format!("insert into types values {}", types_rows(101))).await;
    assert_eq!(bed.wait_equal("types", "types").await, 12);
    let columns = "b, i2, i4, i8, f4, f8, n, wide, free, t, v, c, y, j, jb, u, d, ts, tz, m, ab, ai, al, af, an, at, ay, au, ad, ats, atz, am";
    bed.sql(&format!(
        "update types set ({columns}) = (select {columns} from types o where o.id = (types.id + 2) % 6 + 1) where id < 100"
    ))
    .await;
    assert_eq!(bed.wait_equal("types", "types").await, 12);
}

async fn copies_empty_tables(bed: Bed) {
    bed.sql(
        "create table empty_one (id int primary key); create table empty_two (id int primary key, t text)",
    )
    .await;
    let mirror = bed.mirror_streaming(&["public.empty_one", "public.empty_two"]).await;
    assert_eq!(mirror.tables.len(), 2);
    assert_eq!(bed.wait_equal("empty_two", "empty_two").await, 0);
    bed.sql("insert into empty_two values (1, 'first')").await;
    assert_eq!(bed.wait_equal("empty_two", "empty_two").await, 1);
}

async fn copiers_share_partitions(bed: Bed) {
    bed.sql("create table wide (id int primary key, filler text)").await;
    bed.sql("insert into wide select i, repeat(md5(i::text), 30) from generate_series(1, 40000) i").await;
    let mut mirror = bed.mirror(&["public.wide"]);
    mirror.settings = Some(millrace_proto::v1::Settings {
        snapshot: Some(millrace_proto::v1::SnapshotSettings {
            partition_bytes: Some(1 << 20),
            ..Default::default()
        }),
        ..Default::default()
    });
    bed.create(mirror).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    assert_eq!(mirror.tables[0].rows_copied, 40_000);
    assert!(mirror.tables[0].partitions_total > 20, "{mirror:?}");
    assert_eq!(bed.wait_equal("wide", "wide").await, 40_000);
    let catalog = crate::support::bed::connect(&stack::endpoints().catalog, None).await;
    // On which workers they run is for Temporal to decide; that two workers share a copy is shown by
    // `crash::worker_killed_while_copying`.
    let copiers: i64 = catalog
        .query_one(
            "select count(distinct p.lease_owner) from partitions p join mirror_tables t on t.id = p.table_id where t.mirror = $1",
            &[&bed.name],
        )
        .await
        .expect("the partitions in the catalog")
        .get(0);
    assert!(copiers > 1, "one copier did everything");
}

async fn keeps_odd_names(bed: Bed) {
    bed.sql(
        r#"create schema "Odd Schema";
        create table "Odd Schema"."Select ""x"" from.t-1" ("Key Column" int primary key, "user" text, "ü.ä" text, "a`b\c" int, "_x'y" int);
        insert into "Odd Schema"."Select ""x"" from.t-1" values (1, 'a', 'b', 2, 3), (2, null, null, null, null)"#,
    )
    .await;
    let name = r#""Odd Schema"."Select ""x"" from.t-1""#;
    let mirror = bed.mirror_streaming(&[name]).await;
    let destination = format!("`{}`", mirror.tables[0].destination);
    assert_eq!(bed.wait_equal(name, &destination).await, 2);
    bed.sql(&format!(r#"update {name} set "Key Column" = 3, "user" = 'c' where "Key Column" = 2; delete from {name} where "Key Column" = 1"#))
        .await;
    assert_eq!(bed.wait_equal(name, &destination).await, 1);
}
