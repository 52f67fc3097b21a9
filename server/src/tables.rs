//! The tables of a mirror: patterns become tables, and every table gets its destination's name.
//! Decided once, at creation; the catalog keeps the outcome.
//!
//! Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};

use millrace_catalog::spec::{MirrorSpec, TableSpec};
use millrace_terms::{Code, Error, TableName};

use crate::fault::{Answer, Fault, invalid};

/// Tables of one mirror at most: what one publication and one answer of the API still carry well.
pub(crate) const TABLES_MAX: usize = 5_000;
/// Bytes of a destination table's name at most: ClickHouse keeps it as a file name, with its own
/// suffixes, and file systems take 255 bytes.
const DESTINATION_BYTES_MAX: usize = 200;

/// The schemas whose tables must be listed on the source before [`resolve`] can do its work.
pub(crate) fn pattern_schemas(mirror: &MirrorSpec) -> BTreeSet<String> {
    mirror.tables.iter().filter_map(TableSpec::pattern_schema).collect()
}

/// The mirror with every pattern replaced by the tables in `listing`, in their order, every source
/// name in its normal form, and every destination named.
///
/// A table that is named beside its pattern keeps its own entry.
pub(crate) fn resolve(mirror: &MirrorSpec, listing: &[TableName]) -> Answer<MirrorSpec> {
    let mut tables = expand(&mirror.tables, listing)?;
    name_destinations(&mut tables)?;
    Ok(MirrorSpec { tables: tables.into_iter().map(|(_, table)| table).collect(), ..mirror.clone() })
}

/// As [`resolve`], for a mirror that has tables: those that stay keep their destinations, and one that
/// only a pattern names keeps its own entry.
pub(crate) fn resolve_again(
    mirror: &MirrorSpec,
    listing: &[TableName],
    stored: &[TableSpec],
) -> Answer<MirrorSpec> {
    let mut tables = expand(&mirror.tables, listing)?;
    let stored: BTreeMap<&str, &TableSpec> =
        stored.iter().map(|table| (table.source.as_str(), table)).collect();
    let named: BTreeSet<TableName> =
        mirror.tables.iter().filter_map(|entry| entry.source.parse().ok()).collect();
    for (name, table) in &mut tables {
        let Some(stored) = stored.get(table.source.as_str()) else { continue };
        if !named.contains(name) {
            *table = (*stored).clone();
        } else if table.destination.is_empty() {
            table.destination.clone_from(&stored.destination);
        }
        // It may have been set for a table that leaves.
        table.source_column |= stored.source_column && table.destination == stored.destination;
    }
    name_destinations(&mut tables)?;
    for (_, table) in tables.iter().filter(|(_, table)| table.source_column) {
        if let Some(stored) = stored.get(table.source.as_str()).filter(|stored| !stored.source_column) {
            return Err(unshared(stored));
        }
    }
    Ok(MirrorSpec { tables: tables.into_iter().map(|(_, table)| table).collect(), ..mirror.clone() })
}

fn expand(entries: &[TableSpec], listing: &[TableName]) -> Answer<Vec<(TableName, TableSpec)>> {
    let mut named = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        if entry.pattern_schema().is_none() && !named.insert(parse(index, entry)?) {
            return Err(invalid(&field(index, "source"), format!("{} is named twice", entry.source)));
        }
    }
    let mut tables = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(schema) = entry.pattern_schema() else {
            tables.push((parse(index, entry)?, entry.clone()));
            continue;
        };
        if !entry.destination.is_empty() {
            return Err(invalid(&field(index, "destination"), "a pattern cannot have one destination"));
        }
        let before = tables.len();
        for table in listing.iter().filter(|table| table.schema == schema) {
            if named.insert(table.clone()) {
                tables.push((table.clone(), entry.clone()));
            }
        }
        if tables.len() == before && !listing.iter().any(|table| table.schema == schema) {
            return Err(Error::new(
                Code::SourceTableMissing,
                format!("{} matches no table of the source", entry.source),
            )
            .with("table", entry.source.clone())
            .into());
        }
    }
    if tables.len() > TABLES_MAX {
        return Err(invalid("tables", format!("{} tables are more than {TABLES_MAX}", tables.len())));
    }
    for (name, table) in &mut tables {
        table.source = name.to_string();
    }
    Ok(tables)
}

fn parse(index: usize, entry: &TableSpec) -> Answer<TableName> {
    entry.source.parse().map_err(|error| invalid(&field(index, "source"), format!("{error}")))
}

fn field(index: usize, name: &str) -> String {
    format!("tables[{index}].{name}")
}

/// The default is the table's own name; tables whose default is taken by another are named
/// `schema_table`. Tables of one destination are told apart by a column.
fn name_destinations(tables: &mut [(TableName, TableSpec)]) -> Answer<()> {
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for (name, table) in tables.iter() {
        let destination = if table.destination.is_empty() { &name.name } else { &table.destination };
        *wanted.entry(destination.clone()).or_default() += 1;
    }
    for (name, table) in tables.iter_mut().filter(|(_, table)| table.destination.is_empty()) {
        table.destination = match wanted.get(&name.name) {
            Some(1) => name.name.clone(),
            _ => format!("{}_{}", name.schema, name.name),
        };
    }
    let mut writers: BTreeMap<String, usize> = BTreeMap::new();
    for (name, table) in tables.iter() {
        check_destination(name, &table.destination)?;
        *writers.entry(table.destination.clone()).or_default() += 1;
    }
    for (_, table) in tables {
        table.source_column |= writers.get(&table.destination).is_some_and(|count| *count > 1);
    }
    Ok(())
}

