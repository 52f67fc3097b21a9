//! From PostgreSQL's type catalog to the plan of a column. Pure.

use std::collections::HashMap;

use super::builtin::{builtin, of_extension};
use super::conversion::{DIMENSIONS_MAX, Vector};
use super::{Conversion, OnUnrepresentable};
use crate::table::{ColumnPlan, Past};

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
        where e.oid = t.typelem), ',') as delimiter,
    t.typndims::pg_catalog.int4,
    coalesce((select x.extname::pg_catalog.text from pg_catalog.pg_depend d
        join pg_catalog.pg_extension x on x.oid = d.refobjid
        where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.objsubid = 0
        and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'e'), '')
        as extension
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
    /// `typndims`: the dimensions that a domain over an array declares, else 0.
    pub dimensions: i32,
    /// Name of the extension that the type belongs to; empty for none.
    pub extension: String,
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
    /// `attndims`: how many dimensions the column's declaration has, 0 if it is no array. PostgreSQL
    /// does not hold the values to it; a ClickHouse type has to.
    pub dimensions: i32,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// A type resolved: how its values are transcoded, and whether ClickHouse's column is a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    conversion: Conversion,
    low_cardinality: bool,
}

/// What a dictionary is called.
const LOW_CARDINALITY: &str = "LowCardinality(String)";

impl From<Conversion> for Resolved {
    fn from(conversion: Conversion) -> Self {
        Self { conversion, low_cardinality: false }
    }
}

impl Resolved {
    /// The type as DDL writes it.
    fn clickhouse_type(&self, nullable: bool) -> String {
        if self.low_cardinality {
            return self.conversion.spelled(LOW_CARDINALITY, nullable);
        }
        self.conversion.spelled(&self.conversion.innermost().wire_type(), nullable)
    }
}

/// Makes a column follow the policy. A column of the key must not.
pub(crate) fn follow_policy(column: &mut ColumnPlan, policy: OnUnrepresentable) {
    let resolved = Resolved {
        conversion: column.conversion.clone().under(policy),
        // What a dictionary holds can always be held: the policy does not touch it.
        low_cardinality: column.clickhouse_type.contains(LOW_CARDINALITY)
            || column.clickhouse_type.contains("LowCardinality(Nullable("),
    };
    column.clickhouse_type = resolved.clickhouse_type(column.nullable);
    column.conversion = resolved.conversion;
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
        let resolved = self.resolve(column.type_oid, column.typmod, column.dimensions, 0);
        ColumnPlan {
            destination: column.name.clone(),
            name: column.name,
            attnum: column.attnum,
            type_oid: column.type_oid,
            typmod: column.typmod,
            nullable: column.nullable,
            generated: false,
            clickhouse_type: resolved.clickhouse_type(column.nullable),
            conversion: resolved.conversion,
            past: Past::default(),
        }
    }

    /// Whether we understand the binary form of a type. A stream also receives the columns that it
    /// does not replicate, and may ask for binary only if this holds for all of them.
    pub fn binary_known(&self, type_oid: u32) -> bool {
        self.resolve(type_oid, -1, 0, 0).conversion.binary_known()
    }

    /// `dimensions` are those of the declaration, `nesting` how deep we are.
    fn resolve(&self, oid: u32, typmod: i32, dimensions: i32, nesting: u8) -> Resolved {
        if let Some(conversion) = builtin(oid, typmod) {
            return conversion.into();
        }
        let Some(row) = self.rows.get(&oid).filter(|_| nesting < NESTING_MAX) else {
            return Conversion::TextForm.into();
        };
        match row.kind {
            // A domain's columns have no modifier and no dimensions of their own.
            'd' => self.resolve(row.base, row.base_typmod, row.dimensions, nesting + 1),
            'e' => Resolved { conversion: Conversion::Text, low_cardinality: true },
            'b' if row.element != 0 && row.delimiter.is_ascii() => {
                let mut element = self.resolve(row.element, typmod, 0, nesting + 1);
                if element.conversion == Conversion::Vector(Vector::Sparse) {
                    // Some bytes of an element may be a mebibyte of zeros: of one, not of thousands.
                    element.conversion = Conversion::TextForm;
                }
                let depth = u8::try_from(dimensions).unwrap_or(0).clamp(1, DIMENSIONS_MAX);
                Resolved { conversion: array_of(element.conversion, depth, row.delimiter), ..element }
            }
            'b' => of_extension(&row.extension, &row.name).unwrap_or(Conversion::TextForm).into(),
            _ => Conversion::TextForm.into(),
        }
    }
}

