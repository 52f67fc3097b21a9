//! Comparing and mending, with both databases as they are.

mod append;
mod keys;
mod streaming;
mod types;

use std::sync::Arc;

use millrace_replication::clickhouse::{Clickhouse, InsertId};
use millrace_replication::postgres::describe::describe;
use millrace_replication::postgres::{Session, epoch};
use millrace_replication::table::TablePlan;
use millrace_replication::verify::mend::Mending;
use millrace_replication::verify::{Answer, Difference, Kind, Order, Question, Range, Sides, split};
use millrace_replication::version::Version;
use millrace_terms::Lsn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A table on both sides, cut into ranges.
pub struct Checked {
    pub plan: Arc<TablePlan>,
    pub order: Order,
    pub ranges: Vec<Range>,
    with_heirs: bool,
    position: watch::Receiver<Lsn>,
}

impl Checked {
    /// Of a table that nobody writes to.
    pub async fn new(session: &Session, plan: Arc<TablePlan>, ranges: u64) -> Self {
        let (_, position) = watch::channel(Lsn(u64::MAX));
        Self::streamed(session, plan, ranges, position).await
    }

    pub async fn streamed(
        session: &Session,
        plan: Arc<TablePlan>,
        ranges: u64,
        position: watch::Receiver<Lsn>,
    ) -> Self {
        let shape = describe(session, std::slice::from_ref(&plan.source)).await.unwrap().remove(0);
        let order = split::order(session, &plan).await.unwrap();
        let with_heirs = split::with_heirs(&shape);
        let sql = format!("select count(*) from {}", plan.source.to_sql());
        let rows: i64 = session.query_one(&sql, &[]).await.unwrap().get(0);
        let rows = u64::try_from(rows).unwrap();
        let ranges = split::into(session, &plan, &order, with_heirs, (rows, ranges)).await.unwrap();
        Self { plan, order, ranges, with_heirs, position }
    }

    pub fn sides<'a>(&'a self, session: &'a Session, sink: &'a Clickhouse) -> Sides<'a> {
        Sides { session, sink, plan: &self.plan, order: &self.order, with_heirs: self.with_heirs }
    }

    pub fn question<'a>(&self, range: &'a Range, with_values: bool) -> Question<'a> {
        Question { range, base: 0, position: self.position.clone(), with_values }
    }

    /// All ranges together.
    pub async fn compare(&self, session: &Session, sink: &Clickhouse) -> Answer {
        let mut all = Answer::default();
        for range in &self.ranges {
            let question = self.question(range, false);
            let answer = self.sides(session, sink).compare(&question).await.unwrap();
            all.source_rows += answer.source_rows;
            all.destination_rows += answer.destination_rows;
            all.differences.extend(answer.differences);
            all.unsettled += answer.unsettled;
            all.held_by = all.held_by.or(answer.held_by);
        }
        all
    }

    /// Compares every range and mends it.
    pub async fn mend(&self, session: &Session, sink: &Clickhouse) {
        for range in &self.ranges {
            let sides = self.sides(session, sink);
            let answer = sides.compare(&self.question(range, false)).await.unwrap();
            let epoch = epoch::take(session, &CancellationToken::new(), |_| ()).await.unwrap();
            let id = InsertId {
                mirror: "m".into(),
                attempt: "verify.1".into(),
                table: self.plan.destination.clone(),
                position: "0".into(),
            };
            let mending = Mending {
                range,
                differences: &answer.differences,
                version: Version::epoch(0, epoch.0),
                id: &id,
                cluster: "",
            };
            sides.mend(&mending, || true).await.unwrap();
        }
    }
}

/// What was found, in an order: the kind, the key's values, the columns.
pub fn found(differences: &[Difference]) -> Vec<(Kind, String, String)> {
    let line = |difference: &Difference| {
        let told = &difference.told;
        let key: Vec<_> = told.key.iter().map(|cell| cell.value.clone().unwrap_or("NULL".into())).collect();
        (told.kind, key.join("/"), told.columns.join(","))
    };
    let mut lines: Vec<_> = differences.iter().map(line).collect();
    lines.sort();
    lines
}
