//! The types under test, and how random values of them are written.

use super::random::Random;

/// Made in every source database.
pub const SETUP: &str = r#"
create extension hstore; create extension citext; create extension ltree; create extension cube;
create type mood as enum ('sad', 'it''s "ok", {really}', '', 'NULL');
create type pair as (a int, b text);
create type floatrange as range (subtype = float8);
create domain price as numeric(10, 2);
create domain cheap as price check (value < 100);
create domain words as text;
create domain ints as int[];
create domain matrix as int[][];
"#;

/// How a value in ClickHouse is compared with PostgreSQL's text of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The very text, as a String.
    Text,
    /// The bytes of `\x..`.
    Bytes,
    Bool,
    /// A number; zeros at the end do not matter.
    Number,
    Float32,
    Float64,
    /// Date and time in UTC; zeros at the end do not matter.
    Moment,
    /// The same text from `toString`.
    Same,
}

/// A type under test.
pub struct Kind {
    pub name: &'static str,
    pub class: Class,
    pub delimiter: char,
    /// The dimensions that a domain brings along.
    pub depth: usize,
    pub value: fn(&mut Random) -> String,
}

const fn kind(name: &'static str, class: Class, value: fn(&mut Random) -> String) -> Kind {
    Kind { name, class, delimiter: ',', depth: 0, value }
}

use Class::{Bool, Bytes, Float32, Float64, Moment, Number, Same, Text};

