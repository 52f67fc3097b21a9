//! The publication of a stream: ours to make, or the user's to verify.

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::streams::Stream;
use millrace_catalog::tables::Table;
use millrace_replication::postgres::Session;
use millrace_replication::postgres::publication::{self, Told};
use millrace_terms::{Result, TableName};

use crate::check;

/// Makes sure that the source tells of tables of a stream, each with the name that it has now. `mark` tells a
/// publication of ours from others': it is what our sessions are called.
///
/// # Errors
/// Those of [`publication::ensure`], or of [`publication::verify`] where the publication is the user's.
pub(crate) async fn publish(
    session: &Session,
    mark: &str,
    mirror: &Mirror,
    stream: &Stream,
    tables: &[(&Table, TableName)],
) -> Result<()> {
    if mirror.spec.settings.publication.is_empty() {
        let names: Vec<TableName> = tables.iter().map(|(_, name)| name.clone()).collect();
        return publication::ensure(session, &stream.publication, mark, &names).await.map(drop);
    }
    // What is excluded is said by the name that the mirror knows.
    let told = |(table, name): &(&Table, TableName)| Told {
        table: name.clone(),
        ..check::told(&mirror.spec, &table.source)
    };
    publication::verify(session, &stream.publication, &tables.iter().map(told).collect::<Vec<_>>()).await
}
