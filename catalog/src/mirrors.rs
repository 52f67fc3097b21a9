//! Mirrors: their specs with every default resolved, what is wanted of them, and their state.

use std::collections::BTreeMap;
use std::fmt::Debug;

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use millrace_terms::{Code, Error, Result, TableName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::difference::{differences, summary, tell};
use crate::edits::TableEdit;
use crate::errors;
use crate::events::{self, NewEvent};
use crate::failure::Failure;
use crate::page::{Page, PageRequest};
use crate::peers::{self, CreateOptions, Created};
use crate::spec::MirrorSpec;
use crate::sql::{self, Columns};
use crate::state::{self, Desired, MirrorFacts, MirrorState, TableState};
use crate::streams::{self, Stream};
use crate::tables::{self, Table};

/// A mirror to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMirror {
    /// What the user asked for, every default resolved.
    pub spec: MirrorSpec,
    /// The rules by which defaults and names were resolved: [`crate::spec::RULES`].
    pub rules: u32,
    /// Its streams, numbered from 0.
    pub streams: Vec<NewStream>,
    /// Its tables, patterns replaced by the tables found.
    pub tables: Vec<NewTable>,
}

/// A stream to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStream {
    /// Name of its replication slot.
    pub slot: String,
    /// Name of its publication.
    pub publication: String,
}

/// A table to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTable {
    /// The stream that it belongs to.
    pub stream: u32,
    /// Its name on the source.
    pub source: TableName,
    /// Its OID on the source.
    pub oid: u32,
    /// Its name in the destination's database.
    pub destination: String,
    /// Its frozen plan: JSON that the data plane understands.
    pub plan: Value,
    /// Rows on the source, estimated.
    pub rows_estimated: u64,
    /// Heap bytes on the source.
    pub bytes_total: u64,
}

/// A stored mirror.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// What the user asked for, every default resolved.
    pub spec: MirrorSpec,
    /// The rules by which it was made.
    pub rules: u32,
    /// What a person wants of it.
    pub desired: Desired,
    /// Where it stands, derived from the rest.
    pub state: MirrorState,
    /// Whether its workflow was started; see [`Catalog::list_unstarted`].
    pub workflow_started: bool,
    /// When source and destination were ready for streaming.
    pub prepared_at: Option<Timestamp>,
    /// When it had copied everything, and was to do no more.
    pub completed_at: Option<Timestamp>,
    /// Why it is FAILED.
    pub error: Option<Failure>,
    /// The request that created it; empty for none.
    pub request_id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed by a person or came to another phase.
    pub updated_at: Timestamp,
    /// Another text after every such change.
    pub etag: String,
    /// Its streams, by number.
    pub streams: Vec<Stream>,
    /// Its tables that are not dropped, in the order of creation.
    pub tables: Vec<Table>,
}

/// Which mirrors are listed. `Default` is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorFilter {
    /// Only those in one of these states; empty for all.
    pub states: Vec<MirrorState>,
    /// Only those of this source; empty for all.
    pub source: String,
    /// Only those into this destination; empty for all.
    pub destination: String,
    /// Only names that begin so.
    pub name_prefix: String,
}

impl Mirror {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

impl Catalog {
    /// Creates a mirror with its streams and tables, all or nothing. Its workflow is started
    /// afterwards, by the caller.
    ///
    /// # Errors
    /// PEER_NOT_FOUND; MIRROR_EXISTS with the differences (metadata `difference`) if another is there.
    pub async fn create_mirror(&self, new: &NewMirror, options: &CreateOptions) -> Result<Created<Mirror>> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let spec = &new.spec;
        // Locked, so that no peer is dropped meanwhile, and that mirrors of one destination take turns:
        // each sees which tables the others write into.
        for (peer, lock) in [(&spec.source, "key share"), (&spec.destination, "no key update")] {
            let sql = format!("select 1 from peers where name = $1 for {lock}");
            let row = sql::row(&transaction, &sql, &[peer]).await?;
            row.ok_or_else(|| peers::not_found(peer))?;
        }
        let inserted = sql::execute(
            &transaction,
            "insert into mirrors (name, source, destination, spec, rules, request_id)
             values ($1, $2, $3, $4, $5, $6) on conflict (name) do nothing",
            &[
                &spec.name,
                &spec.source,
                &spec.destination,
                &sql::json(spec),
                &sql::integer(new.rules),
                &options.request_id,
            ],
        )
        .await?;
        if inserted == 0 {
            return existing(load_one(&transaction, &spec.name).await?, spec, options);
        }
        let destinations: Vec<&str> = new.tables.iter().map(|table| table.destination.as_str()).collect();
        refuse_taken_destinations(&transaction, spec, &destinations).await?;
        refuse_taken_slots(&transaction, spec, &new.streams).await?;
        insert_streams(&transaction, &spec.name, &new.streams).await?;
        insert_tables(&transaction, &spec.name, &new.tables, None).await?;
        let mirror = load_one(&transaction, &spec.name).await?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(Created::New(mirror))
    }