pub const KINDS: &[Kind] = &[
    kind("bool", Bool, |r| r.pick(&["t", "f"])),
    kind("int2", Number, |r| (r.next() as i16).to_string()),
    kind("int4", Number, |r| (r.next() as i32 >> r.below(32)).to_string()),
    kind("int8", Number, |r| (r.next() as i64 >> r.below(64)).to_string()),
    kind("float4", Float32, |r| float(f32::from_bits(r.next() as u32).into())),
    kind("float8", Float64, |r| float(f64::from_bits(r.next()))),
    kind("numeric(38, 10)", Number, |r| r.number(28, 10)),
    kind("numeric(9, 2)", Number, |r| r.number(7, 2)),
    kind("numeric(18, 18)", Number, |r| r.number(0, 18)),
    kind("numeric(76, 20)", Number, |r| r.number(56, 20)),
    kind("numeric(5, -3)", Number, |r| r.number(8, 0)),
    kind("numeric(3, 6)", Number, |r| format!("0.000{}", r.below(1000))),
    kind("numeric(1000, 20)", Text, |r| r.number(900, 20)),
    kind("numeric", Text, |r| match r.below(12) {
        0 => r.pick(&["NaN", "Infinity", "-Infinity", "0.0000", "1e-100", "1e300"]),
        _ => r.number(60, 60),
    }),
    kind("text", Text, Random::text),
    kind("varchar(400)", Text, Random::text),
    kind("char(9)", Text, |r| r.text().chars().take(9).collect()),
    kind("name", Text, |r| r.text().chars().take(15).collect()),
    kind("\"char\"", Text, |r| match r.below(3) {
        0 => String::new(),
        1 => format!("\\{:03o}", 128 + r.below(128)),
        _ => char::from(1 + r.below(127) as u8).to_string(),
    }),
    kind("bytea", Bytes, |r| r.bytes()),
    kind("uuid", Same, |r| {
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            r.next() as u32,
            r.next() as u16,
            r.next() as u16,
            r.next() as u16,
            r.next() >> 16
        )
    }),
    kind("json", Text, |r| r.json()),
    kind("jsonb", Text, |r| r.json()),
    kind("jsonpath", Text, |r| r.pick(&["$.a[*] ? (@.b > 3)", "strict $", "$.\"a b\".keyvalue()"])),
    kind("date", Same, |r| r.day()),
    kind("timestamp", Moment, |r| r.moment()),
    kind("timestamptz", Moment, |r| r.moment() + "+00"),
    kind("timestamp(3)", Moment, |r| r.moment()),
    kind("time", Text, |r| if r.below(20) == 0 { "24:00:00".to_owned() } else { r.time() }),
    kind("timetz", Text, |r| r.time() + &r.zone()),
    kind("time(2)", Text, |r| r.time()),
    kind("interval", Text, |r| r.interval()),
    kind("money", Text, |r| r.number(14, 2)),
    kind("inet", Text, |r| r.inet()),
    kind("cidr", Text, |r| r.cidr()),
    kind("macaddr", Text, |r| format!("{:012x}", r.next() >> 16)),
    kind("macaddr8", Text, |r| format!("{:016x}", r.next())),
    kind("bit(11)", Text, |r| format!("{:011b}", r.below(2048))),
    kind("varbit", Text, |r| {
        let n = r.below(70);
        (0..n).map(|_| if r.below(2) == 0 { '0' } else { '1' }).collect()
    }),
    kind("point", Text, |r| r.point()),
    kind("lseg", Text, |r| format!("[{},{}]", r.point(), r.point())),
    Kind { delimiter: ';', ..kind("box", Text, |r| format!("{},{}", r.point(), r.point())) },
    kind("path", Text, |r| format!("[{},{},{}]", r.point(), r.point(), r.point())),
    kind("polygon", Text, |r| format!("({},{},{})", r.point(), r.point(), r.point())),
    kind("circle", Text, |r| format!("<{},{}>", r.point(), r.below(1000))),
    kind("line", Text, |r| format!("{{{},1.5,{}}}", r.below(9), r.below(9))),
    kind("int4range", Text, |r| r.range(|r| r.below(1000).to_string())),
    kind("numrange", Text, |r| r.range(|r| format!("{}.50", r.below(1000)))),
    kind("daterange", Text, |r| r.range(|r| format!("20{:02}-01-01", r.below(100)))),
    kind("tstzrange", Text, |r| r.range(|r| format!("20{:02}-01-01 00:00:00+03", r.below(100)))),
    kind("floatrange", Text, |r| r.range(|r| r.below(1000).to_string())),
    kind("int8multirange", Text, |r| {
        let a = r.below(9);
        format!("{{[1,{}),[{},)}}", a + 2, a + 20)
    }),
    kind("tsvector", Text, |r| r.pick(&["'a':1A,3 'b c':2", "", "'it''s'", "'\\\\'"])),
    kind("tsquery", Text, |r| r.pick(&["'a' & !'b':*A", "'x' <-> 'y'"])),
    kind("oid", Number, |r| (r.next() as u32).to_string()),
    kind("xid", Number, |r| (r.next() as u32).to_string()),
    kind("xid8", Number, |r| r.next().to_string()),
    kind("cid", Number, |r| (r.next() as u32).to_string()),
    kind("pg_lsn", Text, |r| format!("{:X}/{:X}", r.next() as u16, r.next() as u32)),
    kind("tid", Text, |r| format!("({},{})", r.next() as u32, r.next() as u16)),
    kind("pg_snapshot", Text, |_| "10:20:10,14,15".to_owned()),
    kind("int2vector", Text, |r| format!("{} -{}", r.below(9), r.below(9))),
    kind("oidvector", Text, |r| format!("{} {}", r.below(9), r.below(9))),
    kind("regclass", Text, |r| r.pick(&["pg_class", "-", "17"])),
    kind("regtype", Text, |r| r.pick(&["int4", "text[]", "numeric"])),
    kind("refcursor", Text, Random::text),
    kind("hstore", Text, |r| r.hstore()),
    kind("citext", Text, Random::text),
    kind("ltree", Text, |r| r.pick(&["a.b_1.C", "", "Top"])),
    kind("lquery", Text, |r| r.pick(&["*.a{1,2}.!b*", "x@"])),
    kind("cube", Text, |r| format!("({}),({}.5)", r.below(9), r.below(9))),
    kind("mood", Text, |r| r.pick(&["sad", "it's \"ok\", {really}", "", "NULL"])),
    kind("pair", Text, |r| r.pick(&["(1,\"a,b\")", "(,)", "(,\"\")", "(7,\"\\\\ \"\"q\"\"\")"])),
    kind("price", Number, |r| r.number(8, 2)),
    kind("cheap", Number, |r| r.number(1, 2)),
    kind("words", Text, Random::text),
    Kind { depth: 1, ..kind("ints", Number, |r| (r.next() as i32).to_string()) },
    Kind { depth: 2, ..kind("matrix", Number, |r| (r.next() as i32).to_string()) },
];

fn float(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        // As a double it may round to nothing or beyond: the least and the greatest are written out.
        _ => format!("{value:e}"),
    }
}
