//! Every statement that makes or removes something in ClickHouse, as text. Pure.

use crate::table::TablePlan;

/// Where tables are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement<'a> {
    /// The database.
    pub database: &'a str,
    /// The cluster of ON CLUSTER, with replicated engines; empty for a single server.
    pub cluster: &'a str,
}

/// Inserts that the server remembers of a table of rows that are only added: a repeated one is
/// recognised. At most one is repeated after a crash, beside what an attempt that was replaced still
/// sends for seconds.
const DEDUPLICATION_WINDOW: u32 = 10_000;

/// An identifier as ClickHouse takes it, whatever it holds.
pub fn quote_ident(name: &str) -> String {
    quoted(name, '`')
}

/// A string literal.
pub fn quote_text(text: &str) -> String {
    quoted(text, '\'')
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        // Backslashes escape within identifiers, too.
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}

/// A table's name with its database.
pub fn qualified(database: &str, table: &str) -> String {
    format!("{}.{}", quote_ident(database), quote_ident(table))
}

pub(crate) fn on_cluster(cluster: &str) -> String {
    if cluster.is_empty() { String::new() } else { format!(" ON CLUSTER {}", quote_ident(cluster)) }
}

/// Makes the database if it does not exist.
pub fn create_database(placement: Placement<'_>) -> String {
    let Placement { database, cluster } = placement;
    format!("CREATE DATABASE IF NOT EXISTS {}{}", quote_ident(database), on_cluster(cluster))
}

/// Makes the destination table of a plan if it does not exist.
pub fn create_table(placement: Placement<'_>, plan: &TablePlan) -> String {
    let Placement { database, cluster } = placement;
    let columns = plan
        .columns
        .iter()
        .map(|column| (column.destination.as_str(), column.clickhouse_type.as_str()))
        .chain(plan.own_columns())
        .map(|(name, kind)| format!("    {} {kind}", quote_ident(name)))
        .collect::<Vec<_>>()
        .join(",\n");
    let partition_by = match plan.partition_by.as_str() {
        "" => String::new(),
        expression => format!("\nPARTITION BY {expression}"),
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {table}{cluster}\n(\n{columns}\n)\nENGINE = {engine}{partition_by}\n\
         ORDER BY {order_by}\nSETTINGS {settings}",
        table = qualified(database, &plan.destination),
        cluster = on_cluster(cluster),
        engine = engine_clause(plan, !cluster.is_empty()),
        order_by = order_by(plan),
        settings = table_settings(plan),
    )
}

/// Evaluates the PARTITION BY of a plan over no row: the server says what is wrong with it, and
/// nothing is made.
pub fn try_partition_by(plan: &TablePlan) -> String {
    let columns = plan
        .columns
        .iter()
        .filter(|column| plan.partition_by.contains(&column.destination))
        .map(|column| {
            let kind = quote_text(&column.clickhouse_type);
            format!("defaultValueOfTypeName({kind}) AS {}", quote_ident(&column.destination))
        })
        .chain(["1 AS `no column of the table`".to_owned()])
        .collect::<Vec<_>>()
        .join(", ");
    format!("SELECT {} FROM (SELECT {columns}) LIMIT 0 FORMAT Null", plan.partition_by)
}

/// The engine's name on a single server.
pub fn engine(plan: &TablePlan) -> &'static str {
    if plan.append_only { "MergeTree" } else { "ReplacingMergeTree" }
}

fn engine_clause(plan: &TablePlan, replicated: bool) -> String {
    let name = format!("{}{}", if replicated { "Replicated" } else { "" }, engine(plan));
    if plan.append_only {
        return name;
    }
    let (version, is_deleted) = (quote_ident(&plan.own.version), quote_ident(&plan.own.is_deleted));
    format!("{name}({version}, {is_deleted})")
}

fn table_settings(plan: &TablePlan) -> String {
    // Without the two, deletes fail on tables that get a projection.
    let mut settings = vec![
        "deduplicate_merge_projection_mode = 'rebuild'".to_owned(),
        "lightweight_mutation_projection_mode = 'rebuild'".to_owned(),
    ];
    let nullable = |&index: &usize| {
        plan.columns.get(index).is_some_and(|column| column.clickhouse_type.contains("Nullable("))
    };
    if plan.order_by.iter().any(nullable) {
        // A table without a key, whose columns are all part of it; or an array in a key.
        settings.push("allow_nullable_key = 1".to_owned());
    }
    if plan.append_only {
        settings.push(format!("non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"));
    }
    settings.join(", ")
}

fn order_by(plan: &TablePlan) -> String {
    let names: Vec<_> = plan.sorting_key().map(quote_ident).collect();
    if names.is_empty() { "tuple()".to_owned() } else { format!("({})", names.join(", ")) }
}

/// Removes a destination table if it exists.
pub fn drop_table(placement: Placement<'_>, table: &str) -> String {
    let Placement { database, cluster } = placement;
    // SYNC: a table of the same name can be made at once.
    format!("DROP TABLE IF EXISTS {}{} SYNC", qualified(database, table), on_cluster(cluster))
}

/// Changes the columns of a destination table by one command.
pub fn alter_table(placement: Placement<'_>, table: &str, command: &str) -> String {
    let Placement { database, cluster } = placement;
    format!("ALTER TABLE {}{} {command}", qualified(database, table), on_cluster(cluster))
}

/// The INSERT that takes blocks of a plan.
pub fn insert(database: &str, plan: &TablePlan) -> String {
    let columns: Vec<_> = plan
        .columns
        .iter()
        .map(|column| column.destination.as_str())
        .chain(plan.own_columns().map(|(name, _)| name))
        .map(quote_ident)
        .collect();
    let table = qualified(database, &plan.destination);
    format!("INSERT INTO {table} ({}) FORMAT Native", columns.join(", "))
}