    /// Refuses a mirror whose destinations another one writes into: keys of the one would replace those
    /// of the other. [`Catalog::create_mirror`] does so too; this is for asking early.
    ///
    /// # Errors
    /// DESTINATION_TABLE_EXISTS naming the table and the other mirror.
    pub async fn check_destinations(&self, spec: &MirrorSpec) -> Result<()> {
        let destinations: Vec<&str> = spec.tables.iter().map(|table| table.destination.as_str()).collect();
        refuse_taken_destinations(&self.client().await?, spec, &destinations).await
    }

    /// A mirror by its name, with its streams and tables.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn get_mirror(&self, name: &str) -> Result<Mirror> {
        load_one(&self.client().await?, name).await
    }

    /// Mirrors by name, with their streams and tables: three statements, however many they are.
    pub async fn list_mirrors(&self, request: &PageRequest, filter: &MirrorFilter) -> Result<Page<Mirror>> {
        let (mut found, mut token) = (Vec::new(), request.token.clone());
        loop {
            let page = self.list_in_any_state(&PageRequest { token, ..request.clone() }, filter).await?;
            // States are derived from the tables', so the database does not know them.
            let is_it = |mirror: &Mirror| filter.states.is_empty() || filter.states.contains(&mirror.state);
            found.extend(page.items.into_iter().filter(is_it));
            match page.next {
                Some(next) if found.len() <= request.limit() as usize => token = next,
                _ => return Ok(Page::new(found, request, |mirror| mirror.spec.name.clone())),
            }
        }
    }

    async fn list_in_any_state(&self, request: &PageRequest, filter: &MirrorFilter) -> Result<Page<Mirror>> {
        let client = self.client().await?;
        let sql = format!(
            "{SELECT} where name > $1 and ($3 = '' or source = $3) and ($4 = '' or destination = $4)
                and starts_with(name, $5) order by name limit $2"
        );
        let (limit, MirrorFilter { source, destination, name_prefix, .. }) = (request.limit() + 1, filter);
        let rows =
            sql::rows(&client, &sql, &[&request.token, &i64::from(limit), source, destination, name_prefix])
                .await?;
        Ok(Page::new(load(&client, &rows).await?, request, |mirror| mirror.spec.name.clone()))
    }

    /// Writes down what a person wants of a mirror. Dropping is final. `etag`: only if it is still
    /// that one; empty for any.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND, EDIT_CONFLICT, MIRROR_STATE if it is being dropped.
    pub async fn set_desired(&self, name: &str, desired: Desired, etag: &str) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let before = lock(&transaction, name).await?;
        if before == Desired::Dropping && desired != Desired::Dropping {
            let message = format!("mirror {name} is being dropped");
            return Err(Error::new(Code::MirrorState, message).with("mirror", name));
        }
        if before != desired || !etag.is_empty() {
            let changed = sql::execute(
                &transaction,
                "update mirrors set desired_state = $2, updated_at = now(), etag = gen_random_uuid()::text
                 where name = $1 and ($3 = '' or etag = $3)",
                &[&name, &desired.as_str(), &etag],
            )
            .await?;
            if changed == 0 {
                let message = format!("mirror {name} was changed meanwhile");
                return Err(Error::new(Code::EditConflict, message).with("mirror", name));
            }
        }
        transaction.commit().await.map_err(errors::database)
    }

    /// Notes that a mirror's workflow was started.
    pub async fn mark_started(&self, name: &str) -> Result<()> {
        let sql = "update mirrors set workflow_started = true where name = $1 and not workflow_started";
        sql::execute(&self.client().await?, sql, &[&name]).await.map(drop)
    }

    /// Names of the mirrors whose workflow was not started: the server died in between, and starts
    /// them when it comes back.
    pub async fn list_unstarted(&self) -> Result<Vec<String>> {
        let sql = "select name from mirrors where not workflow_started order by name";
        let rows = sql::rows(&self.client().await?, sql, &[]).await?;
        rows.iter().map(|row| Columns(row).text("name")).collect()
    }

    /// Notes that source and destination are ready for streaming: the mirror leaves SETUP.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn mark_prepared(&self, name: &str) -> Result<()> {
        let changed = sql::execute(
            &self.client().await?,
            // Said again and again while it runs: only the first time is a change.
            "update mirrors set prepared_at = coalesce(prepared_at, now()),
                updated_at = case when prepared_at is null then now() else updated_at end,
                etag = case when prepared_at is null then gen_random_uuid()::text else etag end
             where name = $1",
            &[&name],
        )
        .await?;
        if changed > 0 { Ok(()) } else { Err(not_found(name)) }
    }

    /// Notes that a mirror has copied everything, and is to do no more.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn mark_completed(&self, name: &str) -> Result<()> {
        self.update_mirror(name, "completed_at = coalesce(completed_at, now())", &[]).await
    }

    /// Stores why a mirror stands still (FAILED), or that it does no more. The same failure seen
    /// again keeps its time.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn set_mirror_error(&self, name: &str, error: Option<&Error>) -> Result<()> {
        let failure = error.map(Failure::new);
        let set = "error = case when error->>'code' = $2::jsonb->>'code'
            and error->>'message' = $2::jsonb->>'message' then error else $2 end";
        self.update_mirror(name, set, &[&failure.as_ref().map(sql::json)]).await
    }

    /// What was told of mirrors in Temporal's UI, by name. What another release told is left out.
    pub async fn shown_figures<T: DeserializeOwned>(&self) -> Result<BTreeMap<String, T>> {
        let sql = "select name, shown from mirrors where shown is not null";
        let rows = sql::rows(&self.client().await?, sql, &[]).await?;
        let read = |row: &Row| {
            let shown = Columns(row).json::<Value>("shown").ok()?;
            Some((Columns(row).text("name").ok()?, serde_json::from_value(shown).ok()?))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Notes what was told of a mirror there.
    pub async fn note_shown<T: Serialize + Debug + Sync>(&self, name: &str, shown: &T) -> Result<()> {
        let sql = "update mirrors set shown = $2 where name = $1";
        sql::execute(&self.client().await?, sql, &[&name, &sql::json(shown)]).await.map(drop)
    }

    /// Deletes a mirror with its streams, tables, partitions and figures, and writes down how that
    /// went, all or nothing. Its events stay. Says whether it was there: a second call is not an error,
    /// and writes nothing.
    pub async fn delete_mirror(&self, name: &str, events: &[NewEvent]) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        if sql::execute(&transaction, "delete from mirrors where name = $1", &[&name]).await? == 0 {
            return Ok(false);
        }
        for event in events {
            events::add(&transaction, event).await?;
        }
        transaction.commit().await.map_err(errors::database)?;
        Ok(true)
    }

    async fn update_mirror(&self, name: &str, set: &str, values: sql::Params<'_>) -> Result<()> {
        let sql = format!(
            "update mirrors set {set}, updated_at = now(), etag = gen_random_uuid()::text where name = $1"
        );
        let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&name];
        parameters.extend(values);
        match sql::execute(&self.client().await?, &sql, &parameters).await? {
            0 => Err(not_found(name)),
            _ => Ok(()),
        }
    }
}

