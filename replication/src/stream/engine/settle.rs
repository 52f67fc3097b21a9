//! What becomes of a table whose relation was described: it fits, follows, or is left out. Pure.
//!
//! A change that is followed is a barrier of its table: what was gathered before it is sent by the plan
//! of then, ClickHouse's table is altered, and the new plan is told; meanwhile rows gather by it. Others
//! never wait.

use std::sync::Arc;

use millrace_terms::{Code, Error, Lsn};
use tokio::time::Instant;

use super::{Engine, Known};
use crate::pgoutput::Relation;
use crate::postgres::present::Present;
use crate::stream::config::Report;
use crate::stream::lane::Altering;
use crate::stream::relations::Layout;
use crate::stream::schema::{Decision, Follow, Misfit, OnRewrite, SchemaChange, Subject, decide};
use crate::table::{Identity, TablePlan};

/// A relation of a table of ours that the source is to be asked about: the message lacks attribute
/// numbers, nullability and defaults, and under FULL also the key.
#[derive(Debug)]
pub(in crate::stream) struct Doubt {
    pub relation: Relation,
    pub table: usize,
    pub plan: Arc<TablePlan>,
    /// Another table bears the name of ours.
    pub is_namesake: bool,
    /// From this commit on the relation is not a part of the table.
    pub until: Option<Lsn>,
    /// Columns that the relation has and the table has not.
    pub own: Vec<String>,
    /// The transaction that tells of it: the source is asked when it is visible there.
    pub xid: u32,
}

impl Doubt {
    /// Whether the source must be asked for the key. Under FULL it is not told, and the plan's may be
    /// gone: two rows of one key would become one.
    pub(in crate::stream) fn is_of_key(&self) -> bool {
        !self.is_namesake
            && self.relation.identity == b'f'
            && self.plan.identity != Identity::WholeRow
            && !self.plan.append_only
    }
}

impl Engine {
    /// The source was asked: `present` is the table of ours as it is now.
    pub(in crate::stream) fn settle(&mut self, doubt: Doubt, present: Option<&Present>, has_key: bool) {
        let Doubt { relation, table, plan, is_namesake, until, own, .. } = doubt;
        let known = match present {
            _ if self.lanes[table].failed => Known::Foreign,
            Some(present) if is_namesake => {
                self.renamed(table, present);
                Known::Foreign
            }
            None if is_namesake => Known::Misfits(table, Misfit::new(&plan, "was dropped and created again")),
            _ if !has_key => {
                let what = "has lost the primary key or unique index that it is replicated by";
                Known::Misfits(table, Misfit::new(&plan, what))
            }
            _ => self.decided(table, &relation, present, until, &own),
        };
        self.relations.insert(relation.oid, known);
    }

    fn decided(
        &mut self,
        table: usize,
        relation: &Relation,
        present: Option<&Present>,
        until: Option<Lsn>,
        own: &[String],
    ) -> Known {
        let lane = &self.lanes[table];
        let mut plan = lane.plan.clone();
        if !own.is_empty() {
            Arc::make_mut(&mut plan).excluded.extend_from_slice(own);
        }
        let subject = Subject { table, plan: &plan, rules: &lane.rules, range: self.time_range };
        match decide(subject, relation, present) {
            Decision::Fits(layout) => Known::Fits(Arc::new(Layout { until, ..layout })),
            Decision::Misfits(misfit) => Known::Misfits(table, misfit),
            Decision::Follow(mut follow) => {
                Arc::make_mut(&mut follow.plan).excluded.clone_from(&lane.plan.excluded);
                let layout = Layout { until, ..follow.layout.clone() };
                self.follow(table, *follow);
                Known::Fits(Arc::new(layout))
            }
        }
    }

    /// The table of ours that bore this name has another one now.
    fn renamed(&mut self, table: usize, present: &Present) {
        let plan = &self.lanes[table].plan;
        if plan.source == present.name {
            return;
        }
        let change = SchemaChange::TableRenamed { from: plan.source.clone(), to: present.name.clone() };
        let plan = Arc::new(TablePlan { source: present.name.clone(), ..(**plan).clone() });
        self.tell_plan(table, plan.clone(), vec![change]);
        self.lanes[table].plan = plan;
    }

