//! Tables that are one with those that inherit from them, where a mirror asks for that (`with_children`).
//!
//! A publication holds tables as themselves, so each heir must be in it, one that comes later before its
//! copy's epoch is taken. A row belongs to one table: a mirror holds no heir by itself, nor as that of two.

use std::collections::BTreeMap;

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::tables::Table;
use millrace_replication::postgres::{Session, describe};
use millrace_terms::{Code, Error, Result, TableName};

/// A table that inherits from another: its OID and name.
pub(crate) type Heir = (u32, TableName);

/// Whether a table of a mirror is one with its heirs.
pub(crate) fn are_merged(mirror: &Mirror, table: &Table) -> bool {
    let source = table.source.to_string();
    mirror.spec.tables.iter().any(|spec| spec.with_children && spec.source == source)
}

/// The heirs of those tables that are one with them, by the tables' OIDs: of the tables that a mirror streams,
/// and of `told`, which it is about to.
///
/// # Errors
/// TABLE_UNSUPPORTED if an heir would belong to two tables; TABLE_WITHOUT_KEY if one of a table that is about to be
/// streamed has another key; those of the source.
pub(crate) async fn of(
    session: &Session,
    mirror: &Mirror,
    told: &[(&Table, TableName)],
) -> Result<BTreeMap<u32, Vec<Heir>>> {
    let streamed = mirror.tables.iter().filter(|table| table.state.is_streamed());
    let tables: BTreeMap<u32, &Table> =
        streamed.chain(told.iter().map(|(table, _)| *table)).map(|table| (table.oid, table)).collect();
    let merged = tables.values().filter(|table| are_merged(mirror, table));
    let merged: Vec<u32> = merged.map(|table| table.oid).collect();
    if merged.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<TableName> = describe::names_of(session, &merged).await?.into_values().collect();
    let mut heirs = BTreeMap::new();
    for shape in describe::describe(session, &names).await? {
        let is_told = told.iter().any(|(table, _)| table.oid == shape.oid);
        if let Some(error) = shape.heirs_refusal().filter(|_| is_told) {
            return Err(error);
        }
        heirs.insert(
            shape.oid,
            shape.heirs.leaves.into_iter().map(|leaf| (leaf.oid, leaf.name)).collect::<Vec<_>>(),
        );
    }
    let names = tables.into_iter().map(|(oid, table)| (oid, &table.source)).collect();
    refuse_shared(&heirs, &names)?;
    Ok(heirs)
}

/// Refuses heirs that are tables of the mirror by themselves, or of two tables. `names` are those of the
/// mirror's tables, by their OIDs. Pure.
///
/// # Errors
/// TABLE_UNSUPPORTED.
pub(crate) fn refuse_shared(
    heirs: &BTreeMap<u32, Vec<Heir>>,
    names: &BTreeMap<u32, &TableName>,
) -> Result<()> {
    let mut owners: BTreeMap<u32, &TableName> = BTreeMap::new();
    for (parent, of_parent) in heirs.iter().filter_map(|(root, heirs)| Some((*names.get(root)?, heirs))) {
        for (oid, heir) in of_parent {
            let shared = |why: String, remedy: String| {
                let error = Error::new(Code::TableUnsupported, why).with("table", heir.to_string());
                Err(error.with_remedy(remedy))
            };
            if names.contains_key(oid) {
                return shared(
                    format!(
                        "{heir} is in the mirror by itself, and inherits from {parent}, to which its rows belong by `with_children`"
                    ),
                    format!("Leave {heir} out of the mirror, or `with_children` out of {parent}."),
                );
            }
            if let Some(other) = owners.insert(*oid, parent) {
                return shared(
                    format!(
                        "{heir} inherits from {other} and {parent}, and its rows belong to both by `with_children`"
                    ),
                    format!("Leave `with_children` out of {other} or {parent}."),
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_belongs_to_one_table() {
        let name = |name: &str| TableName::new("public", name);
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let said = |heirs: &[(u32, Vec<Heir>)], names: &[(u32, &TableName)]| {
            let refused = refuse_shared(&heirs.iter().cloned().collect(), &names.iter().copied().collect());
            refused.err().map(|error| error.message().to_owned()).unwrap_or_default()
        };
        let one = [(1, vec![(3, c.clone())])];
        assert_eq!(said(&one, &[(1, &a), (2, &b)]), "");
        assert!(said(&one, &[(1, &a), (3, &c)]).starts_with("public.c is in the mirror by itself"));
        let two = [(1, vec![(3, c.clone())]), (2, vec![(3, c)])];
        assert!(said(&two, &[(1, &a), (2, &b)]).contains("public.a and public.b"));
    }
}