/// Locks a mirror against other planners and claimers; gives what is wanted of it. It does not
/// conflict with the foreign keys of new rows.
pub(crate) async fn lock(client: &impl GenericClient, name: &str) -> Result<Desired> {
    let sql = "select desired_state from mirrors where name = $1 for no key update";
    let row = sql::row(client, sql, &[&name]).await?;
    Columns(&row.ok_or_else(|| not_found(name))?).word("desired_state")
}

fn existing(mirror: Mirror, spec: &MirrorSpec, options: &CreateOptions) -> Result<Created<Mirror>> {
    let same_request = !options.request_id.is_empty() && mirror.request_id == options.request_id;
    let differences = differences(&mirror.spec, spec)?;
    if differences.is_empty() && (same_request || options.allow_existing) {
        return Ok(Created::Existing(mirror));
    }
    let how = if differences.is_empty() { "it is the same".into() } else { summary(&differences) };
    let error = Error::new(Code::MirrorExists, format!("mirror {} exists already: {how}", spec.name));
    Err(tell(error.with("mirror", &spec.name), &differences))
}

/// Two mirrors must not write into one table, where keys of the one would replace those of the other:
/// unless a column tells their rows apart, and the table is not about to be dropped.
pub(crate) async fn refuse_taken_destinations(
    client: &impl GenericClient,
    spec: &MirrorSpec,
    destinations: &[&str],
) -> Result<()> {
    let shared = spec.tables.iter().filter(|table| table.source_column);
    let shared: Vec<&str> = shared.map(|table| table.destination.as_str()).collect();
    let taken = sql::row(
        client,
        "select t.destination, t.mirror from mirror_tables t join mirrors m on m.name = t.mirror
         where m.destination = $1 and m.name <> $2 and t.state <> 'DROPPED' and t.destination = any ($3)
            and not (t.destination = any ($4) and m.desired_state <> 'DROPPING'
                and exists (select from jsonb_array_elements(m.spec->'tables') s
                    where s->>'destination' = t.destination and s->'source_column' = 'true'))
         order by t.destination limit 1",
        &[&spec.destination, &spec.name, &destinations, &shared],
    )
    .await?;
    let Some(row) = taken else { return Ok(()) };
    let (table, other) = (Columns(&row).text("destination")?, Columns(&row).text("mirror")?);
    let message = format!("mirror {other} writes into {table} of {} already", spec.destination);
    let asked = spec.tables.iter().find(|asked| asked.destination == table);
    Err(Error::new(Code::DestinationTableExists, message)
        .with("mirror", other)
        .with("table", asked.map_or(&table, |asked| &asked.source))
        .with_remedy(
            "Give the table another `destination`, or make both mirrors with `source_column` for it.",
        ))
}

