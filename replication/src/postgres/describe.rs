//! Which tables a source has, and what they look like. I/O; judgement is in [`TableShape`].

use std::collections::{BTreeMap, BTreeSet};

use millrace_terms::{Code, Error, Result, TableName};

pub use super::shape::{
    Generated, Heirs, Leaf, ShapeColumn, SourceIdentity, TableKind, TableShape, UniqueIndex,
};
use super::{Session, from_sql};
use crate::types::{CATALOG_QUERY, SourceColumn, TypeCatalog, TypeRow};

/// Tables of users: system schemas and what lives in other sessions are left out.
const TABLES: &str = "
select c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       c.relispartition, greatest(c.reltuples, 0)::int8,
       case when c.relkind in ('r', 'm') then coalesce(pg_catalog.pg_table_size(c.oid), 0) else 0 end,
       case when pg_catalog.has_table_privilege(c.oid, 'SELECT') then '{}' else array(
         select a.attname::text from pg_catalog.pg_attribute a
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and not pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) end,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace";

const LISTED: &str = "
 where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'
 order by n.nspname, c.relname";

const NAMED: &str = "
  join unnest($1::text[], $2::text[]) w (s, t) on w.s = n.nspname and w.t = c.relname
 where c.relkind in ('r', 'p', 'v', 'm', 'f')
 order by n.nspname, c.relname";

/// Partitions of any level that hold rows, of the partitioned tables; what inherits at any level, of the others.
const LEAVES: &str = "
with recursive leaves (root, oid) as (
    select r.oid, i.inhrelid from unnest($1::oid[]) r (oid)
      join pg_catalog.pg_inherits i on i.inhparent = r.oid and not i.inhdetachpending
    union
    select l.root, i.inhrelid from leaves l
      join pg_catalog.pg_inherits i on i.inhparent = l.oid and not i.inhdetachpending)
select l.root, c.oid, n.nspname, c.relname, c.relkind::text, c.relreplident::text,
       greatest(c.reltuples, 0)::int8,
       case when c.relkind = 'r' then coalesce(pg_catalog.pg_table_size(c.oid), 0) else 0 end,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)
  from leaves l
  join pg_catalog.pg_class c on c.oid = l.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind <> 'p'
 order by c.oid";

/// Whether the column `a` holds no NULL. From PostgreSQL 18 on, `attnotnull` is set by a constraint that is NOT
/// VALID, too: rows from before may hold NULL.
pub(crate) const NOT_NULL: &str = "(a.attnotnull and not exists (
    select from pg_catalog.pg_constraint n where n.conrelid = a.attrelid and n.contype = 'n'
       and not n.convalidated and a.attnum = any (n.conkey)))";

const INDEXES: &str = "
select i.indrelid, i.indexrelid, c.relname, i.indisprimary, i.indisreplident, i.indimmediate,
       i.indisvalid and i.indisready and i.indislive, i.indpred is not null,
       (i.indkey::int2[])[0:i.indnkeyatts - 1]
  from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indexrelid
 where i.indrelid = any ($1::oid[]) and i.indisunique
 order by i.indrelid, i.indisprimary desc, i.indexrelid";

/// Every table of users that is not itself a partition, whether it can be replicated or not.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn list(session: &Session) -> Result<Vec<TableShape>> {
    let rows = session.query(&format!("{TABLES}{LISTED}"), &[]).await.map_err(failed)?;
    shapes(session, &rows).await
}

/// The named relations, in the order of `names`.
///
/// # Errors
/// `SOURCE_TABLE_MISSING` naming the first that does not exist, and those of [`from_sql`].
pub async fn describe(session: &Session, names: &[TableName]) -> Result<Vec<TableShape>> {
    let mut found = find(session, names).await?;
    let missing = |name: &TableName| {
        Error::new(Code::SourceTableMissing, format!("the source has no table {name}"))
            .with("table", name.to_string())
    };
    names.iter().map(|name| found.remove(name).ok_or_else(|| missing(name))).collect()
}

/// What a relation is called now, if it exists.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn name_of(session: &Session, oid: u32) -> Result<Option<TableName>> {
    Ok(names_of(session, &[oid]).await?.remove(&oid))
}