/// Deletes the rows of versions below `below`, of no other source table.
///
/// The number is a string to the server: it reads a literal beyond 64 bits as a float.
pub fn purge(placement: Placement<'_>, plan: &TablePlan, below: u128) -> String {
    let Placement { database, cluster } = placement;
    format!(
        "DELETE FROM {}{} WHERE {} < toUInt128('{below}'){}",
        qualified(database, &plan.destination),
        on_cluster(cluster),
        quote_ident(&plan.own.version),
        of_source(plan).map(|is_ours| format!(" AND {is_ours}")).unwrap_or_default(),
    )
}

/// Ends all queries whose id begins with `prefix`, without waiting for their ends.
pub fn kill_queries(cluster: &str, prefix: &str) -> String {
    format!("KILL QUERY{} WHERE startsWith(query_id, {}) ASYNC", on_cluster(cluster), quote_text(prefix))
}

/// Whether the destination table holds a row of the plan's source table.
pub fn holds_rows(database: &str, plan: &TablePlan) -> String {
    let is_ours = of_source(plan).map(|is_ours| format!(" WHERE {is_ours}")).unwrap_or_default();
    format!("SELECT count() FROM (SELECT 1 FROM {}{is_ours} LIMIT 1)", qualified(database, &plan.destination))
}

/// The condition for a row to be of the plan's source table, where others may be.
pub(crate) fn of_source(plan: &TablePlan) -> Option<String> {
    let source = plan.own.source.as_ref()?;
    Some(format!("{} = {}", quote_ident(&source.name), quote_text(&source.value)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::table::{Audit, Origin, fixtures};

    const HERE: Placement<'_> = Placement { database: "shop", cluster: "" };

    #[test]
    fn a_table_is_made_as_the_design_says() {
        let plan =
            fixtures::plan("orders", &[("id", "Int64", false), ("note", "Nullable(String)", true)], &[0]);
        assert_eq!(
            create_table(HERE, &plan),
            "CREATE TABLE IF NOT EXISTS `shop`.`orders`\n(\n    `id` Int64,\n    `note` Nullable(String),\n    \
             `_version` UInt128,\n    `_is_deleted` UInt8,\n    `_synced_at` DateTime64(6)\n)\n\
             ENGINE = ReplacingMergeTree(`_version`, `_is_deleted`)\nORDER BY (`id`)\n\
             SETTINGS deduplicate_merge_projection_mode = 'rebuild', lightweight_mutation_projection_mode = 'rebuild'"
        );
        assert_eq!(
            insert("shop", &plan),
            "INSERT INTO `shop`.`orders` (`id`, `note`, `_version`, `_is_deleted`, `_synced_at`) FORMAT Native"
        );
        assert_eq!(
            purge(HERE, &plan, 1 << 64),
            "DELETE FROM `shop`.`orders` WHERE `_version` < toUInt128('18446744073709551616')"
        );
    }

    #[test]
    fn a_cluster_has_replicated_engines_and_its_name_in_every_statement() {
        let mut plan = Arc::unwrap_or_clone(fixtures::plan("t", &[("a", "Nullable(Int32)", true)], &[0]));
        plan.partition_by = "a % 2".to_owned();
        plan.append_only = true;
        let there = Placement { database: "d", cluster: "main" };
        let statement = create_table(there, &plan);
        for part in [
            "`d`.`t` ON CLUSTER `main`\n",
            "ENGINE = ReplicatedMergeTree\nPARTITION BY a % 2\n",
            "allow_nullable_key = 1, non_replicated_deduplication_window = 10000",
            "`_version` UInt128,\n    `_synced_at`",
        ] {
            assert!(statement.contains(part), "{statement}");
        }
        assert_eq!(create_database(there), "CREATE DATABASE IF NOT EXISTS `d` ON CLUSTER `main`");
        assert_eq!(drop_table(there, "t"), "DROP TABLE IF EXISTS `d`.`t` ON CLUSTER `main` SYNC");
        assert_eq!(
            kill_queries("main", "shop/0.7/"),
            "KILL QUERY ON CLUSTER `main` WHERE startsWith(query_id, 'shop/0.7/') ASYNC"
        );
    }

    #[test]
    fn a_shared_table_is_sorted_by_source_and_purged_of_one() {
        let mut plan = Arc::unwrap_or_clone(fixtures::plan("t", &[("a", "Int32", false)], &[0]));
        plan.own.source = Some(Origin { name: "_source".into(), value: "m/it's.t".into() });
        plan.own.audit = Some(Audit { database: "shop".into() });
        let statement = create_table(HERE, &plan);
        for part in [
            "`a` Int32,\n    `_source` LowCardinality(String),\n    `_version` UInt128",
            "`_synced_at` DateTime64(6),\n    `cdc_operation` LowCardinality(String),\n    `cdc_timestamp` DateTime64(6)",
            "ORDER BY (`_source`, `a`)",
        ] {
            assert!(statement.contains(part), "{statement}");
        }
        assert_eq!(
            purge(HERE, &plan, 7),
            "DELETE FROM `shop`.`t` WHERE `_version` < toUInt128('7') AND `_source` = 'm/it\\'s.t'"
        );
        assert_eq!(
            holds_rows("shop", &plan),
            "SELECT count() FROM (SELECT 1 FROM `shop`.`t` WHERE `_source` = 'm/it\\'s.t' LIMIT 1)"
        );
    }

    #[test]
    fn names_and_texts_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_ident("a`b\\c\"d"), "`a\\`b\\\\c\"d`");
        assert_eq!(quote_text("it's \\'"), "'it\\'s \\\\\\''");
    }
}
