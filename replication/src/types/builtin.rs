//! The types that we know by themselves: those of PostgreSQL, and those of extensions. Pure.

use super::Conversion;
use super::conversion::{Rendered, Vector};

/// Digits that ClickHouse's widest `Decimal` holds.
const DECIMAL_PRECISION_MAX: i32 = 76;

/// `numeric` of PostgreSQL, whose conversion depends on its modifier.
const NUMERIC: u32 = 1700;

/// The types whose OIDs are fixed (PostgreSQL source, `pg_type.dat`), but `numeric`. Those by their
/// text form are here for the documentation: every other type has it too.
pub(super) const BUILTIN: &[(u32, &str, Conversion)] = &[
    (16, "bool", Conversion::Bool),
    (21, "int2", Conversion::Int16),
    (23, "int4", Conversion::Int32),
    (20, "int8", Conversion::Int64),
    (700, "float4", Conversion::Float32),
    (701, "float8", Conversion::Float64),
    (25, "text", Conversion::Text),
    (1043, "varchar", Conversion::Text),
    (1042, "bpchar", Conversion::Text),
    (19, "name", Conversion::Text),
    (18, "\"char\"", Conversion::Rendered(Rendered::Char)),
    (17, "bytea", Conversion::Bytes),
    (2950, "uuid", Conversion::Uuid),
    (114, "json", Conversion::Text),
    (3802, "jsonb", Conversion::Jsonb),
    (4072, "jsonpath", Conversion::Jsonb),
    (142, "xml", Conversion::TextForm),
    (1082, "date", Conversion::Date),
    (1114, "timestamp", Conversion::Timestamp),
    (1184, "timestamptz", Conversion::Timestamp),
    (1083, "time", Conversion::Rendered(Rendered::Time)),
    (1266, "timetz", Conversion::Rendered(Rendered::TimeTz)),
    (1186, "interval", Conversion::TextForm),
    (790, "money", Conversion::TextForm),
    (869, "inet", Conversion::Rendered(Rendered::Inet)),
    (650, "cidr", Conversion::Rendered(Rendered::Inet)),
    (829, "macaddr", Conversion::Rendered(Rendered::MacAddress)),
    (774, "macaddr8", Conversion::Rendered(Rendered::MacAddress)),
    (1560, "bit", Conversion::Rendered(Rendered::Bits)),
    (1562, "varbit", Conversion::Rendered(Rendered::Bits)),
    (600, "point", Conversion::TextForm),
    (628, "line", Conversion::TextForm),
    (601, "lseg", Conversion::TextForm),
    (603, "box", Conversion::TextForm),
    (602, "path", Conversion::TextForm),
    (604, "polygon", Conversion::TextForm),
    (718, "circle", Conversion::TextForm),
    (3904, "int4range", Conversion::TextForm),
    (3926, "int8range", Conversion::TextForm),
    (3906, "numrange", Conversion::TextForm),
    (3908, "tsrange", Conversion::TextForm),
    (3910, "tstzrange", Conversion::TextForm),
    (3912, "daterange", Conversion::TextForm),
    (4451, "int4multirange", Conversion::TextForm),
    (4536, "int8multirange", Conversion::TextForm),
    (4532, "nummultirange", Conversion::TextForm),
    (4533, "tsmultirange", Conversion::TextForm),
    (4534, "tstzmultirange", Conversion::TextForm),
    (4535, "datemultirange", Conversion::TextForm),
    (3614, "tsvector", Conversion::TextForm),
    (3615, "tsquery", Conversion::TextForm),
    (26, "oid", Conversion::UInt32),
    (28, "xid", Conversion::UInt32),
    (29, "cid", Conversion::UInt32),
    (5069, "xid8", Conversion::UInt64),
    (3220, "pg_lsn", Conversion::TextForm),
    (27, "tid", Conversion::TextForm),
    (5038, "pg_snapshot", Conversion::TextForm),
    (2970, "txid_snapshot", Conversion::TextForm),
    (1790, "refcursor", Conversion::Text),
    (22, "int2vector", Conversion::TextForm),
    (30, "oidvector", Conversion::TextForm),
    (2205, "regclass", Conversion::TextForm),
    (2206, "regtype", Conversion::TextForm),
    (24, "regproc", Conversion::TextForm),
    (2202, "regprocedure", Conversion::TextForm),
    (2203, "regoper", Conversion::TextForm),
    (2204, "regoperator", Conversion::TextForm),
    (4096, "regrole", Conversion::TextForm),
    (4089, "regnamespace", Conversion::TextForm),
    (4191, "regcollation", Conversion::TextForm),
    (3734, "regconfig", Conversion::TextForm),
    (3769, "regdictionary", Conversion::TextForm),
];

/// Types of extensions, by the extension's name and the type's.
pub(super) const OF_EXTENSIONS: &[(&str, &str, Conversion)] = &[
    // The send function of citext is that of text.
    ("citext", "citext", Conversion::Text),
    ("hstore", "hstore", Conversion::Rendered(Rendered::Hstore)),
    ("ltree", "ltree", Conversion::Jsonb),
    ("ltree", "lquery", Conversion::Jsonb),
    ("ltree", "ltxtquery", Conversion::Jsonb),
    ("vector", "vector", Conversion::Vector(Vector::Single)),
    ("vector", "halfvec", Conversion::Vector(Vector::Half)),
    ("vector", "sparsevec", Conversion::Vector(Vector::Sparse)),
];

/// How a type of PostgreSQL's own is transcoded, if its OID is fixed.
pub(super) fn builtin(oid: u32, typmod: i32) -> Option<Conversion> {
    if oid == NUMERIC {
        return Some(numeric(typmod));
    }
    BUILTIN.iter().find(|(known, ..)| *known == oid).map(|(.., conversion)| conversion.clone())
}

/// How a type of an extension is transcoded, if it is one that we know.
pub(super) fn of_extension(extension: &str, name: &str) -> Option<Conversion> {
    let mut known = OF_EXTENSIONS.iter().filter(|(of, named, _)| *of == extension && *named == name);
    known.next().map(|(.., conversion)| conversion.clone())
}

/// `numeric` by its modifier (PostgreSQL source, `numeric.c`: `make_numeric_typmod`).
fn numeric(typmod: i32) -> Conversion {
    if typmod < 4 {
        return Conversion::NumericText;
    }
    let packed = typmod - 4;
    let precision = packed >> 16 & 0xffff;
    // 11 bits with sign, since PostgreSQL 15.
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let (precision, scale) = match scale {
        ..0 => (precision - scale, 0),
        _ if scale > precision => (scale, scale),
        _ => (precision, scale),
    };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision @ 1..), Ok(scale)) if i32::from(precision) <= DECIMAL_PRECISION_MAX => {
            Conversion::Decimal { precision, scale }
        }
        _ => Conversion::NumericText,
    }
}