/// Two streams of one slot would each miss what the other has acknowledged.
async fn refuse_taken_slots(
    client: &impl GenericClient,
    spec: &MirrorSpec,
    streams: &[NewStream],
) -> Result<()> {
    let slots: Vec<&str> = streams.iter().map(|stream| stream.slot.as_str()).collect();
    let taken = sql::row(
        client,
        "select s.slot, s.mirror from streams s join mirrors m on m.name = s.mirror
         where m.source = $1 and m.name <> $2 and s.slot = any ($3) limit 1",
        &[&spec.source, &spec.name, &slots],
    )
    .await?;
    let Some(row) = taken else { return Ok(()) };
    let (slot, other) = (Columns(&row).text("slot")?, Columns(&row).text("mirror")?);
    Err(Error::new(Code::SlotExists, format!("mirror {other} streams from slot {slot} of {}", spec.source))
        .with("mirror", other)
        .with("slot", slot)
        .with_remedy("Make another slot for this mirror, or leave `slot` empty: it makes its own."))
}

async fn insert_streams(transaction: &Transaction<'_>, mirror: &str, streams: &[NewStream]) -> Result<()> {
    let slots: Vec<&str> = streams.iter().map(|stream| stream.slot.as_str()).collect();
    let publications: Vec<&str> = streams.iter().map(|stream| stream.publication.as_str()).collect();
    sql::execute(
        transaction,
        "insert into streams (mirror, n, slot, publication)
         select $1, s.n - 1, s.slot, s.publication
         from unnest($2::text[], $3::text[]) with ordinality as s (slot, publication, n)",
        &[&mirror, &slots, &publications],
    )
    .await
    .map(drop)
}

