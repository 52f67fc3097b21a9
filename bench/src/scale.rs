//! What grows: mirrors, tables, workers; and how soon it goes on without one of them. I/O.
//!
//! - [`listing`]: what the API takes to answer, with many mirrors and tables.
//! - [`load`]: many tables or mirrors that are all written to.
//! - [`workers`]: copies by several workers.
//! - [`recovery`]: a worker is killed.

mod listing;
mod load;
mod recovery;
mod workers;

use crate::Scope;
use crate::bed::Bed;
use crate::report::Section;

const ABOUT: &str = "## Scale\n\n\
    *The API* with 200 mirrors of 10 tables and one of 2,000: their rows in the catalog are those of a mirror made through the API, under other names; \
    the mirrors do not run. All mirrors are listed in pages of the default size.\n\n\
    *Writing to many tables*: each table gets its rows by transactions of its own, at a steady rate. A latency ends with the look, one each 100 ms, that finds as many rows \
    as had been committed, and begins when the COMMIT returned; that of the first and last half tells whether the mirrors keep up. With the default of 50 inserts a \
    second into a destination, 500 tables take turns of 10 s, and rows wait half of that on average. CPU in cores; *rest* is Temporal, the catalog and the server.\n\n\
    *Copies by several workers* on one machine, and so on the same cores. *Recovery*: the worker that streams is killed by SIGKILL while another one is there; \
    from then on until the first row that was written afterwards is visible.";

/// Workers that copy; one of two is killed. A small run starts one stack only.
const WORKERS: [usize; 3] = [1, 2, 4];
const WORKERS_SMALL: [usize; 1] = [2];

/// Measures.
///
/// # Errors
/// If something does not work.
pub async fn measure(scope: &Scope) -> anyhow::Result<Section> {
    let mut lines = Vec::new();
    for (at, count) in scope.or_small(WORKERS.as_slice(), WORKERS_SMALL.as_slice()).iter().enumerate() {
        let (count, is_first) = (*count, at == 0);
        let wants_recovery = count == 2 && scope.wants("recovery");
        let wants_more = is_first && (scope.wants("api") || scope.wants("load"));
        if !(scope.wants("workers") || wants_recovery || wants_more) {
            continue;
        }
        let mut bed = Bed::start(scope, count).await?;
        if is_first && scope.wants("load") {
            lines.extend(load::measure(&mut bed, scope).await?);
        }
        if scope.wants("workers") {
            lines.push(workers::measure(&mut bed, scope, count).await?);
        }
        if wants_recovery {
            lines.push(recovery::measure(&mut bed, scope).await?);
        }
        // Last: it fills the catalog with mirrors that do not run.
        if is_first && scope.wants("api") {
            let listed = listing::measure(&mut bed, scope).await?;
            lines.splice(0..0, listed);
        }
        bed.stop().await;
    }
    Ok(Section { name: "scale", about: ABOUT, rounds: scope.rounds, lines })
}