/// What relations are called now, by their OIDs; those that exist.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn names_of(session: &Session, oids: &[u32]) -> Result<BTreeMap<u32, TableName>> {
    let sql = "select c.oid, n.nspname, c.relname from pg_catalog.pg_class c
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any ($1::oid[])";
    let rows = session.query(sql, &[&oids]).await.map_err(failed)?;
    let name = |row: &tokio_postgres::Row| TableName::new(row.get::<_, String>(1), row.get::<_, String>(2));
    Ok(rows.iter().map(|row| (row.get(0), name(row))).collect())
}

/// Those of the named relations that exist.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn find(session: &Session, names: &[TableName]) -> Result<BTreeMap<TableName, TableShape>> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let rows = session.query(&format!("{TABLES}{NAMED}"), &[&schemas, &tables]).await.map_err(failed)?;
    let shapes = shapes(session, &rows).await?;
    Ok(shapes.into_iter().map(|shape| (shape.name.clone(), shape)).collect())
}

fn failed(error: tokio_postgres::Error) -> Error {
    from_sql("reading the source's catalog", &error)
}

async fn shapes(session: &Session, tables: &[tokio_postgres::Row]) -> Result<Vec<TableShape>> {
    let mut shapes: Vec<TableShape> = tables.iter().map(bare_shape).collect();
    let mut oids: Vec<u32> = shapes.iter().map(|shape| shape.oid).collect();
    let leaves = session.query(LEAVES, &[&oids]).await.map_err(failed)?;
    oids.extend(leaves.iter().map(|row| row.get::<_, u32>(1)));
    // A table may be asked for, and be a leaf of others.
    let columns = columns(session, &oids).await?;
    let indexes = indexes(session, &oids).await?;

    for (shape, row) in shapes.iter_mut().zip(tables) {
        shape.columns = columns.get(&shape.oid).cloned().unwrap_or_default();
        shape.indexes = indexes.get(&shape.oid).cloned().unwrap_or_default();
        if shape.kind == TableKind::Ordinary {
            let (oid, name, key) = (shape.oid, shape.name.clone(), key_names(shape));
            let leaf = Leaf { oid, name, key, local: true, file: row.get(10) };
            shape.leaves.push(leaf);
        }
    }
    for row in &leaves {
        let (root, oid): (u32, u32) = (row.get(0), row.get(1));
        let Some(shape) = shapes.iter_mut().find(|shape| shape.oid == root) else { continue };
        let name = TableName::new(row.get::<_, String>(2), row.get::<_, String>(3));
        // A leaf is judged like a table of its own: the log follows the leaf's identity.
        let judged = TableShape {
            identity: identity(row.get(5)),
            columns: columns.get(&oid).cloned().unwrap_or_default(),
            indexes: indexes.get(&oid).cloned().unwrap_or_default(),
            leaves: Vec::new(),
            ..shape.clone()
        };
        let key = key_for_root(&judged, shape);
        let local = row.get::<_, &str>(4) == "r";
        let leaf = Leaf { oid, name, key, local, file: row.get(8) };
        let (rows, bytes) = (row.get::<_, i64>(6).unsigned_abs(), row.get::<_, i64>(7).unsigned_abs());
        if shape.kind == TableKind::Partitioned {
            shape.leaves.push(leaf);
            shape.rows_estimated += rows;
            shape.bytes += bytes;
        } else {
            shape.heirs.leaves.push(leaf);
            shape.heirs.rows_estimated += rows;
            shape.heirs.bytes += bytes;
        }
    }
    Ok(shapes)
}

fn key_names(shape: &TableShape) -> Option<BTreeSet<String>> {
    let (key, _) = shape.key().ok()?;
    Some(shape.names(&key))
}

/// The key of a leaf. With the identity FULL every key of the root is known of each old row.
fn key_for_root(leaf: &TableShape, root: &TableShape) -> Option<BTreeSet<String>> {
    if leaf.identity == SourceIdentity::Full { key_names(root) } else { key_names(leaf) }
}