/// Inserts tables, with what is left to do for them.
pub(crate) async fn insert_tables(
    transaction: &Transaction<'_>,
    mirror: &str,
    tables: &[NewTable],
    edit: Option<TableEdit>,
) -> Result<()> {
    let streams: Vec<i32> = tables.iter().map(|table| sql::integer(table.stream)).collect();
    let schemas: Vec<&str> = tables.iter().map(|table| table.source.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.source.name.as_str()).collect();
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let destinations: Vec<&str> = tables.iter().map(|table| table.destination.as_str()).collect();
    let plans: Vec<&Value> = tables.iter().map(|table| &table.plan).collect();
    let rows: Vec<i64> = tables.iter().map(|table| sql::bigint(table.rows_estimated)).collect();
    let bytes: Vec<i64> = tables.iter().map(|table| sql::bigint(table.bytes_total)).collect();
    let edit = edit.map(TableEdit::as_str);
    sql::execute(
        transaction,
        "insert into mirror_tables
            (mirror, stream, source_schema, source_name, oid, destination, plan, rows_estimated, bytes_total, edit)
         select $1, t.stream, t.source_schema, t.source_name, t.oid, t.destination, t.plan, t.rows, t.bytes, $10
         from unnest($2::integer[], $3::text[], $4::text[], $5::oid[], $6::text[], $7::jsonb[], $8::bigint[],
            $9::bigint[]) with ordinality
            as t (stream, source_schema, source_name, oid, destination, plan, rows, bytes, place)
         order by t.place",
        &[&mirror, &streams, &schemas, &names, &oids, &destinations, &plans, &rows, &bytes, &edit],
    )
    .await
    .map(drop)
}

const SELECT: &str = "
    select name, spec, rules, desired_state, workflow_started, prepared_at, completed_at, error, request_id,
        created_at, updated_at, etag
    from mirrors";

async fn load_one(client: &impl GenericClient, name: &str) -> Result<Mirror> {
    let sql = format!("{SELECT} where name = $1");
    let rows = sql::rows(client, &sql, &[&name]).await?;
    load(client, &rows).await?.pop().ok_or_else(|| not_found(name))
}

/// Makes mirrors of their rows, with all their streams and tables in one statement each.
async fn load(client: &impl GenericClient, rows: &[Row]) -> Result<Vec<Mirror>> {
    let names = rows.iter().map(|row| Columns(row).text("name")).collect::<Result<Vec<_>>>()?;
    let mut streams: BTreeMap<String, Vec<Stream>> = BTreeMap::new();
    for stream in streams::of_mirrors(client, &names).await? {
        streams.entry(stream.mirror.clone()).or_default().push(stream);
    }
    let mut tables: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    for table in tables::of_mirrors(client, &names).await? {
        tables.entry(table.mirror.clone()).or_default().push(table);
    }
    let parts =
        |name: &String| (streams.remove(name).unwrap_or_default(), tables.remove(name).unwrap_or_default());
    rows.iter()
        .zip(names.iter().map(parts))
        .map(|(row, (streams, tables))| read(row, streams, tables))
        .collect()
}

fn read(row: &Row, streams: Vec<Stream>, tables: Vec<Table>) -> Result<Mirror> {
    let columns = Columns(row);
    let desired = columns.word("desired_state")?;
    let error: Option<Failure> = columns.json_opt("error")?;
    let prepared_at = columns.time_opt("prepared_at")?;
    let completed_at = columns.time_opt("completed_at")?;
    let some_table_is = |states: &[TableState]| tables.iter().any(|table| states.contains(&table.state));
    let state = state::derive(MirrorFacts {
        desired,
        prepared: prepared_at.is_some(),
        failed: error.is_some(),
        completed: completed_at.is_some(),
        table_in_error: some_table_is(&[TableState::Error]),
        table_uncopied: some_table_is(&[TableState::Pending, TableState::Copying]),
    });
    Ok(Mirror {
        spec: columns.json("spec")?,
        rules: columns.number("rules")?,
        desired,
        state,
        workflow_started: columns.get("workflow_started")?,
        prepared_at,
        completed_at,
        error,
        request_id: columns.text("request_id")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        etag: columns.text("etag")?,
        streams,
        tables,
    })
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::new(Code::MirrorNotFound, format!("no mirror is called {name}")).with("mirror", name)
}
