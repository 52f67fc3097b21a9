//! The publication of a stream: ours to make, or the user's to verify.

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::streams::Stream;
use millrace_catalog::tables::Table;
use millrace_replication::postgres::publication::{self, Told};
use millrace_replication::postgres::{Session, tree};
use millrace_terms::{Result, TableName};

use crate::{check, heirs};

/// Makes sure that the source tells of tables of a stream, each with the name that it has now, and of what
/// inherits from those that are one with their heirs. `mark` tells a
/// publication of ours from others': it is what our sessions are called.
///
/// # Errors
/// Those of [`heirs::of`]; of [`publication::ensure`], or of [`publication::verify`] where the publication is the user's.
pub(crate) async fn publish(
    session: &Session,
    mark: &str,
    mirror: &Mirror,
    stream: &Stream,
    tables: &[(&Table, TableName)],
) -> Result<()> {
    let heirs = heirs::of(session, mirror, tables).await?;
    let of = |table: &Table| heirs.get(&table.oid).map_or(&[][..], Vec::as_slice);
    if mirror.spec.settings.publication.is_empty() {
        let names = tables.iter().flat_map(|(table, name)| {
            [name.clone()].into_iter().chain(of(table).iter().map(|(_, heir)| heir.clone()))
        });
        let names: Vec<TableName> = names.collect();
        return publication::ensure(session, &stream.publication, mark, &names).await.map(drop);
    }
    let mut told = Vec::new();
    for (table, name) in tables {
        // What is excluded is said by the name that the mirror knows.
        let Told { exclude, .. } = check::told(&mirror.spec, &table.source);
        told.push(Told { table: name.clone(), exclude: exclude.clone() });
        for (oid, heir) in of(table) {
            let ancestors = tree::ancestors(session, *oid).await?.tables;
            let further = ancestors.get(&table.oid).map(|parent| parent.own_columns.clone());
            let exclude = exclude.iter().cloned().chain(further.into_iter().flatten()).collect();
            told.push(Told { table: heir.clone(), exclude });
        }
    }
    publication::verify(session, &stream.publication, &told).await
}
