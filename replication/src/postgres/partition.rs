//! The partitions of a copy: ranges of a leaf's pages, each read by itself. I/O at the rim; the
//! division is pure.

use millrace_terms::{Code, Error, Result, TableName};
use serde::{Deserialize, Serialize};

use super::describe::Leaf;
use super::{Session, from_sql};

/// A range of a leaf's pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The table that holds the rows.
    pub leaf: TableName,
    /// Its OID.
    pub leaf_oid: u32,
    /// Its file when the range was planned. A rewrite gives it another one, and moves rows with no
    /// change in the log: the range is then planned and read again.
    pub filenode: u32,
    /// First page.
    pub first_block: u32,
    /// The page behind the last; none for the last range, which also takes what is appended.
    pub end_block: Option<u32>,
}

/// Divides leaves into ranges of about `bytes`. To be called after the epoch's wait: pages that are
/// appended later hold only rows whose changes the stream delivers.
///
/// # Errors
/// `SOURCE_TABLE_MISSING` if a leaf is gone, and those of [`from_sql`].
pub async fn plan(session: &Session, leaves: &[Leaf], bytes: u64) -> Result<Vec<Partition>> {
    const SIZES: &str = "
        select l.oid, pg_relation_filenode(l.oid), pg_relation_size(l.oid), current_setting('block_size')::int8,
               has_table_privilege(l.oid, 'SELECT')
          from unnest($1::oid[]) l (oid)";
    let oids: Vec<u32> = leaves.iter().map(|leaf| leaf.oid).collect();
    let rows = session.query(SIZES, &[&oids]).await.map_err(|e| from_sql("sizing the table", &e))?;
    let mut partitions = Vec::new();
    for leaf in leaves {
        let row = rows.iter().find(|row| row.get::<_, u32>(0) == leaf.oid);
        let size =
            row.and_then(|row| Some((row.get::<_, Option<u32>>(1)?, row.get::<_, Option<i64>>(2)?, row)));
        let Some((filenode, size, row)) = size else {
            return Err(Error::new(Code::SourceTableMissing, format!("{} is gone", leaf.name))
                .with("table", leaf.name.to_string()));
        };
        let page = row.get::<_, i64>(3).unsigned_abs();
        // Pages can be named by those only who may read the whole table.
        let bytes = if row.get(4) { bytes } else { u64::MAX };
        let ranges = divide(size.unsigned_abs() / page, bytes / page);
        partitions.extend(ranges.map(|(first_block, end_block)| Partition {
            leaf: leaf.name.clone(),
            leaf_oid: leaf.oid,
            filenode,
            first_block,
            end_block,
        }));
    }
    Ok(partitions)
}

/// Ranges of `each` pages, at least one; the last is open.
fn divide(pages: u64, each: u64) -> impl Iterator<Item = (u32, Option<u32>)> {
    let each = each.max(1);
    let count = pages.div_ceil(each).max(1);
    // A table has less than 2^32 pages.
    let page = move |at: u64| u32::try_from(at * each).unwrap_or(u32::MAX);
    (0..count).map(move |at| (page(at), (at + 1 < count).then(|| page(at + 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_page_once_and_the_last_is_open() {
        let ranges = |pages, each| divide(pages, each).collect::<Vec<_>>();
        assert_eq!(ranges(0, 8), [(0, None)]);
        assert_eq!(ranges(8, 8), [(0, None)]);
        assert_eq!(ranges(9, 8), [(0, Some(8)), (8, None)]);
        assert_eq!(ranges(3, 0), [(0, Some(1)), (1, Some(2)), (2, None)]);
        let huge = ranges(u64::from(u32::MAX), 8192);
        assert!(huge.windows(2).all(|pair| pair[0].1 == Some(pair[1].0)));
    }
}