fn check_destination(source: &TableName, destination: &str) -> Answer<()> {
    if destination.len() > DESTINATION_BYTES_MAX || destination.chars().any(char::is_control) {
        return Err(invalid(
            "tables[].destination",
            format!(
                "{source}: a name of at most {DESTINATION_BYTES_MAX} bytes without control characters is needed"
            ),
        ));
    }
    Ok(())
}

/// The sorting key of a table that is there cannot change.
fn unshared(stored: &TableSpec) -> Fault {
    let TableSpec { source, destination, .. } = stored;
    let why = format!("{destination} has no column that tells rows of {source} from those of another table");
    let fault = invalid("mirror.tables[].destination", why);
    let error = fault.error.with("table", source).with_remedy(format!(
        "Give the other table another `destination`; or remove {source} with its destination table, and add it again with `source_column`."
    ));
    Fault { error, details: fault.details }
}

#[cfg(test)]
mod tests {
    use millrace_catalog::spec::{Mode, Settings};

    use super::*;

    fn mirror(tables: Vec<TableSpec>) -> MirrorSpec {
        MirrorSpec {
            name: "shop".into(),
            source: "pg".into(),
            destination: "ch".into(),
            mode: Mode::default(),
            tables,
            settings: Settings::default(),
        }
    }

    fn table(source: &str, destination: &str) -> TableSpec {
        TableSpec { destination: destination.into(), ..TableSpec::new(source) }
    }

    fn resolved(tables: Vec<TableSpec>, listing: &[&str]) -> Answer<Vec<(String, String)>> {
        let listing: Vec<TableName> = listing.iter().map(|name| name.parse().unwrap()).collect();
        let mirror = resolve(&mirror(tables), &listing)?;
        Ok(mirror.tables.into_iter().map(|table| (table.source, table.destination)).collect())
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| (String::from(*a), String::from(*b))).collect()
    }

    #[test]
    fn destinations_are_the_tables_own_names_unless_two_collide() {
        let tables =
            vec![table("orders", ""), table("eu.Users", ""), table("us.users", ""), table("us.x", "y")];
        assert_eq!(
            resolved(tables, &[]).unwrap(),
            pairs(&[
                ("public.orders", "orders"),
                ("eu.users", "eu_users"),
                ("us.users", "us_users"),
                ("us.x", "y"),
            ])
        );
        let odd = vec![table("public.\"Odd Name\"", "")];
        assert_eq!(resolved(odd, &[]).unwrap(), pairs(&[("public.\"Odd Name\"", "Odd Name")]));
    }

    #[test]
    fn an_explicit_destination_wins_over_a_default_of_the_same_name() {
        let tables = vec![table("a.t", ""), table("b.u", "t")];
        assert_eq!(resolved(tables, &[]).unwrap(), pairs(&[("a.t", "a_t"), ("b.u", "t")]));
    }

    #[test]
    fn tables_of_one_destination_are_told_apart() {
        let shared = |tables: &[TableSpec]| -> Vec<bool> {
            let mirror = resolve(&mirror(tables.to_vec()), &[]).unwrap();
            mirror.tables.iter().map(|table| table.source_column).collect()
        };
        let declared = TableSpec { source_column: true, ..table("c.t", "z") };
        let tables = [table("a.t", "x"), table("b.t", "x"), table("b.u", "y"), declared];
        assert_eq!(shared(&tables), [true, true, false, true]);
    }

    #[test]
    fn a_table_joins_another_destination_only_where_rows_are_told_apart() {
        let again = |stored: Vec<TableSpec>, asked: Vec<TableSpec>| {
            let resolved = resolve_again(&mirror(asked), &[], &stored)?;
            Answer::Ok(resolved.tables.iter().map(|table| table.source_column).collect::<Vec<_>>())
        };
        let marked = TableSpec { source_column: true, ..table("a.t", "x") };
        let both = || vec![table("a.t", "x"), table("b.t", "x")];
        assert_eq!(again(vec![marked.clone()], both()).unwrap(), [true, true]);
        assert_eq!(again(vec![marked, table("b.t", "x")], vec![table("a.t", "")]).unwrap(), [true]);
        let fault = again(vec![table("a.t", "x")], both()).unwrap_err();
        assert_eq!(fault.error.code(), Code::InvalidArgument);
        assert!(fault.error.remedy().contains("source_column"), "{}", fault.error);
    }

    #[test]
    fn patterns_take_the_tables_that_are_there_and_leave_named_ones_alone() {
        let tables = vec![table("public.*", ""), table("public.b", "bee")];
        assert_eq!(
            resolved(tables, &["public.a", "public.b", "other.c"]).unwrap(),
            pairs(&[("public.a", "a"), ("public.b", "bee")])
        );
        let none = resolved(vec![table("empty.*", "")], &["public.a"]).unwrap_err();
        assert_eq!(none.error.code(), Code::SourceTableMissing);
        assert!(resolved(vec![table("public.*", "one")], &["public.a"]).is_err());
    }

    #[test]
    fn what_is_no_table_name_or_comes_twice_is_refused() {
        let bad = resolved(vec![table("a b", "")], &[]).unwrap_err();
        assert_eq!(bad.field_names()[0], "tables[0].source");
        let twice = resolved(vec![table("orders", ""), table("public.orders", "")], &[]).unwrap_err();
        assert_eq!(twice.error.code(), Code::InvalidArgument);
        assert!(resolved(vec![table("orders", "a\nb")], &[]).is_err());
    }
}
