//! Which relations hold the rows of a table: itself, its partitions of any level, the tables that
//! inherit from it. I/O; [`Difference`] is pure.
//!
//! A relation becomes a leaf of a table, or ceases to be one, without a change in the log: ATTACH,
//! DETACH, DROP, INHERIT, NO INHERIT. So what is there is compared with what was known. One that was
//! detached and attached again between two looks is known by its OID, but its changes meanwhile are
//! in no publication: its [`Leaf::attachment`] is another then.

use std::collections::BTreeMap;

use millrace_terms::{Lsn, Result, TableName};
use postgres_types::PgLsn;

use super::{Session, from_sql};

/// The rows of `pg_inherits` on the way down, by the transactions that wrote them: each ATTACH writes
/// one. A partition that is being detached concurrently has been detached.
const TREE: &str = "
with recursive tree (root, oid, attachment) as (
    select c.oid, c.oid, ''::text from pg_catalog.pg_class c where c.oid = any ($1::oid[])
    union all
    select t.root, i.inhrelid, t.attachment || i.xmin::text || '/'
      from tree t
      join pg_catalog.pg_inherits i on i.inhparent = t.oid and not i.inhdetachpending
      join pg_catalog.pg_class c on c.oid = i.inhrelid and (c.relispartition or $2))
select c.oid, n.nspname, c.relname, c.relkind = 'p', pg_catalog.string_agg(t.attachment, ' ' order by t.attachment),
       pg_catalog.pg_current_wal_insert_lsn(), t.root
  from tree t
  join pg_catalog.pg_class c on c.oid = t.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 group by t.root, c.oid, n.nspname, c.relname, c.relkind
 order by c.oid";

/// What a relation is a part of, and whether by inheritance other than partitioning.
const ANCESTORS: &str = "
with recursive up (oid, inherited) as (
    select $1::oid, false
    union
    select i.inhparent, u.inherited or not c.relispartition
      from up u
      join pg_catalog.pg_inherits i on i.inhrelid = u.oid and not i.inhdetachpending
      join pg_catalog.pg_class c on c.oid = u.oid)
select u.oid, u.inherited, pg_catalog.pg_current_wal_insert_lsn(),
       array(select a.attname::text from pg_catalog.pg_attribute a
              where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
                and not exists (select from pg_catalog.pg_attribute p where p.attrelid = u.oid
                                   and p.attname = a.attname and not p.attisdropped))
  from up u";

/// A relation that holds rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// When it became a leaf, in a form that is only compared; empty for the table itself.
    pub attachment: String,
}

/// The leaves of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// In the order of their OIDs.
    pub leaves: Vec<Leaf>,
    /// An end of the log by which they were these.
    pub seen: Lsn,
}

/// The leaves of tables now, by the tables' OIDs; those that do not exist are left out. `heirs`: whether
/// tables that inherit from them count.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn of(session: &Session, tables: &[u32], heirs: bool) -> Result<BTreeMap<u32, Tree>> {
    if tables.is_empty() {
        // Asked every few seconds for the tables of either kind, of which there are often none.
        return Ok(BTreeMap::new());
    }
    let rows = session.query(TREE, &[&tables, &heirs]).await;
    let rows = rows.map_err(|error| from_sql("reading the tables' partitions", &error))?;
    let mut trees: BTreeMap<u32, Tree> = BTreeMap::new();
    for row in &rows {
        let empty = || Tree { leaves: Vec::new(), seen: position(row, 5) };
        let tree = trees.entry(row.get(6)).or_insert_with(empty);
        if !row.get::<_, bool>(3) {
            tree.leaves.push(Leaf {
                oid: row.get(0),
                name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
                attachment: row.get(4),
            });
        }
    }
    Ok(trees)
}

/// What a relation is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestors {
    /// By OID.
    pub tables: BTreeMap<u32, Ancestor>,
    /// An end of the log by which it was so.
    pub seen: Lsn,
}

/// A table that a relation is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Whether the way there is by inheritance other than partitioning.
    pub inherited: bool,
    /// Columns of the relation that this table does not have.
    pub own_columns: Vec<String>,
}

/// What a relation is a part of now; nothing if it does not exist any more.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn ancestors(session: &Session, relation: u32) -> Result<Ancestors> {
    let rows = session.query(ANCESTORS, &[&relation]).await;
    let rows = rows.map_err(|error| from_sql("looking for a partition's table", &error))?;
    // The relation itself is always among the rows.
    let seen = rows.first().map_or(Lsn::ZERO, |row| position(row, 2));
    let mut tables = BTreeMap::new();
    for row in rows.iter().filter(|row| row.get::<_, u32>(0) != relation) {
        // A partition has one parent, and no heirs: there are not two ways of different kinds.
        tables.insert(row.get(0), Ancestor { inherited: row.get(1), own_columns: row.get(3) });
    }
    Ok(Ancestors { tables, seen })
}

fn position(row: &tokio_postgres::Row, at: usize) -> Lsn {
    Lsn(row.get::<_, PgLsn>(at).into())
}

/// What became of the leaves of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// New ones: they may have held rows before.
    pub added: Vec<Leaf>,
    /// Those that are not part of the table any more, as they were known.
    pub removed: Vec<Leaf>,
    /// Those that were removed and added again: they may hold other rows.
    pub again: Vec<Leaf>,
    /// Those that are called otherwise.
    pub renamed: Vec<Leaf>,
}

impl Difference {
    /// Compares the leaves that were known with those that are there.
    pub fn between(known: &[Leaf], now: &[Leaf]) -> Self {
        let before: BTreeMap<u32, &Leaf> = known.iter().map(|leaf| (leaf.oid, leaf)).collect();
        let after: BTreeMap<u32, &Leaf> = now.iter().map(|leaf| (leaf.oid, leaf)).collect();
        let mut difference = Self {
            removed: known.iter().filter(|leaf| !after.contains_key(&leaf.oid)).cloned().collect(),
            ..Self::default()
        };
        for leaf in now {
            let list = match before.get(&leaf.oid) {
                None => &mut difference.added,
                Some(before) if before.attachment != leaf.attachment => &mut difference.again,
                Some(before) if before.name != leaf.name => &mut difference.renamed,
                Some(_) => continue,
            };
            list.push(leaf.clone());
        }
        difference
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(oid: u32, name: &str, attachment: &str) -> Leaf {
        Leaf { oid, name: TableName::new("public", name), attachment: attachment.into() }
    }

    #[test]
    fn a_leaf_that_was_away_is_told_from_one_that_stayed() {
        let known = [leaf(1, "a", "5/"), leaf(2, "b", "6/"), leaf(3, "c", "7/"), leaf(4, "d", "8/")];
        let now = [leaf(1, "a", "5/"), leaf(3, "c", "9/"), leaf(4, "d_old", "8/"), leaf(5, "b", "9/")];
        let difference = Difference::between(&known, &now);
        assert_eq!(difference.added, [leaf(5, "b", "9/")], "the same name, but another relation");
        assert_eq!(difference.removed, [leaf(2, "b", "6/")]);
        assert_eq!(difference.again, [leaf(3, "c", "9/")]);
        assert_eq!(difference.renamed, [leaf(4, "d_old", "8/")]);
        assert!(!difference.is_empty());
        assert!(Difference::between(&known, &known).is_empty());
    }
}