fn bare_shape(row: &tokio_postgres::Row) -> TableShape {
    let kind = match row.get::<_, &str>(3) {
        "r" => TableKind::Ordinary,
        "p" => TableKind::Partitioned,
        _ => TableKind::Other,
    };
    // Statistics of a partitioned table are the sum of its leaves'.
    let rows_estimated = if kind == TableKind::Partitioned { 0 } else { row.get::<_, i64>(7) };
    TableShape {
        name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        oid: row.get(0),
        kind,
        logged: row.get::<_, &str>(4) == "p",
        unreadable: row.get(9),
        identity: identity(row.get(5)),
        columns: Vec::new(),
        indexes: Vec::new(),
        leaves: Vec::new(),
        heirs: Heirs::default(),
        rows_estimated: rows_estimated.unsigned_abs(),
        bytes: row.get::<_, i64>(8).unsigned_abs(),
    }
}

fn identity(text: &str) -> SourceIdentity {
    match text {
        "d" => SourceIdentity::Default,
        "i" => SourceIdentity::Index,
        "f" => SourceIdentity::Full,
        _ => SourceIdentity::Nothing,
    }
}

async fn columns(session: &Session, oids: &[u32]) -> Result<BTreeMap<u32, Vec<ShapeColumn>>> {
    let sql = format!(
        "select a.attrelid, a.attname, a.attnum, a.atttypid, a.atttypmod, {NOT_NULL}, a.attgenerated::text,
                pg_catalog.format_type(a.atttypid, a.atttypmod), a.attndims::int4, a.xmin::text::int8,
                a.atthasmissing
           from pg_catalog.pg_attribute a
          where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
          order by a.attrelid, a.attnum"
    );
    let rows = session.query(&sql, &[&oids]).await.map_err(failed)?;
    let types = types(session, rows.iter().map(|row| row.get(3)).collect()).await?;
    let mut columns: BTreeMap<u32, Vec<ShapeColumn>> = BTreeMap::new();
    for row in &rows {
        let type_oid = row.get(3);
        let column = SourceColumn {
            name: row.get(1),
            attnum: row.get(2),
            type_oid,
            typmod: row.get(4),
            dimensions: row.get(8),
            nullable: !row.get::<_, bool>(5),
        };
        let generated = match row.get(6) {
            "" => Generated::Never,
            "s" => Generated::Stored,
            _ => Generated::Virtual,
        };
        let mut plan = types.plan_column(column);
        plan.generated = generated == Generated::Stored;
        plan.past.row = u32::try_from(row.get::<_, i64>(9)).unwrap_or(0);
        plan.past.defaulted = row.get(10);
        columns.entry(row.get(0)).or_default().push(ShapeColumn {
            plan,
            type_name: row.get(7),
            generated,
            binary_known: types.binary_known(type_oid),
        });
    }
    Ok(columns)
}

/// What the source's catalog tells of types, and of those they are made of.
pub(crate) async fn types(session: &Session, oids: BTreeSet<u32>) -> Result<TypeCatalog> {
    let oids: Vec<u32> = oids.into_iter().collect();
    let rows = session.query(CATALOG_QUERY, &[&oids]).await.map_err(failed)?;
    let letter = |text: &str, otherwise| text.chars().next().unwrap_or(otherwise);
    Ok(rows
        .iter()
        .map(|row| TypeRow {
            oid: row.get(0),
            name: row.get(1),
            kind: letter(row.get(2), 'p'),
            element: row.get(3),
            base: row.get(4),
            base_typmod: row.get(5),
            delimiter: letter(row.get(6), ','),
            dimensions: row.get(7),
            extension: row.get(8),
        })
        .collect())
}

async fn indexes(session: &Session, oids: &[u32]) -> Result<BTreeMap<u32, Vec<UniqueIndex>>> {
    let rows = session.query(INDEXES, &[&oids]).await.map_err(failed)?;
    let mut indexes: BTreeMap<u32, Vec<UniqueIndex>> = BTreeMap::new();
    for row in &rows {
        indexes.entry(row.get(0)).or_default().push(UniqueIndex {
            oid: row.get(1),
            name: row.get(2),
            primary: row.get(3),
            marked: row.get(4),
            immediate: row.get(5),
            valid: row.get(6),
            partial: row.get(7),
            attnums: row.get(8),
        });
    }
    Ok(indexes)
}
