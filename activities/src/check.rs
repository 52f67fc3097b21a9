//! Looks at what is not stored yet: a peer, the tables of a source, or a mirror with both its peers; and
//! at a mirror that is (`standing`). Everything is looked at, also after something failed, so that a user
//! sees all of it at once. Nothing is made.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_catalog::drafts::{CheckReport, CheckedColumn, CheckedTable, Draft};
use millrace_catalog::spec::{self as asked, MirrorSpec, PeerConfig, PeerSpec, TableSpec};
use millrace_replication::addresses::AddressRules;
use millrace_replication::clickhouse::{
    Clickhouse, ClickhouseConfig, TableState, checks as clickhouse_checks,
};
use millrace_replication::postgres::check::{self, Purpose, Wanted};
use millrace_replication::postgres::describe::{self, TableShape};
use millrace_replication::postgres::plan::{self, ColumnOptions, Options};
use millrace_replication::postgres::publication::{self, Told};
use millrace_replication::postgres::{self, Session, SourceConfig, orphans, slot};
use millrace_replication::share;
use millrace_replication::table::{Audit, Origin, OwnColumns, TablePlan};
use millrace_replication::types::OnUnrepresentable;
use millrace_terms::check::{Check, Name, Status, Verdict};
use millrace_terms::{Code, Error, Result, TableName};
use millrace_workflows::contract;
use millrace_workflows::payload::CheckInput;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use uuid::Uuid;

use crate::environment::{Environment, plan_value};
use crate::{alive, failure, heirs, peers, slots};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::Check)]
    pub(crate) async fn check(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: CheckInput,
    ) -> Result<(), ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(look(&self.0, &input.draft))).await;
        done.map_err(|error| failure::ended(&ctx, error))
    }
}

async fn look(environment: &Environment, draft: &str) -> Result<()> {
    let malformed = |_| Error::new(Code::InvalidArgument, format!("{draft} is no draft's id"));
    let id: Uuid = draft.parse().map_err(malformed)?;
    let application = environment.catalog.installation().await?.application("check");
    let report = match environment.catalog.open_draft(id).await? {
        Draft::Peer(peer) => look_at_peer(&environment.addresses, &peer, &application).await,
        Draft::Tables(source) => look_at_tables(&environment.addresses, &source, &application).await?,
        Draft::Orphans { source, only_look } => clean_up(environment, &source, only_look).await?,
        Draft::Mirror { mirror, source, destination, former } => {
            let source = source_config(&environment.addresses, &source)?;
            let destination = destination_config(&environment.addresses, &destination)?;
            let peers = (source, destination);
            Box::pin(look_at_mirror(&mirror, peers, former.as_deref(), &application)).await?
        }
        Draft::Stored(mirror) => standing::look(environment, &mirror, &application).await?,
        Draft::Slot { source, slot } => {
            look_at_slot(&environment.addresses, &source, &slot, &application).await?
        }
    };
    environment.catalog.write_draft_result(id, &report).await
}

async fn look_at_peer(addresses: &Arc<AddressRules>, peer: &PeerSpec, application: &str) -> CheckReport {
    let checks = match &peer.config {
        PeerConfig::Postgres(config) => {
            check::source(&peers::source(config, addresses), application, Purpose::Peer).await.0
        }
        PeerConfig::Clickhouse(config) => clickhouse_checks(&peers::destination(config, addresses)).await,
    };
    CheckReport { checks, ..CheckReport::default() }
}

async fn look_at_slot(
    addresses: &Arc<AddressRules>,
    source: &PeerSpec,
    name: &str,
    application: &str,
) -> Result<CheckReport> {
    let source = source_config(addresses, source)?;
    let looked = async {
        let session = postgres::dial(&source, application).await?;
        slot::status(&session, name).await
    };
    Ok(match looked.await {
        Ok(found) => CheckReport { slot: found.map(slots::look), ..CheckReport::default() },
        Err(error) => CheckReport {
            checks: vec![Check::fail(Name::SourceConnection, &error)],
            ..CheckReport::default()
        },
    })
}

