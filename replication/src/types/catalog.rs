//! From PostgreSQL's type catalog to the plan of a column. Pure.

use std::collections::HashMap;

use super::Conversion;
use crate::table::ColumnPlan;

/// Digits that ClickHouse's widest `Decimal` holds.
const DECIMAL_PRECISION_MAX: i32 = 76;

/// How deep types may nest (domains over domains, arrays of domains). PostgreSQL itself cannot make
/// a cycle; the limit keeps a damaged catalog from looping us.
const NESTING_MAX: u8 = 32;

/// Selects the rows of [`TypeRow`], in its order of fields, for the types whose OIDs are in the
/// array `$1` (`oid[]`) and all types they are made of.
///
/// An array type is one that some type names as *its* array (`typarray`): `int2vector`, `name` and
/// others have elements without being arrays in the sense of the wire.
pub const CATALOG_QUERY: &str = "\
with recursive needed(oid) as (
    select pg_catalog.unnest($1::pg_catalog.oid[])
    union
    select part.oid
    from needed join pg_catalog.pg_type t on t.oid = needed.oid
    cross join lateral (values (t.typelem), (t.typbasetype)) as part(oid)
    where part.oid <> 0
)
select t.oid, t.typname::pg_catalog.text, t.typtype::pg_catalog.text,
    coalesce((select e.oid from pg_catalog.pg_type e where e.oid = t.typelem and e.typarray = t.oid), 0)
        as element,
    t.typbasetype, t.typtypmod, coalesce((select e.typdelim::pg_catalog.text from pg_catalog.pg_type e
        where e.oid = t.typelem), ',') as delimiter
from needed join pg_catalog.pg_type t on t.oid = needed.oid";

/// One row of `pg_type`, as [`CATALOG_QUERY`] selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// `oid`.
    pub oid: u32,
    /// `typname`.
    pub name: String,
    /// `typtype`: `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    pub kind: char,
    /// OID of the element of a true array, else 0.
    pub element: u32,
    /// `typbasetype` of a domain, else 0.
    pub base: u32,
    /// `typtypmod` of a domain: the modifier of its base type, -1 for none.
    pub base_typmod: i32,
    /// What separates the elements in the text form of the array.
    pub delimiter: char,
}

/// The types that the columns of some tables have.
#[derive(Debug, Clone, Default)]
pub struct TypeCatalog {
    rows: HashMap<u32, TypeRow>,
}

/// One column of a source table, as `pg_attribute` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// `attname`.
    pub name: String,
    /// `attnum`.
    pub attnum: i16,
    /// `atttypid`.
    pub type_oid: u32,
    /// `atttypmod`, -1 for none.
    pub typmod: i32,
    /// Not `attnotnull`.
    pub nullable: bool,
}

/// A type resolved: how its values are transcoded, and whether ClickHouse's column is a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    conversion: Conversion,
    low_cardinality: bool,
}

impl From<Conversion> for Resolved {
    fn from(conversion: Conversion) -> Self {
        Self { conversion, low_cardinality: false }
    }
}

impl Resolved {
    /// The type as DDL writes it.
    fn clickhouse_type(&self, nullable: bool) -> String {
        match (&self.conversion, nullable) {
            (Conversion::Array(element), _) => {
                let element =
                    Resolved { conversion: (**element).clone(), low_cardinality: self.low_cardinality };
                format!("Array({})", element.clickhouse_type(true))
            }
            (scalar, true) if self.low_cardinality => {
                format!("LowCardinality(Nullable({}))", scalar.wire_type())
            }
            (scalar, true) => format!("Nullable({})", scalar.wire_type()),
            (scalar, false) if self.low_cardinality => format!("LowCardinality({})", scalar.wire_type()),
            (scalar, false) => scalar.wire_type(),
        }
    }
}

impl FromIterator<TypeRow> for TypeCatalog {
    fn from_iter<I: IntoIterator<Item = TypeRow>>(rows: I) -> Self {
        Self { rows: rows.into_iter().map(|row| (row.oid, row)).collect() }
    }
}

impl TypeCatalog {
    /// Plans a column under its own name. Never fails: a type that we do not know is replicated by
    /// its text form.
    pub fn plan_column(&self, column: SourceColumn) -> ColumnPlan {
        let resolved = self.resolve(column.type_oid, column.typmod, 0);
        ColumnPlan {
            destination: column.name.clone(),
            name: column.name,
            attnum: column.attnum,
            type_oid: column.type_oid,
            typmod: column.typmod,
            nullable: column.nullable,
            clickhouse_type: resolved.clickhouse_type(column.nullable),
            conversion: resolved.conversion,
        }
    }

    /// Whether we understand the binary form of a type. A stream also receives the columns that it
    /// does not replicate, and may ask for binary only if this holds for all of them.
    pub fn binary_known(&self, type_oid: u32) -> bool {
        self.resolve(type_oid, -1, 0).conversion.binary_known()
    }

