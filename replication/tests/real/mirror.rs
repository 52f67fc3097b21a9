//! A stream with the part that the catalog plays around it: it stores what is told, and confirms it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_replication::clickhouse::Clickhouse;
use millrace_replication::postgres::plan::{Options, plan};
use millrace_replication::postgres::{describe, identify, publication, slot};
use millrace_replication::stream::{
    self, AppendState, Cut, Limits, MemoryBudget, Older, OnColumnDropped, OnRewrite, Report, Rules, Snapshot,
    StreamConfig, StreamHandle, StreamTable, WORKER_BYTES,
};
use millrace_replication::table::{OwnColumns, TablePlan};
use millrace_replication::types::OnUnrepresentable;
use millrace_terms::{Code, Lsn, Result, TableName};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::servers::{APPLICATION, Source, destination};

/// How long a test waits for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Tables of a source with their destinations, and a slot from before their first row.
pub struct Mirror {
    pub source: Source,
    pub sink: Clickhouse,
    pub config: StreamConfig,
}

/// A stream that runs.
pub struct Running {
    stream: JoinHandle<Result<Lsn>>,
    store: JoinHandle<()>,
    cancel: CancellationToken,
    position: watch::Receiver<Lsn>,
    pub reports: Arc<std::sync::Mutex<Vec<Report>>>,
    pub lease: watch::Sender<Instant>,
    /// Rows of commits below it may be written.
    pub announce: watch::Sender<Lsn>,
}

impl Mirror {
    /// Makes the tables by `ddl`, and everything that a stream of `tables` needs.
    pub async fn new(ddl: &str, tables: &[&str]) -> Self {
        Self::on(Source::new().await, ddl, tables).await
    }

    /// As [`Mirror::new`], on a source that is there.
    pub async fn on(source: Source, ddl: &str, tables: &[&str]) -> Self {
        source.run(ddl).await;
        let sink = destination(&source.word).await;
        let names: Vec<TableName> = tables.iter().map(|name| TableName::new("public", *name)).collect();
        let session = source.session().await;
        let publication = format!("Pub {}", source.word);
        publication::ensure(&session, &publication, "test", &names).await.unwrap();
        let slot = format!("millrace_{}", source.word);
        let start = slot::ensure(&source.config, APPLICATION, &slot).await.unwrap().position;
        let mut streamed = Vec::new();
        for (id, shape) in (1..).zip(describe::describe(&session, &names).await.unwrap()) {
            // A table without a key is one whose rows are only inserted.
            let append_only = shape.key().is_err();
            let plan = plan(&shape, &Options { append_only, ..options(&shape.name.name) }).unwrap();
            let append = append_only.then(|| AppendState {
                run: 1,
                snapshot: Snapshot::parse("3:3:").unwrap(),
                seen_below: Lsn::ZERO,
                cut: None,
            });
            let rules = Arc::new(Rules {
                options: options(&shape.name.name),
                on_rewrite: OnRewrite::Resync,
                on_column_dropped: OnColumnDropped::Keep,
            });
            sink.create_table(&plan, "").await.unwrap();
            let leaves = shape.leaves.iter().map(|leaf| (leaf.oid, None)).collect();
            streamed.push(StreamTable { id, plan: Arc::new(plan), rules, floor: 0, append, leaves });
        }
        let config = StreamConfig {
            source: source.config.clone(),
            sink: sink.clone(),
            cluster: String::new(),
            older: Older { until: Instant::now(), inserts: Vec::new() },
            mirror: source.word.clone(),
            attempt: "0.1".into(),
            slot,
            publication,
            application: format!("{APPLICATION}/0/1"),
            base: 0,
            system: identify(&source.config, APPLICATION).await.unwrap(),
            start,
            tables: streamed,
            limits: Limits { min_interval: Duration::from_millis(1), ..Limits::default() },
            memory: MemoryBudget::new(WORKER_BYTES),
            binary: false,
        };
        Self { source, sink, config }
    }

    pub fn plan(&self, at: usize) -> Arc<TablePlan> {
        self.config.tables[at].plan.clone()
    }

    /// Starts a stream whose positions are confirmed to the slot.
    pub fn start(&self) -> Running {
        Running::new(self.config.clone(), true, true)
    }

    /// Starts a stream whose positions are not confirmed: the next one begins at the same place.
    pub fn start_unconfirmed(&self) -> Running {
        Running::new(self.config.clone(), false, true)
    }

    /// As [`Mirror::start_unconfirmed`], where plans are told and not known to be stored.
    pub fn start_unstored(&self) -> Running {
        Running::new(self.config.clone(), false, false)
    }