/// Every table of users, each with what keeps it from being replicated.
async fn look_at_tables(
    addresses: &Arc<AddressRules>,
    source: &PeerSpec,
    application: &str,
) -> Result<CheckReport> {
    let source = source_config(addresses, source)?;
    let (mut checks, session) = check::source(&source, application, Purpose::Peer).await;
    let mut tables = Vec::new();
    if let Some(session) = session {
        for shape in describe::list(&session).await? {
            let name = shape.name.to_string();
            checks.push(match shape.refusal(&[], false) {
                Some(error) if error.code() == Code::TableWithoutKey => Check::fail(Name::Key, &error),
                Some(error) => Check::fail(Name::Table, &error).on(&name),
                None => Check::pass(Name::Table, "can be replicated").on(&name),
            });
            tables.push(checked(&shape, None));
        }
    }
    Ok(CheckReport { checks, tables, slot: None })
}

/// Removes slots and publications of this installation that no mirror uses, or names them.
async fn clean_up(environment: &Environment, source: &PeerSpec, only_look: bool) -> Result<CheckReport> {
    let installation = environment.catalog.installation().await?;
    let application = installation.application("cleanup");
    let session = postgres::dial(&source_config(&environment.addresses, source)?, &application).await?;
    let made = orphans::list(&session, &installation.prefix()).await?;
    // In this order: a mirror is in the catalog before anything of it is made.
    let left = made.without(&environment.catalog.list_stream_objects().await?);
    let checks = match only_look {
        true => {
            left.names().iter().map(|name| Check::pass(Name::Orphan, "no mirror uses it").on(name)).collect()
        }
        false => left.remove(&session, &application).await,
    };
    Ok(CheckReport { checks, ..CheckReport::default() })
}

async fn look_at_mirror(
    mirror: &MirrorSpec,
    (source, destination): (SourceConfig, ClickhouseConfig),
    former: Option<&[String]>,
    application: &str,
) -> Result<CheckReport> {
    let own = &mirror.settings;
    let slots = if own.slot.is_empty() { own.streams } else { 0 };
    let purpose = match former {
        Some(_) => Purpose::Upkeep,
        None => Purpose::NewMirror { publishes: own.publication.is_empty(), slots },
    };
    let ((mut checks, session), destination_checks) =
        tokio::join!(check::source(&source, application, purpose), clickhouse_checks(&destination));
    let mut tables = Vec::new();
    let mut plans = Vec::new();
    let database = &source.database;
    if let Some(session) = session {
        if !own.slot.is_empty() {
            let slot = slot::verify(&session, &own.slot).await;
            checks.push(Check::of(Name::Slot, &slot, format!("slot {} can be streamed from", own.slot)));
        }
        let (found, shapes) = look_at_shapes(mirror, &session).await?;
        checks.extend(found);
        checks.extend(look_at_heirs(mirror, &shapes));
        for (spec, shape) in with_specs(mirror, &shapes) {
            match plan::plan(shape, &options(mirror, spec, database)) {
                Ok(plan) => {
                    tables.push(checked(shape, Some(plan_value(&plan)?)));
                    checks.push(check::columns(&plan));
                    plans.push(plan);
                }
                // What is wrong with the table itself has been said already.
                Err(_) if shape.refusal(&spec.exclude, spec.append_only).is_some() => {}
                Err(error) => checks.push(Check::fail(Name::Plan, &error).on(shape.name.to_string())),
            }
        }
    }
    checks.extend(look_at_shared(&plans));
    if former.is_none() {
        checks.extend(look_at_streams(own.streams, plans.len()));
    }
    let reachable = destination_checks.iter().all(|check| check.status != Status::Fail);
    checks.extend(destination_checks);
    if reachable {
        checks.extend(look_at_destinations(&destination, &plans, former.unwrap_or_default()).await);
    }
    Ok(CheckReport { checks, tables, slot: None })
}

async fn look_at_shapes(mirror: &MirrorSpec, session: &Session) -> Result<(Vec<Check>, Vec<TableShape>)> {
    let wanted = |spec: &TableSpec| {
        let name = spec.source.parse::<TableName>().ok()?;
        Some(Wanted {
            name,
            exclude: spec.exclude.clone(),
            append_only: spec.append_only,
            merges_heirs: spec.with_children,
        })
    };
    let wanted: Vec<Wanted> = mirror.tables.iter().filter_map(wanted).collect();
    let own = &mirror.settings.publication;
    let (mut checks, shapes) = check::tables(session, &wanted, own.is_empty()).await?;
    if !own.is_empty() {
        let tables: Vec<Told> =
            wanted.into_iter().map(|Wanted { name, exclude, .. }| Told { table: name, exclude }).collect();
        let held = publication::verify(session, own, &tables).await;
        checks.push(Check::of(Name::Publication, &held, format!("publication {own} holds every table")));
    }
    Ok((checks, shapes))
}