    fn resolve(&self, oid: u32, typmod: i32, depth: u8) -> Resolved {
        if let Some(conversion) = builtin(oid, typmod) {
            return conversion.into();
        }
        let Some(row) = self.rows.get(&oid).filter(|_| depth < NESTING_MAX) else {
            return Conversion::TextForm.into();
        };
        match row.kind {
            'd' => {
                // A domain's columns have no modifier of their own.
                self.resolve(row.base, row.base_typmod, depth + 1)
            }
            'e' => Resolved { conversion: Conversion::Text, low_cardinality: true },
            // The send function of citext is that of text.
            'b' if row.element == 0 && row.name == "citext" => Conversion::Text.into(),
            // Of the types that come with PostgreSQL only box has another delimiter.
            'b' if row.element != 0 && row.delimiter == ',' => {
                let element = self.resolve(row.element, typmod, depth + 1);
                if matches!(element.conversion, Conversion::Array(_)) {
                    // An array of a domain over an array: nested, and never one-dimensional.
                    return Conversion::TextForm.into();
                }
                Resolved {
                    conversion: Conversion::Array(Box::new(element.conversion)),
                    low_cardinality: element.low_cardinality,
                }
            }
            _ => Conversion::TextForm.into(),
        }
    }
}

/// The types whose OIDs are fixed (PostgreSQL source, `pg_type.dat`).
fn builtin(oid: u32, typmod: i32) -> Option<Conversion> {
    Some(match oid {
        16 => Conversion::Bool,
        17 => Conversion::Bytes,
        20 => Conversion::Int64,
        21 => Conversion::Int16,
        23 => Conversion::Int32,
        // name, text, json, bpchar, varchar
        19 | 25 | 114 | 1042 | 1043 => Conversion::Text,
        700 => Conversion::Float32,
        701 => Conversion::Float64,
        1082 => Conversion::Date,
        // timestamp, timestamptz
        1114 | 1184 => Conversion::Timestamp,
        1700 => numeric(typmod),
        2950 => Conversion::Uuid,
        3802 => Conversion::Jsonb,
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(oid: u32, name: &str, kind: char, element: u32, base: u32, base_typmod: i32) -> TypeRow {
        TypeRow { oid, name: name.to_owned(), kind, element, base, base_typmod, delimiter: ',' }
    }

    fn catalog() -> TypeCatalog {
        let mut boxes = row(1020, "_box", 'b', 603, 0, -1);
        boxes.delimiter = ';';
        [
            row(1231, "_numeric", 'b', 1700, 0, -1),
            row(1007, "_int4", 'b', 23, 0, -1),
            row(1183, "_time", 'b', 1083, 0, -1),
            row(1083, "time", 'b', 0, 0, -1),
            row(22, "int2vector", 'b', 0, 0, -1),
            row(90001, "mood", 'e', 0, 0, -1),
            row(90002, "_mood", 'b', 90001, 0, -1),
            row(90003, "price", 'd', 0, 1700, (10 << 16 | 2) + 4),
            row(90004, "_price", 'b', 90003, 0, -1),
            row(90005, "citext", 'b', 0, 0, -1),
            row(90006, "ints", 'd', 0, 1007, -1),
            row(90007, "_ints", 'b', 90006, 0, -1),
            row(90008, "pair", 'c', 0, 0, -1),
            row(90009, "loop", 'd', 0, 90009, -1),
            boxes,
        ]
        .into_iter()
        .collect()
    }

    fn planned(type_oid: u32, typmod: i32, nullable: bool) -> (String, Conversion) {
        let column = SourceColumn { name: "c".to_owned(), attnum: 1, type_oid, typmod, nullable };
        let plan = catalog().plan_column(column);
        (plan.clickhouse_type, plan.conversion)
    }

    #[test]
    fn numeric_follows_its_modifier() {
        let numeric =
            |precision: i32, scale: i32| planned(1700, (precision << 16 | scale & 0x7ff) + 4, false).0;
        assert_eq!(numeric(12, 2), "Decimal(12, 2)");
        assert_eq!(numeric(76, 38), "Decimal(76, 38)");
        assert_eq!(numeric(77, 0), "String");
        assert_eq!(numeric(1000, 1000), "String");
        assert_eq!(numeric(3, -2), "Decimal(5, 0)");
        assert_eq!(numeric(76, -1), "String");
        assert_eq!(numeric(2, 5), "Decimal(5, 5)");
        assert_eq!(planned(1700, -1, false).0, "String");
    }

    #[test]
    fn nullability_goes_where_clickhouse_allows_it() {
        assert_eq!(planned(23, -1, true).0, "Nullable(Int32)");
        assert_eq!(planned(1007, -1, true).0, "Array(Nullable(Int32))");
        assert_eq!(planned(90001, -1, false).0, "LowCardinality(String)");
        assert_eq!(planned(90001, -1, true).0, "LowCardinality(Nullable(String))");
        assert_eq!(planned(90002, -1, true).0, "Array(LowCardinality(Nullable(String)))");
    }

    #[test]
    fn made_types_are_resolved_to_what_they_are_made_of() {
        let decimal = Conversion::Decimal { precision: 10, scale: 2 };
        assert_eq!(planned(90003, -1, false).1, decimal);
        assert_eq!(planned(90004, -1, false).1, Conversion::Array(Box::new(decimal.clone())));
        assert_eq!(planned(1231, (10 << 16 | 2) + 4, false).1, Conversion::Array(Box::new(decimal)));
        assert_eq!(planned(90005, -1, false).1, Conversion::Text);
    }

    #[test]
    fn what_we_do_not_know_is_text_and_never_asked_for_in_binary() {
        for oid in [22, 1083, 1020, 90007, 90008, 90009, 4_000_000] {
            assert_eq!(planned(oid, -1, false), ("String".to_owned(), Conversion::TextForm), "{oid}");
            assert!(!catalog().binary_known(oid));
        }
        assert_eq!(planned(1183, -1, false).0, "Array(Nullable(String))");
        assert!(!catalog().binary_known(1183));
        assert!(catalog().binary_known(90002));
    }
}
