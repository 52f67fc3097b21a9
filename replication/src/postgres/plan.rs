//! From the shape of a source table to the plan by which it is replicated. Pure.

use std::collections::{BTreeMap, BTreeSet};

use millrace_terms::{Code, Error, Result};

use super::describe::{Generated, TableShape};
use crate::table::{ColumnPlan, Identity, OwnColumns, Seen, TablePlan};
use crate::types::{OnUnrepresentable, choose, follow_policy, possible};

/// What a mirror asks for of one table.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the table in the destination's database.
    pub destination: String,
    /// Columns that are left out, by their names on the source.
    pub exclude: Vec<String>,
    /// Columns with another name or type than the default, by their names on the source.
    pub columns: BTreeMap<String, ColumnOptions>,
    /// Sorting key in names of the destination; empty for the source's key.
    pub order_by: Vec<String>,
    /// PARTITION BY expression; empty for none.
    pub partition_by: String,
    /// Whether rows are only ever inserted.
    pub append_only: bool,
    /// Whether rows of the tables that inherit from it are its rows, too.
    pub merges_heirs: bool,
    /// What happens to values that ClickHouse cannot hold, outside ORDER BY.
    pub on_unrepresentable: OnUnrepresentable,
    /// Names of our own columns.
    pub own: OwnColumns,
}

/// What a mirror asks for of one column.
#[derive(Debug, Clone, Default)]
pub struct ColumnOptions {
    /// Name in ClickHouse; empty for the source's.
    pub name: String,
    /// ClickHouse type; empty for the default. It is made Nullable where the source's column is.
    pub kind: String,
}

impl Options {
    /// The options of a table whose columns were renamed or dropped since they were asked for: they
    /// follow the columns, as `old`, the plan of then, knows them.
    pub fn followed(mut self, shape: &TableShape, old: &TablePlan) -> Self {
        let name_now = |attnum: i16| {
            shape.columns.iter().find(|column| column.plan.attnum == attnum).map(|c| c.plan.name.clone())
        };
        let exists = |name: &String| shape.columns.iter().any(|column| column.plan.name == *name);
        let mut exclude: Vec<String> =
            old.seen.omitted.iter().filter_map(|(attnum, _)| name_now(*attnum)).collect();
        exclude.extend(self.exclude.into_iter().filter(exists));
        // One that came since is left out, as the stream does.
        let computed = shape.columns.iter().filter(|column| column.generated == Generated::Virtual);
        exclude.extend(computed.map(|column| column.plan.name.clone()));
        exclude.sort();
        exclude.dedup();
        self.exclude = exclude;
        let followed = |(name, asked): (String, ColumnOptions)| {
            let bore = |column: &&ColumnPlan| column.name == name || column.past.names.contains(&name);
            let now = old.columns.iter().find(bore).and_then(|column| name_now(column.attnum));
            Some((now.or_else(|| exists(&name).then_some(name))?, asked))
        };
        self.columns = self.columns.into_iter().filter_map(followed).collect();
        self
    }
}

/// Plans a table.
///
/// # Errors
/// What [`TableShape::refusal`] says, and `INVALID_ARGUMENT` naming the option that does not fit the
/// table.
pub fn plan(shape: &TableShape, options: &Options) -> Result<TablePlan> {
    let whole = options.merges_heirs.then(|| shape.clone().with_heirs());
    let shape = whole.as_ref().unwrap_or(shape);
    known_columns(shape, options)?;
    if let Some(error) = shape.refusal(&options.exclude, options.append_only) {
        return Err(error);
    }
    let (key, identity) = match shape.key() {
        // It sorts the table, and needs no more than that.
        Ok((key, identity)) if identity != Identity::WholeRow || !options.append_only => (key, identity),
        _ if options.append_only => (Vec::new(), Identity::Default),
        other => other?,
    };
    let mut columns: Vec<ColumnPlan> = Vec::new();
    let mut place = BTreeMap::new();
    for (at, column) in shape.columns.iter().enumerate() {
        if options.exclude.contains(&column.plan.name) {
            continue;
        }
        place.insert(at, columns.len());
        columns.push(renamed(column.plan.clone(), options));
    }
    // An excluded key column is among the refusals.
    let key: Vec<usize> = key.iter().filter_map(|at| place.get(at).copied()).collect();
    distinct(shape, &columns, &options.own)?;
    let order_by = order_by(shape, &columns, &key, identity, options)?;
    for (at, column) in columns.iter_mut().enumerate() {
        settle_type(shape, column, options, order_by.contains(&at))?;
    }
    let omitted = shape.columns.iter().map(|column| &column.plan);
    let omitted = omitted
        .filter(|column| options.exclude.contains(&column.name))
        .map(|column| (column.attnum, column.name.clone()));
    Ok(TablePlan {
        source: shape.name.clone(),
        oid: shape.oid,
        destination: options.destination.clone(),
        columns,
        excluded: options.exclude.clone(),
        key,
        identity,
        order_by,
        partition_by: options.partition_by.clone(),
        append_only: options.append_only,
        merges_heirs: options.merges_heirs,
        own: options.own.clone(),
        seen: Seen {
            files: shape.leaves.iter().map(|leaf| (leaf.oid, leaf.file)).collect(),
            omitted: omitted.collect(),
            dropped: Vec::new(),
            pending: Vec::new(),
        },
    })
}