    fn follow(&mut self, at: usize, follow: Follow) {
        let Follow { changes, plan, alters, stale, .. } = follow;
        let before = self.lanes[at].plan.clone();
        for known in self.relations.values_mut() {
            if let Known::Fits(layout) = known
                && layout.table == at
                && let Some(moved) = layout.moved(&before, &plan)
            {
                *known = Known::Fits(Arc::new(moved));
            }
        }
        // What is remembered is in the order of the columns of before.
        self.memory.forget_table(at);
        if alters.is_empty() && stale.is_none() {
            self.tell_plan(at, plan.clone(), changes);
            self.lanes[at].plan = plan;
            return;
        }
        self.lanes[at].pending.extend_from_slice(&alters);
        self.tell_plan(at, Arc::new(unfinished(&before, &plan)), changes);
        self.alter(at, Altering { plan, alters, ticket: self.plans_told, stale });
    }

    /// Tables whose last worker died before they were altered.
    pub(super) fn go_on_altering(&mut self) {
        for at in 0..self.lanes.len() {
            let plan = &self.lanes[at].plan;
            if plan.seen.pending.is_empty() {
                continue;
            }
            let mut finished = (**plan).clone();
            let alters = std::mem::take(&mut finished.seen.pending);
            self.lanes[at].pending.clone_from(&alters);
            self.alter(at, Altering { plan: Arc::new(finished), alters, ticket: 0, stale: None });
        }
    }

    fn alter(&mut self, at: usize, altering: Altering) {
        let id = self.tracker.open();
        self.lanes[at].alter(id, altering, Instant::now());
        self.active.insert(at);
    }

    fn tell_plan(&mut self, at: usize, mut plan: Arc<TablePlan>, changes: Vec<SchemaChange>) {
        self.plans_told += 1;
        let pending = &self.lanes[at].pending;
        if plan.seen.pending != *pending {
            Arc::make_mut(&mut plan).seen.pending.clone_from(pending);
        }
        self.outbox.push_back(Report::Followed { id: self.lanes[at].id, plan, changes });
    }

    /// ClickHouse's table is altered. When it fits the last plan, that is told: until then the next worker does
    /// it again.
    pub(super) fn altered(&mut self, at: usize, altering: Altering) {
        if let Some(error) = altering.stale {
            self.misfit(at, Misfit { error, resync: true });
        }
        if self.lanes[at].altered() {
            self.tell_plan(at, self.lanes[at].plan.clone(), Vec::new());
        }
    }

    /// A table that cannot go on: it is copied again, if that helps and is wanted.
    pub(super) fn misfit(&mut self, at: usize, misfit: Misfit) {
        let Misfit { error, resync } = misfit;
        if resync && self.lanes[at].rules.on_rewrite == OnRewrite::Resync {
            let reason = error.with_remedy("Nothing: the table is copied again by itself.");
            if let Some((id, reason)) = self.leave_out(at, reason) {
                self.outbox.push_back(Report::ResyncNeeded { id, reason });
            }
        } else {
            self.fail(at, error);
        }
    }
}

/// A plan that ClickHouse's table does not fit yet. What was seen of the rows is as it was, so that a
/// worker that goes on from here finds again that they were written anew.
fn unfinished(before: &TablePlan, plan: &TablePlan) -> TablePlan {
    let mut unfinished = plan.clone();
    unfinished.seen.files.clone_from(&before.seen.files);
    for column in &mut unfinished.columns {
        let old = before.columns.iter().find(|old| old.attnum == column.attnum);
        column.past.row = old.map_or(0, |old| old.past.row);
    }
    unfinished
}

/// For who takes events: a relation that is not described.
#[cold]
pub(super) fn unannounced(relation: u32) -> Error {
    Error::new(
        Code::ProtocolViolation,
        format!("the replication stream holds a change of relation {relation}, which it did not describe"),
    )
}
