//! Whether two source tables fit into one destination table. Pure.

use std::collections::BTreeMap;

use millrace_terms::{Code, Error, Result};

use crate::table::TablePlan;

/// Refuses two tables of one destination whose rows it could not hold both.
///
/// # Errors
/// `INVALID_ARGUMENT`, which names the tables and the first difference.
pub fn refuse_unlike(one: &TablePlan, other: &TablePlan) -> Result<()> {
    let Some(what) = difference(one, other) else { return Ok(()) };
    let (a, b) = (&one.source, &other.source);
    let message = format!("{a} and {b} cannot share the destination {}: {what}", one.destination);
    Err(Error::new(Code::InvalidArgument, message).with("table", b.to_string()).with_remedy(
        "Make them alike by `exclude`, `columns` and `order_by`, or give one of them another `destination`.",
    ))
}

fn difference(one: &TablePlan, other: &TablePlan) -> Option<String> {
    if one.own.source.is_none() || other.own.source.is_none() {
        return Some("one of them has no `source_column`".to_owned());
    }
    let (a, b) = (&one.source, &other.source);
    if one.append_only != other.append_only {
        return Some("one is append_only, the other is not".to_owned());
    }
    if one.partition_by != other.partition_by {
        return Some("their partition_by differs".to_owned());
    }
    let mut columns: BTreeMap<&str, &str> = columns(one).collect();
    for (name, kind) in self::columns(other) {
        match columns.remove(name) {
            None => return Some(format!("{a} has no column {name}")),
            Some(found) if found != kind => {
                return Some(format!("column {name} is {found} of {a}, and {kind} of {b}"));
            }
            Some(_) => {}
        }
    }
    if let Some(name) = columns.keys().next() {
        return Some(format!("{b} has no column {name}"));
    }
    let (key, other_key): (Vec<_>, Vec<_>) = (one.sorting_key().collect(), other.sorting_key().collect());
    (key != other_key)
        .then(|| format!("{a} is sorted by ({}), and {b} by ({})", key.join(", "), other_key.join(", ")))
}

fn columns(plan: &TablePlan) -> impl Iterator<Item = (&str, &str)> {
    let own = plan.own_columns();
    plan.columns
        .iter()
        .map(|column| (column.destination.as_str(), column.clickhouse_type.as_str()))
        .chain(own)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_terms::TableName;

    use super::*;
    use crate::table::{Origin, fixtures};

    fn plan(name: &str, columns: &[(&str, &str, bool)], key: &[usize]) -> TablePlan {
        let mut plan = Arc::unwrap_or_clone(fixtures::plan("all", columns, key));
        plan.source = TableName::new("public", name);
        plan.own.source = Some(Origin { name: "_source".into(), value: format!("m/public.{name}") });
        plan
    }

    #[test]
    fn tables_of_the_same_columns_in_any_order_share_a_destination() {
        let one = plan("a", &[("id", "Int32", false), ("v", "String", false)], &[0]);
        let same = plan("b", &[("v", "String", false), ("id", "Int32", false)], &[1]);
        assert_eq!(refuse_unlike(&one, &same), Ok(()));
    }

    #[test]
    fn what_differs_is_named() {
        let one = plan("a", &[("id", "Int32", false), ("v", "String", false)], &[0]);
        let mut unmarked = one.clone();
        unmarked.own.source = None;
        let mut appended = one.clone();
        appended.append_only = true;
        let partitioned = TablePlan { partition_by: "v".into(), ..one.clone() };
        for (other, what) in [
            (unmarked, "source_column"),
            (appended, "append_only"),
            (partitioned, "partition_by"),
            (plan("b", &[("id", "Int32", false)], &[0]), "public.b has no column v"),
            (
                plan("b", &[("id", "Int32", false), ("v", "String", false), ("w", "String", false)], &[0]),
                "public.a has no column w",
            ),
            (
                plan("b", &[("id", "Int64", false), ("v", "String", false)], &[0]),
                "column id is Int32 of public.a, and Int64 of public.b",
            ),
            (
                plan("b", &[("id", "Int32", false), ("v", "String", false)], &[0, 1]),
                "public.a is sorted by (_source, id), and public.b by (_source, id, v)",
            ),
        ] {
            let error = refuse_unlike(&one, &other).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
    }
}