fn refuse<T>(shape: &TableShape, why: String) -> Result<T> {
    Err(Error::new(Code::InvalidArgument, why).with("table", shape.name.to_string()))
}

fn known_columns(shape: &TableShape, options: &Options) -> Result<()> {
    let named = options.exclude.iter().chain(options.columns.keys());
    for name in named {
        if !shape.columns.iter().any(|column| column.plan.name == *name) {
            return refuse(shape, format!("{} has no column {name}", shape.name));
        }
    }
    Ok(())
}

/// How a column that came or changed while the table streams is replicated; none if the type that is
/// asked for cannot hold the new one's values.
pub(crate) fn plan_changed(
    mut column: ColumnPlan,
    asked: &ColumnOptions,
    policy: OnUnrepresentable,
) -> Option<ColumnPlan> {
    if !asked.name.is_empty() {
        column.destination.clone_from(&asked.name);
    }
    if asked.kind.is_empty() {
        follow_policy(&mut column, policy);
        return Some(column);
    }
    let choice = choose(&column.conversion, &asked.kind, column.nullable, false, policy)?;
    Some(ColumnPlan { clickhouse_type: choice.clickhouse_type, conversion: choice.conversion, ..column })
}

fn renamed(mut column: ColumnPlan, options: &Options) -> ColumnPlan {
    if let Some(asked) = options.columns.get(&column.name).filter(|asked| !asked.name.is_empty()) {
        column.destination.clone_from(&asked.name);
    }
    column
}

/// Gives the column the type that is asked for, or makes it follow the policy.
fn settle_type(shape: &TableShape, column: &mut ColumnPlan, options: &Options, key: bool) -> Result<()> {
    let asked = options.columns.get(&column.name).map_or("", |asked| asked.kind.as_str());
    if asked.is_empty() {
        if !key {
            follow_policy(column, options.on_unrepresentable);
        }
        return Ok(());
    }
    match choose(&column.conversion, asked, column.nullable, key, options.on_unrepresentable) {
        Some(choice) => {
            column.clickhouse_type = choice.clickhouse_type;
            column.conversion = choice.conversion;
            Ok(())
        }
        None => {
            let source = shape.columns.iter().find(|source| source.plan.attnum == column.attnum);
            let of = source.map_or("", |source| source.type_name.as_str());
            let why = format!(
                "column {} of {} is {of}, which cannot become {asked} without loss",
                column.name, shape.name
            );
            let remedy = format!("Choose one of: {}.", possible(&column.conversion).join(", "));
            let error = Error::new(Code::InvalidArgument, why).with_remedy(remedy);
            Err(error.with("table", shape.name.to_string()).with("column", &column.name))
        }
    }
}

fn distinct(shape: &TableShape, columns: &[ColumnPlan], own: &OwnColumns) -> Result<()> {
    let mut taken = BTreeSet::new();
    let names = own.names().chain(columns.iter().map(|column| column.destination.as_str()));
    for name in names {
        if !taken.insert(name) {
            let why = format!("the destination of {} would have two columns {name}", shape.name);
            return refuse(shape, why);
        }
    }
    Ok(())
}

/// ORDER BY is a permutation of the key, and more only where the log tells the old value of every
/// column: otherwise a tombstone would not find its row.
fn order_by(
    shape: &TableShape,
    columns: &[ColumnPlan],
    key: &[usize],
    identity: Identity,
    options: &Options,
) -> Result<Vec<usize>> {
    let asked = &options.order_by;
    if asked.is_empty() {
        return Ok(key.to_vec());
    }
    let mut order_by = Vec::with_capacity(asked.len());
    for name in asked {
        let Some(at) = columns.iter().position(|column| column.destination == *name) else {
            return refuse(shape, format!("order_by names {name}, which is no column of {}", shape.name));
        };
        if order_by.contains(&at) {
            return refuse(shape, format!("order_by of {} names {name} twice", shape.name));
        }
        let is_told = options.append_only || matches!(identity, Identity::Full | Identity::WholeRow);
        if !key.contains(&at) && !is_told {
            return refuse(
                shape,
                format!(
                    "order_by of {} names {name}, whose old values the log does not tell: only the key's columns can be used, or REPLICA IDENTITY FULL is needed",
                    shape.name
                ),
            );
        }
        order_by.push(at);
    }
    match key.iter().find(|at| !order_by.contains(at) && !options.append_only) {
        Some(at) => {
            let missing = &columns[*at].destination;
            refuse(shape, format!("order_by of {} lacks the key's column {missing}", shape.name))
        }
        None => Ok(order_by),
    }
}
