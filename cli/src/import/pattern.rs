//! Debezium's lists of regular expressions (`table.include.list` and its like) as tables and columns.
//!
//! Pure.

use millrace_catalog::spec::TableSpec;
use millrace_terms::TableName;

use super::draft::{Draft, Keys, table_name};

/// What a list does not say when it holds more than names.
const NO_PATTERN: &str =
    "is left out: a table is named, or all of a schema (public.*); list the tables by name";

/// The tables of a connector, with their columns left out.
pub(super) fn tables(keys: &mut Keys, draft: &mut Draft) -> Vec<TableSpec> {
    let mut tables: Vec<TableSpec> = Vec::new();
    for entry in list(keys, "table.include.list") {
        match literal(&entry) {
            Some(name) if name.contains('.') => tables.push(TableSpec::new(table_name(&name))),
            _ => match whole_schema(&entry) {
                Some(schema) => tables.push(TableSpec::new(pattern(&schema))),
                None => draft.warn(&keys.of("table.include.list"), format!("`{entry}` {NO_PATTERN}")),
            },
        }
    }
    let schemas = list(keys, "schema.include.list");
    if tables.is_empty() {
        for entry in schemas {
            match literal(&entry) {
                Some(schema) => tables.push(TableSpec::new(pattern(&schema))),
                None => draft.warn(&keys.of("schema.include.list"), format!("`{entry}` {NO_PATTERN}")),
            }
        }
    }
    if tables.is_empty() {
        draft.warn(
            &keys.subject,
            "names no table that can be taken over: public.* stands for all of that schema; name the others",
        );
        tables.push(TableSpec::new("public.*"));
    }
    for key in ["table.exclude.list", "schema.exclude.list"] {
        if keys.has(key) {
            keys.take(key);
            draft.warn(&keys.of(key), "has no counterpart: list the tables that are to be replicated");
        }
    }
    columns(&mut tables, keys, draft);
    tables
}

fn columns(tables: &mut Vec<TableSpec>, keys: &mut Keys, draft: &mut Draft) {
    for entry in list(keys, "column.exclude.list") {
        let named = literal(&entry).and_then(|name| {
            let (table, column) = name.rsplit_once('.')?;
            Some((table_name(table), column.to_owned()))
        });
        let Some((table, column)) = named else {
            let text = format!("`{entry}` is left out: a column is named (exclude: [name] on its table)");
            draft.warn(&keys.of("column.exclude.list"), text);
            continue;
        };
        if let Some(entry) = tables.iter_mut().find(|entry| entry.source == table) {
            entry.exclude.push(column);
        } else if is_in_pattern(tables, &table) {
            // It is one of a whole schema: named beside the pattern it keeps its own entry.
            tables.push(TableSpec { exclude: vec![column], ..TableSpec::new(table) });
        }
    }
    if keys.has("column.include.list") {
        keys.take("column.include.list");
        draft.warn(&keys.of("column.include.list"), "has no counterpart: exclude: [name] leaves columns out");
    }
}

fn is_in_pattern(tables: &[TableSpec], table: &str) -> bool {
    let schema = table.parse::<TableName>().map(|name| name.schema).ok();
    schema.is_some() && tables.iter().any(|entry| entry.pattern_schema() == schema)
}

fn list(keys: &mut Keys, key: &str) -> Vec<String> {
    let text = keys.take_text(key).unwrap_or_default();
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// All tables of a schema, as SQL writes its name.
fn pattern(schema: &str) -> String {
    let table = TableName::new(schema, "x").to_string();
    format!("{}.*", table.strip_suffix(".x").unwrap_or(schema))
}

/// The text that a regular expression stands for, if that is one text only. A plain dot is meant as
/// itself: names are written so without thinking of it.
fn literal(expression: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = expression.trim_start_matches('^').trim_end_matches('$').chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|next| !next.is_ascii_alphanumeric())?),
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// The schema in `schema\..*` and `schema.*`.
fn whole_schema(expression: &str) -> Option<String> {
    let expression = expression.trim_start_matches('^').trim_end_matches('$');
    let start = ["\\..*", "\\..+", "..*", ".*"].into_iter().find_map(|end| expression.strip_suffix(end))?;
    literal(start).filter(|schema| !schema.is_empty() && !schema.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_are_names_become_names() {
        for (expression, text) in [
            ("public.orders", Some("public.orders")),
            (r"public\.Odd\ Name", Some("public.Odd Name")),
            ("public.o.*", None),
            (r"public.\w", None),
        ] {
            assert_eq!(literal(expression).as_deref(), text, "{expression}");
        }
        for expression in ["public.*", r"public\..*", "public..*", r"^public\..+$"] {
            assert_eq!(whole_schema(expression).as_deref(), Some("public"), "{expression}");
        }
        for expression in [".*", "public.orders_.*", "(a|b).*"] {
            assert_eq!(whole_schema(expression), None, "{expression}");
        }
        assert_eq!(pattern("Odd"), "\"Odd\".*");
    }
}