/// A table as a publication of the user's must tell of it.
pub(crate) fn told(mirror: &MirrorSpec, table: &TableName) -> Told {
    let source = table.to_string();
    let spec = mirror.tables.iter().find(|spec| spec.source == source);
    Told { table: table.clone(), exclude: spec.map(|spec| spec.exclude.clone()).unwrap_or_default() }
}

/// The shapes that were found, each with what the mirror asks for of it.
fn with_specs<'a>(
    mirror: &'a MirrorSpec,
    shapes: &'a [TableShape],
) -> impl Iterator<Item = (&'a TableSpec, &'a TableShape)> {
    shapes.iter().filter_map(|shape| {
        let asks = |spec: &&TableSpec| spec.source.parse::<TableName>().is_ok_and(|name| name == shape.name);
        Some((mirror.tables.iter().find(asks)?, shape))
    })
}

/// Looks whether rows of an heir would belong to two tables of the mirror.
fn look_at_heirs(mirror: &MirrorSpec, shapes: &[TableShape]) -> Option<Check> {
    let merged = with_specs(mirror, shapes).filter(|(spec, _)| spec.with_children);
    let heirs = merged.map(|(_, shape)| {
        let leaves = shape.leaves.iter().filter(|leaf| leaf.oid != shape.oid);
        (shape.oid, leaves.map(|leaf| (leaf.oid, leaf.name.clone())).collect::<Vec<_>>())
    });
    let names = shapes.iter().map(|shape| (shape.oid, &shape.name)).collect();
    let error = heirs::refuse_shared(&heirs.collect(), &names).err()?;
    Some(Check::fail(Name::Inheritance, &error))
}

/// Looks whether every stream of a new mirror gets a table.
fn look_at_streams(slots: u32, tables: usize) -> Option<Check> {
    let idle = (slots as usize).saturating_sub(tables);
    if tables == 0 || idle == 0 {
        return None;
    }
    let message = format!("{idle} of {slots} streams get no table: each reads the source's log for nothing");
    let error = Error::new(Code::InvalidArgument, message)
        .with_remedy(format!("Set `streams` to {tables}, unless tables are to be added later."));
    Some(Check::new(Name::Streams, Verdict::Warn(error)))
}

/// Looks whether tables of one destination are alike.
fn look_at_shared(plans: &[TablePlan]) -> Vec<Check> {
    let mut first: BTreeMap<&str, &TablePlan> = BTreeMap::new();
    let mut checks = Vec::new();
    for plan in plans {
        let one = *first.entry(&plan.destination).or_insert(plan);
        if one.source != plan.source {
            let fits = share::refuse_unlike(one, plan);
            let message = format!("{} goes to {} with {}", plan.source, plan.destination, one.source);
            checks.push(Check::of(Name::SharedDestination, &fits, message).on(plan.source.to_string()));
        }
    }
    checks
}

/// What the mirror asks for of one of its tables, which is in `database`.
pub(crate) fn options(mirror: &MirrorSpec, spec: &TableSpec, database: &str) -> Options {
    let own = &mirror.settings.columns;
    let column = |column: &millrace_catalog::spec::ColumnSpec| ColumnOptions {
        name: column.name.clone(),
        kind: column.kind.clone(),
    };
    Options {
        destination: spec.destination.clone(),
        exclude: spec.exclude.clone(),
        columns: spec.columns.iter().map(|(name, asked)| (name.clone(), column(asked))).collect(),
        order_by: spec.order_by.clone(),
        partition_by: spec.partition_by.clone(),
        append_only: spec.append_only,
        merges_heirs: spec.with_children,
        on_unrepresentable: match mirror.settings.on_unrepresentable {
            asked::OnUnrepresentable::Error => OnUnrepresentable::Error,
            asked::OnUnrepresentable::Null => OnUnrepresentable::Null,
            asked::OnUnrepresentable::String => OnUnrepresentable::String,
        },
        own: OwnColumns {
            version: own.version.clone(),
            is_deleted: own.is_deleted.clone(),
            synced_at: own.synced_at.clone(),
            source: spec.source_column.then(|| Origin {
                name: own.source.clone(),
                value: format!("{}/{}", mirror.name, spec.source),
            }),
            audit: mirror.settings.audit_columns.then(|| Audit { database: database.to_owned() }),
        },
    }
}

