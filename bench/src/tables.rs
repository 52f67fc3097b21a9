//! The tables that are copied and streamed. Pure: SQL as text.

/// A kind of table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Eight columns of the types that most tables have.
    Reference,
    /// Sixty columns of mixed types.
    Wide,
    /// A document of 2 KB in each row, stored out of line.
    Json,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Reference, Kind::Wide, Kind::Json];

    /// Its name in the report, and the table's.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Reference => "reference",
            Kind::Wide => "wide",
            Kind::Json => "json",
        }
    }

    /// Rows, where the reference table has so many: about as many bytes.
    pub fn rows(self, reference: u64) -> u64 {
        match self {
            Kind::Reference => reference,
            Kind::Wide => reference / 10,
            Kind::Json => reference / 20,
        }
    }

    /// The statement that makes a table of this kind.
    pub fn create(self, table: &str) -> String {
        let columns = match self {
            Kind::Reference => REFERENCE.to_owned(),
            Kind::Wide => {
                let column = |at: usize| format!(", c{at} {}", WIDE[at % WIDE.len()].0);
                format!("id bigint primary key{}", (1..WIDE_COLUMNS).map(column).collect::<String>())
            }
            Kind::Json => {
                "id bigint primary key, at timestamptz not null, document jsonb not null".to_owned()
            }
        };
        format!("create table {table} ({columns})")
    }

    /// The expressions of a row whose id is `i`.
    pub fn row(self) -> String {
        match self {
            Kind::Reference => REFERENCE_ROW.to_owned(),
            Kind::Wide => {
                let value = |at: usize| format!(", {}", WIDE[at % WIDE.len()].1);
                format!("i{}", (1..WIDE_COLUMNS).map(value).collect::<String>())
            }
            Kind::Json => DOCUMENT_ROW.to_owned(),
        }
    }

    /// The statement that adds rows of these ids.
    pub fn insert(self, table: &str, from: u64, to: u64) -> String {
        format!("insert into {table} select {} from generate_series({from}::bigint, {to}) i", self.row())
    }
}

/// The reference table's columns.
const REFERENCE: &str = "id bigint primary key, a int not null, b text not null, c numeric(12,2) not null, \
    d timestamptz not null, e jsonb not null, f uuid not null, g boolean not null";

const REFERENCE_ROW: &str = "i, (random() * 1e6)::int, substr(md5(i::text) || md5((i + 1)::text), 1, 40), \
    (random() * 1e6)::numeric(12,2), now() + i * interval '1 ms', \
    jsonb_build_object('k', i, 'tag', substr(md5((i + 2)::text), 1, 20)), gen_random_uuid(), i % 2 = 0";

/// Digests do not get smaller by the server's compression, so the document is stored out of line.
const DOCUMENT_ROW: &str = "i, now(), jsonb_build_object('k', i, 'text', \
    (select string_agg(md5((i * 100 + n)::text), '') from generate_series(1, 62) n))";

/// Columns of the wide table, the key included.
const WIDE_COLUMNS: usize = 60;

/// Types of the wide table's columns, in turn, with a value of each.
const WIDE: [(&str, &str); 12] = [
    ("int", "(random() * 1e6)::int"),
    ("bigint", "i * 7919"),
    ("text", "substr(md5(i::text), 1, 20)"),
    ("numeric(12,2)", "(random() * 1e6)::numeric(12,2)"),
    ("timestamptz", "now() + i * interval '1 s'"),
    ("boolean", "i % 3 = 0"),
    ("double precision", "random()"),
    ("date", "date '2020-01-01' + (i % 1000)::int"),
    ("uuid", "gen_random_uuid()"),
    ("text", "case when i % 2 = 0 then 'even' end"),
    ("smallint", "(i % 100)::smallint"),
    ("int[]", "array[i::int, 2, 3]"),
];