/// An array of these elements.
pub(crate) fn array_of(element: Conversion, depth: u8, delimiter: char) -> Conversion {
    let element = Box::new(element);
    match (depth, delimiter) {
        (1, ',') => Conversion::Array(element),
        _ => Conversion::Nested { element, depth, delimiter },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(oid: u32, name: &str, kind: char, element: u32, base: u32, base_typmod: i32) -> TypeRow {
        TypeRow {
            oid,
            name: name.to_owned(),
            kind,
            element,
            base,
            base_typmod,
            delimiter: ',',
            dimensions: 0,
            extension: String::new(),
        }
    }

    fn catalog() -> TypeCatalog {
        let boxes = TypeRow { delimiter: ';', ..row(1020, "_box", 'b', 603, 0, -1) };
        let of = |extension: &str, oid, name| TypeRow {
            extension: extension.to_owned(),
            ..row(oid, name, 'b', 0, 0, -1)
        };
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
            of("citext", 90005, "citext"),
            of("vector", 90011, "vector"),
            row(90012, "_vector", 'b', 90011, 0, -1),
            of("", 90013, "vector"),
            TypeRow { dimensions: 2, ..row(90010, "matrix", 'd', 0, 1007, -1) },
            row(1187, "_interval", 'b', 1186, 0, -1),
            row(90006, "ints", 'd', 0, 1007, -1),
            row(90007, "_ints", 'b', 90006, 0, -1),
            row(90008, "pair", 'c', 0, 0, -1),
            row(90009, "loop", 'd', 0, 90009, -1),
            boxes,
        ]
        .into_iter()
        .collect()
    }

    fn source(type_oid: u32, typmod: i32, nullable: bool) -> SourceColumn {
        SourceColumn { name: "c".to_owned(), attnum: 1, type_oid, typmod, dimensions: 0, nullable }
    }

    fn planned(type_oid: u32, typmod: i32, nullable: bool) -> (String, Conversion) {
        let plan = catalog().plan_column(source(type_oid, typmod, nullable));
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
        let ints = Conversion::Array(Box::new(Conversion::Int32));
        assert_eq!(planned(90003, -1, false).1, decimal);
        assert_eq!(planned(90004, -1, false).1, Conversion::Array(Box::new(decimal.clone())));
        assert_eq!(planned(1231, (10 << 16 | 2) + 4, false).1, Conversion::Array(Box::new(decimal)));
        assert_eq!(planned(90005, -1, false).1, Conversion::Text);
        assert_eq!(planned(90006, -1, false).1, ints);
        assert_eq!(planned(90007, -1, false).1, Conversion::Array(Box::new(ints)));
        assert_eq!(planned(90007, -1, false).0, "Array(Array(Nullable(Int32)))");
    }

    #[test]
    fn arrays_are_as_deep_as_they_are_declared() {
        let mut column = source(1007, -1, true);
        for (dimensions, expected) in [
            (0, "Array(Nullable(Int32))"),
            (1, "Array(Nullable(Int32))"),
            (2, "Array(Array(Nullable(Int32)))"),
            (3, "Array(Array(Array(Nullable(Int32))))"),
        ] {
            column.dimensions = dimensions;
            assert_eq!(catalog().plan_column(column.clone()).clickhouse_type, expected);
        }
        // A domain over integer[][].
        assert_eq!(planned(90010, -1, false).0, "Array(Array(Nullable(Int32)))");
        assert_eq!(planned(1020, -1, false).0, "Array(Nullable(String))");
        assert!(matches!(planned(1020, -1, false).1, Conversion::Nested { depth: 1, delimiter: ';', .. }));
    }

    #[test]
    fn types_of_extensions_are_known_by_the_extension() {
        assert_eq!(planned(90011, -1, true).0, "Array(Float32)");
        assert_eq!(planned(90012, -1, false).0, "Array(Array(Float32))");
        let (name, conversion) = planned(90013, -1, false);
        assert_eq!(
            (name.as_str(), conversion),
            ("String", Conversion::TextForm),
            "only the name is the same"
        );
    }

    #[test]
    fn what_we_do_not_know_is_text_and_never_asked_for_in_binary() {
        for oid in [22, 1186, 600, 90008, 90009, 4_000_000] {
            assert_eq!(planned(oid, -1, false), ("String".to_owned(), Conversion::TextForm), "{oid}");
            assert!(!catalog().binary_known(oid));
        }
        assert_eq!(planned(1187, -1, false).0, "Array(Nullable(String))");
        assert!(!catalog().binary_known(1187));
        assert!(!catalog().binary_known(1020));
        assert!(
            catalog().binary_known(90002) && catalog().binary_known(90012) && catalog().binary_known(1183)
        );
    }

    #[test]
    fn the_policy_leaves_dictionaries_alone() {
        for (oid, expected) in [
            (90002, "Array(LowCardinality(Nullable(String)))"),
            (90001, "LowCardinality(String)"),
            (1082, "Nullable(Date32)"),
            (23, "Int32"),
        ] {
            let mut column = catalog().plan_column(source(oid, -1, false));
            follow_policy(&mut column, OnUnrepresentable::Null);
            assert_eq!(column.clickhouse_type, expected);
        }
    }
}