/// Looks whether the destination tables can be made.
async fn look_at_destinations(
    config: &ClickhouseConfig,
    plans: &[TablePlan],
    former: &[String],
) -> Vec<Check> {
    let clickhouse = match Clickhouse::connect(config).await {
        Ok(clickhouse) => clickhouse,
        Err(error) => return vec![Check::fail(Name::DestinationConnection, &error)],
    };
    let mut checks = Vec::with_capacity(plans.len());
    for plan in plans {
        let free = match former.contains(&plan.destination) {
            // The rows are the mirror's own; the copy sweeps those that are stale.
            true => refuse_misfit(&clickhouse, plan).await,
            false => refuse_occupied(&clickhouse, plan).await,
        };
        let message = match free {
            Ok(TableState::Ready) => format!("{} takes the rows", plan.destination),
            _ => format!("{} can be made", plan.destination),
        };
        checks.push(Check::of(Name::DestinationTable, &free, message).on(plan.source.to_string()));
        if let Err(error) = clickhouse.check_partition_by(plan).await {
            checks.push(Check::fail(Name::PartitionBy, &error).on(plan.source.to_string()));
        }
    }
    checks
}

/// Refuses a destination whose table is there and cannot take the rows, or holds some already: they
/// would stay among ours, or be swept away. Gives what is there.
///
/// # Errors
/// DESTINATION_TABLE_EXISTS.
pub(crate) async fn refuse_occupied(clickhouse: &Clickhouse, plan: &TablePlan) -> Result<TableState> {
    if refuse_misfit(clickhouse, plan).await? == TableState::Missing {
        return Ok(TableState::Missing);
    }
    if !clickhouse.holds_rows(plan).await? {
        return Ok(TableState::Ready);
    }
    let text = format!("table {} of database {} holds rows already", plan.destination, clickhouse.database());
    Err(Error::new(Code::DestinationTableExists, text)
        .with("table", plan.source.to_string())
        .with("destination", &plan.destination))
}

/// Refuses a destination whose table is there and cannot take the rows. Gives whether it is there.
///
/// # Errors
/// DESTINATION_TABLE_EXISTS.
async fn refuse_misfit(clickhouse: &Clickhouse, plan: &TablePlan) -> Result<TableState> {
    match clickhouse.table_state(plan).await? {
        TableState::Differs(error) => Err(error),
        fitting => Ok(fitting),
    }
}

fn source_config(addresses: &Arc<AddressRules>, peer: &PeerSpec) -> Result<SourceConfig> {
    match &peer.config {
        PeerConfig::Postgres(config) => Ok(peers::source(config, addresses)),
        PeerConfig::Clickhouse(_) => Err(peers::wrong_kind(&peer.name, "source", "PostgreSQL")),
    }
}

fn destination_config(addresses: &Arc<AddressRules>, peer: &PeerSpec) -> Result<ClickhouseConfig> {
    match &peer.config {
        PeerConfig::Clickhouse(config) => Ok(peers::destination(config, addresses)),
        PeerConfig::Postgres(_) => Err(peers::wrong_kind(&peer.name, "destination", "ClickHouse")),
    }
}

fn checked(shape: &TableShape, plan: Option<serde_json::Value>) -> CheckedTable {
    let name = |at: usize| shape.columns.get(at).map(|column| column.plan.name.clone());
    let key = shape.key().map(|(key, _)| key.into_iter().filter_map(name).collect()).unwrap_or_default();
    let column = |column: &describe::ShapeColumn| CheckedColumn {
        name: column.plan.name.clone(),
        kind: column.type_name.clone(),
        nullable: column.plan.nullable,
    };
    CheckedTable {
        source: shape.name.clone(),
        oid: shape.oid,
        rows_estimated: shape.rows_estimated,
        bytes: shape.bytes,
        plan,
        key,
        columns: shape.columns.iter().map(column).collect(),
    }
}
