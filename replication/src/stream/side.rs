//! The stream's ordinary session beside the replication connection: for what the replication protocol
//! does not tell. I/O.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result, quote_ident};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::config::StreamTable;
use super::snapshot::Snapshot;
use crate::postgres::describe::NOT_NULL;
use crate::postgres::present::{self, Present};
use crate::postgres::tree::{self, Ancestors};
use crate::postgres::{Session, SourceConfig, System, describe, dial_log, from_sql, slot};
use crate::table::TablePlan;

/// Pauses until a commit is visible that the log has told.
const VISIBLE_POLL_MIN: Duration = Duration::from_millis(2);
const VISIBLE_POLL_MAX: Duration = Duration::from_millis(250);

/// Opens a session when one is needed, and again when it broke.
#[derive(Debug)]
pub(super) struct Side {
    config: SourceConfig,
    application: String,
    system: System,
    session: Mutex<Option<Arc<Session>>>,
}

impl Side {
    pub(super) fn new(config: SourceConfig, application: String, system: System) -> Arc<Self> {
        Arc::new(Self { config, application, system, session: Mutex::new(None) })
    }

    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let mut session = self.session.lock().await;
        match &*session {
            Some(open) if !open.is_closed() => Ok(open.clone()),
            // Values are read where the changes come from, and never from a standby.
            _ => {
                let open = dial_log(&self.config, &self.application, &self.system).await?;
                Ok(session.insert(Arc::new(open)).clone())
            }
        }
    }

    /// Makes sure that a stream can start at `start`: older attempts are ended, the slot can deliver
    /// everything from there, the publication exists.
    ///
    /// # Errors
    /// `SLOT_IN_USE`, `LEASE_LOST`, `SLOT_LOST`, `PUBLICATION_MISSING`, and those of [`dial_log`].
    pub(super) async fn prepare(&self, slot_name: &str, publication: &str, start: Lsn) -> Result<()> {
        let session = self.session().await?;
        slot::release(&session, slot_name, &self.application).await?;
        let confirmed = slot::verify(&session, slot_name).await?;
        if confirmed > start {
            // The server would begin there without a word, and the changes between would be lost.
            return Err(Error::new(
                Code::SlotLost,
                format!("the slot {slot_name} stands at {confirmed}, beyond the position {start}: somebody else has read from it"),
            )
            .with("slot", slot_name));
        }
        // From PostgreSQL 18 on a stream from a missing publication is silent.
        let sql = "select 1 from pg_catalog.pg_publication where pubname = $1::text";
        let found = session.query_opt(sql, &[&publication]).await;
        if found.map_err(|error| from_sql("looking for the publication", &error))?.is_none() {
            return Err(Error::new(
                Code::PublicationMissing,
                format!("the source has no publication {publication}"),
            )
            .with("publication", publication));
        }
        Ok(())
    }

    /// Tables of which the stream would tell nothing, by their index, and why.
    ///
    /// # Errors
    /// Those of [`from_sql`].
    pub(super) async fn untold(
        &self,
        publication: &str,
        tables: &[StreamTable],
    ) -> Result<Vec<(usize, Error)>> {
        // The view holds partitions, not their roots; a root without partitions tells nothing yet. One
        // that is named itself is told with all that is attached to it while this is asked.
        let sql = "
            with told (oid) as (
                select r.prrelid from pg_catalog.pg_publication_rel r
                  join pg_catalog.pg_publication p on p.oid = r.prpubid and p.pubname = $2::text
                union all
                select c.oid from pg_catalog.pg_publication_tables p
                  join pg_catalog.pg_namespace n on n.nspname = p.schemaname
                  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
                 where p.pubname = $2::text)
            select w.n, c.oid is null
              from unnest($1::oid[]) with ordinality w (oid, n)
              left join pg_catalog.pg_class c on c.oid = w.oid
             where w.oid not in (select oid from told)
               and (c.relkind is distinct from 'p'
                    or exists (select from pg_catalog.pg_partition_tree(w.oid) l
                                where l.isleaf and l.relid <> w.oid and l.relid not in (select oid from told)))
             order by w.n";
        let oids: Vec<u32> = tables.iter().map(|table| table.plan.oid).collect();
        let session = self.session().await?;
        let rows = session.query(sql, &[&oids, &publication]).await;
        let rows = rows.map_err(|error| from_sql("looking for the tables in the publication", &error))?;
        let untold = |row: &tokio_postgres::Row| {
            let at = usize::try_from(row.get::<_, i64>(0) - 1).ok()?;
            let name = &tables.get(at)?.plan.source;
            let error = if row.get(1) {
                Error::new(Code::SourceTableMissing, format!("{name} was dropped"))
            } else {
                let why = format!(
                    "the publication {publication} does not hold {name}, or not all of its partitions"
                );
                let sql =
                    format!("ALTER PUBLICATION {} ADD TABLE {};", quote_ident(publication), name.to_sql());
                Error::new(Code::PublicationMissing, why)
                    .with_remedy(format!("Run `{sql}` and resync the table."))
            };
            Some((at, error))
        };
        Ok(rows.iter().filter_map(untold).collect())
    }

    /// Whether the walsender on the slot is at work, after nothing came from it for long: it may be
    /// decoding a large transaction of which nothing is published.
    ///
    /// # Errors
    /// `SOURCE_UNREACHABLE` if it is not, or if nobody answers.
    pub(super) async fn walsender_is_alive(&self, slot_name: &str) -> Result<()> {
        let sql = "select 1 from pg_catalog.pg_replication_slots s
                     join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
                    where s.slot_name = $1::text and a.application_name = left($2::text, 63)";
        let session = self.session().await?;
        let found = session.query_opt(sql, &[&slot_name, &self.application]).await;
        match found.map_err(|error| from_sql("asking for the walsender", &error))? {
            Some(_) => Ok(()),
            None => Err(Error::new(
                Code::SourceUnreachable,
                "the replication connection is dead: nothing comes from it",
            )),
        }
    }

    /// What a relation is a part of.
    ///
    /// # Errors
    /// Those of [`from_sql`].
    pub(super) async fn ancestors(&self, relation: u32) -> Result<Ancestors> {
        tree::ancestors(&*self.session().await?, relation).await
    }

    /// A table of ours, of which `relation` is told by the transaction `xid`: as it is now, if it exists.
    /// A commit is in the log before others see it, so it is waited for.
    ///
    /// # Errors
    /// `CANCELLED`, and those of [`from_sql`].
    pub(super) async fn present(
        &self,
        plan: &TablePlan,
        relation: u32,
        xid: u32,
        cancel: &CancellationToken,
    ) -> Result<Option<Present>> {
        let mut pause = VISIBLE_POLL_MIN;
        loop {
            let session = self.session().await?;
            let row = session.query_one("select pg_catalog.pg_current_snapshot()::text", &[]).await;
            let row = row.map_err(|error| from_sql("asking what is visible", &error))?;
            if Snapshot::parse(row.get(0))?.sees(xid) {
                return present::look(&session, plan, relation).await;
            }
            tokio::select! {
                () = cancel.cancelled() => {
                    return Err(Error::new(Code::Cancelled, "cancelled while waiting for a change to be visible"));
                }
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(VISIBLE_POLL_MAX);
        }
    }

    /// Whether the source's table still has the plan's key, or a part of it, as a key that may be relied
    /// on: see `TableShape::key`.
    ///
    /// # Errors
    /// Those of [`from_sql`].
    pub(super) async fn has_key(&self, plan: &TablePlan) -> Result<bool> {
        let sql = format!(
            "select exists (select from pg_catalog.pg_index i
                where i.indrelid = $1::oid and i.indisunique and i.indimmediate and i.indisvalid
                  and i.indpred is null and (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ $2::int2[]
                  and not exists (select from pg_catalog.pg_attribute a
                      where a.attrelid = i.indrelid and not {NOT_NULL}
                        and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])))"
        );
        let key: Vec<i16> = plan.key.iter().map(|at| plan.columns[*at].attnum).collect();
        let session = self.session().await?;
        let row = session.query_one(&sql, &[&plan.oid, &key]).await;
        Ok(row.map_err(|error| from_sql("looking for the key", &error))?.get(0))
    }

    /// Whether the source may be asked for the binary form: of every column of every table, because
    /// those that are not replicated come too.
    ///
    /// # Errors
    /// Those of [`from_sql`].
    pub(super) async fn binary_is_safe(&self, tables: &[StreamTable]) -> Result<bool> {
        let sql = "select distinct a.atttypid from pg_catalog.pg_attribute a
                    where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped";
        // What inherits has columns of its own.
        let oids = tables.iter().flat_map(|table| table.leaves.keys().copied().chain([table.plan.oid]));
        let oids: Vec<u32> = oids.collect();
        let session = self.session().await?;
        let rows =
            session.query(sql, &[&oids]).await.map_err(|error| from_sql("reading the types", &error))?;
        let types: BTreeSet<u32> = rows.iter().map(|row| row.get(0)).collect();
        let catalog = describe::types(&session, types.clone()).await?;
        // A type that the user chose for a column may need the text where the default does not.
        let mut planned = tables.iter().flat_map(|table| &table.plan.columns);
        Ok(planned.all(|column| column.conversion.binary_known())
            && types.into_iter().all(|oid| catalog.binary_known(oid)))
    }
}