    /// Where the source's log ends.
    pub async fn wal_end(&self) -> Lsn {
        let row = self.source.sql.query_one("select pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
        row.get::<_, &str>(0).parse().unwrap()
    }

    /// Waits until everything committed so far is in the destination.
    pub async fn caught_up(&self, running: &mut Running) {
        let end = self.wal_end().await;
        // A record behind it, so that the server's reader passes the end.
        self.source.run("select pg_logical_emit_message(false, 'test', '')").await;
        running.reached(end).await;
    }

    /// Both sides of a table as text, by an expression for each that makes a row's text.
    pub async fn assert_same(&self, at: usize, source_row: &str, sink_row: &str) -> usize {
        let plan = self.plan(at);
        let sql = format!(
            "select row from (select {source_row} as row from {}) rows order by row collate \"C\"",
            plan.source.to_sql()
        );
        let rows = self.source.sql.query(&sql, &[]).await.unwrap();
        let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let sql = format!(
            "select assumeNotNull({sink_row}) as row from {} order by row",
            self.sink.qualified(&plan.destination)
        );
        let found: Vec<String> = self.sink.query(&sql).await.unwrap();
        let differences: Vec<_> =
            expected.iter().zip(&found).filter(|(expected, found)| expected != found).take(5).collect();
        assert!(expected == found, "{} rows, found {}: {differences:#?}", expected.len(), found.len());
        found.len()
    }
}

pub fn options(name: &str) -> Options {
    Options {
        destination: name.to_owned(),
        exclude: Vec::new(),
        columns: Default::default(),
        order_by: Vec::new(),
        partition_by: String::new(),
        append_only: false,
        merges_heirs: false,
        on_unrepresentable: OnUnrepresentable::Error,
        own: OwnColumns {
            version: "_version".into(),
            is_deleted: "_is_deleted".into(),
            synced_at: "_synced_at".into(),
            source: None,
            audit: None,
        },
    }
}

impl Running {
    fn new(config: StreamConfig, confirm: bool, store_plans: bool) -> Self {
        let (report, mut told) = mpsc::channel(100);
        let (stored, position) = watch::channel(Lsn::ZERO);
        let (confirmed, confirmations) = watch::channel(Lsn::ZERO);
        let (announce, announced) = watch::channel(Lsn(u64::MAX));
        let (cut, cuts) = watch::channel(BTreeMap::new());
        let (lease, lease_deadline) = watch::channel(Instant::now() + Duration::from_secs(60));
        let (plans, followed) = watch::channel(0);
        let cancel = CancellationToken::new();
        let reports = Arc::new(std::sync::Mutex::new(Vec::new()));
        let store = tokio::spawn({
            let reports = reports.clone();
            async move {
                while let Some(report) = told.recv().await {
                    if let Report::Position { lsn, .. } = report {
                        stored.send_replace(lsn);
                        if confirm {
                            confirmed.send_replace(lsn);
                        }
                    }
                    if let Report::Cut { id, cut: stored } = &report {
                        cut.send_modify(|cuts| {
                            cuts.insert(*id, *stored);
                        });
                    }
                    if let Report::Followed { .. } = report
                        && store_plans
                    {
                        plans.send_modify(|stored| *stored += 1);
                    }
                    reports.lock().unwrap().push(report);
                }
            }
        });
        let handle = StreamHandle {
            reports: report,
            confirmed: confirmations,
            announced,
            cuts,
            followed,
            lease_deadline,
            cancel: cancel.clone(),
        };
        let stream = tokio::spawn(stream::run(config, handle));
        Self { stream, store, cancel, position, reports, lease, announce }
    }

    /// The position, as it is stored.
    pub fn position(&self) -> watch::Receiver<Lsn> {
        self.position.clone()
    }

    /// Waits for a position. If the stream ends instead, its error is shown.
    pub async fn reached(&mut self, end: Lsn) {
        let waiting = self.position.wait_for(|position| *position >= end);
        let waited = tokio::time::timeout(PATIENCE, waiting).await.map(|reached| reached.is_ok());
        match waited {
            Ok(true) => {}
            Ok(false) => panic!("the stream ended: {:?}", (&mut self.stream).await),
            Err(_) => {
                panic!("not at {end} but at {}: {:#?}", *self.position.borrow(), self.reports.lock().unwrap())
            }
        }
    }

    /// Waits until a report fits.
    pub async fn told(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(report) = self.reports.lock().unwrap().iter().find(|report| wanted(report)) {
                return report.clone();
            }
            assert!(Instant::now() < deadline, "{:#?}", self.reports.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The tables that failed so far, in the order of their ids, and why.
    pub fn failed(&self) -> Vec<(i64, Code)> {
        let failed = |report: &Report| match report {
            Report::TableFailed { id, error } => Some((*id, error.code())),
            _ => None,
        };
        let mut failed: Vec<_> = self.reports.lock().unwrap().iter().filter_map(failed).collect();
        failed.sort_unstable();
        failed
    }

    /// Ends the stream as a crash does. Returns the last stored cut of the first table.
    pub async fn kill(self) -> Option<Cut> {
        self.stream.abort();
        // What it told is stored; it tells nothing more.
        drop(self.stream.await);
        self.store.await.unwrap();
        let reports = self.reports.lock().unwrap();
        let cut = |report: &Report| match report {
            Report::Cut { id: 1, cut } => Some(*cut),
            _ => None,
        };
        reports.iter().rev().find_map(cut)
    }

    /// Ends the stream and returns its last position.
    pub async fn stop(self) -> Lsn {
        self.cancel.cancel();
        let end = tokio::time::timeout(PATIENCE, self.stream).await.unwrap().unwrap().unwrap();
        self.store.await.unwrap();
        end
    }

    /// How the stream ended by itself.
    pub async fn failure(self) -> millrace_terms::Error {
        tokio::time::timeout(PATIENCE, self.stream).await.unwrap().unwrap().unwrap_err()
    }
}
