//! The publication of a mirror: which tables the source tells of. I/O.
//!
//! It is committed before the slot is created and never dropped under a live slot, because the server
//! looks it up as of the change that it decodes. Partitions are published as themselves
//! (`publish_via_partition_root = false`): published as their root, a TRUNCATE of one partition
//! would not be told.

use std::time::Duration;

use millrace_terms::{Code, Error, Result, TableName, quote_ident};

use super::{Session, from_sql};

/// How long one attempt to lock a table may hold up others who want it.
const LOCK_TIMEOUT: &str = "2s";
/// How often a lock is tried for before the caller is told who holds it back.
const LOCK_ATTEMPTS: u32 = 10;
/// Pause between two attempts, so that those who queued behind ours get through.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// From this release on a publication may hold stored generated columns (`server_version_num`).
const SENDS_GENERATED_COLUMNS: u32 = 180_000;

const FIND: &str = "
select p.oid, coalesce(pg_catalog.obj_description(p.oid, 'pg_publication'), ''), p.puballtables,
       p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate, p.pubviaroot
  from pg_catalog.pg_publication p where p.pubname = $1";

/// What it holds: roots of partitioned tables as themselves. `to_jsonb`, because filters and lists of
/// columns are there from PostgreSQL 15 on.
const TABLES: &str = "
select n.nspname, c.relname, to_jsonb(r) ->> 'prqual' is not null,
       case when to_jsonb(r) ->> 'prattrs' is null then '{}' else array(
         select a.attname::text from pg_catalog.pg_attribute a
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and a.attnum::text <> all (string_to_array(translate(to_jsonb(r) ->> 'prattrs', '[],', ''), ' '))) end
  from pg_catalog.pg_publication_rel r
  join pg_catalog.pg_class c on c.oid = r.prrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where r.prpubid = $1";

/// Schemas whose tables it holds, whatever they are.
const SCHEMAS: &str = "
select n.nspname from pg_catalog.pg_publication_namespace r
  join pg_catalog.pg_namespace n on n.oid = r.pnnspid where r.pnpubid = $1";

/// From this release on a publication may hold whole schemas.
const HOLDS_SCHEMAS: u32 = 150_000;

/// Makes sure that the mirror's own publication exists and holds the tables, and that this is
/// committed. May be repeated. `mark` is the publication's comment: it tells ours from others'.
/// Returns whether it was made now.
///
/// # Errors
/// `SLOT_EXISTS` if a publication of the name is not ours, `SOURCE_PERMISSION` (only a table's owner
/// may publish it), `SOURCE_TABLE_MISSING`, `SOURCE_BLOCKED` and those of [`from_sql`].
pub async fn ensure(session: &Session, name: &str, mark: &str, tables: &[TableName]) -> Result<bool> {
    let Some(found) = find(session, name).await? else {
        create(session, name, mark, tables).await?;
        return Ok(true);
    };
    if found.comment != mark || found.all_tables || !found.complete || found.via_root {
        return Err(Error::new(
            Code::SlotExists,
            format!("the source has a publication {name} that this mirror did not make"),
        )
        .with("publication", name)
        .with_remedy(format!("Run `DROP PUBLICATION {};` if nobody uses it.", quote_ident(name))));
    }
    for table in tables.iter().filter(|table| !found.holds(table)) {
        add(session, name, table).await?;
    }
    Ok(false)
}

/// A table that a publication made by the user must tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The table.
    pub table: TableName,
    /// Columns that are not replicated: the publication may leave them out.
    pub exclude: Vec<String>,
}

/// Verifies that a publication made by the user tells everything of the tables.
///
/// # Errors
/// `PUBLICATION_MISSING` if it does not exist, does not hold a table, or leaves something out of it.
pub async fn verify(session: &Session, name: &str, tables: &[Told]) -> Result<()> {
    let missing = |why: String, remedy: String| {
        Err(Error::new(Code::PublicationMissing, why).with("publication", name).with_remedy(remedy))
    };
    let quoted = quote_ident(name);
    let Some(found) = find(session, name).await? else {
        let list: Vec<String> = tables.iter().map(|told| told.table.to_sql()).collect();
        return missing(
            format!("the source has no publication {name}"),
            format!("Run `CREATE PUBLICATION {quoted} FOR TABLE {};`.", list.join(", ")),
        );
    };
    if !found.complete || found.via_root {
        return missing(
            format!("the publication {name} leaves out operations, or publishes partitions as their root"),
            format!(
                "Run `ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = false);`."
            ),
        );
    }
    for Told { table, exclude } in tables {
        let held = found.tables.iter().find(|held| held.name == *table);
        if held.is_some_and(|held| held.is_filtered) {
            return missing(
                format!("the publication {name} has a row filter for {table}"),
                "Remove the filter from the publication: the copy would hold the rows that it leaves out."
                    .into(),
            );
        }
        let untold = held.map_or(&[][..], |held| &held.untold);
        let untold: Vec<&str> =
            untold.iter().filter(|column| !exclude.contains(column)).map(String::as_str).collect();
        if !untold.is_empty() {
            return missing(
                format!("the publication {name} leaves out columns of {table}: {}", untold.join(", ")),
                format!("Exclude them: `exclude: [{}]`; or add them to the publication.", untold.join(", ")),
            );
        }
        if !found.all_tables && held.is_none() && !found.schemas.contains(&table.schema) {
            return missing(
                format!("the publication {name} does not hold {table}"),
                format!("Run `ALTER PUBLICATION {quoted} ADD TABLE {};`.", table.to_sql()),
            );
        }
    }
    Ok(())
}

/// Adds a table under a lock that keeps writers out for a moment: servers before 14.18, 15.13, 16.9
/// and 17.5 otherwise lose later changes of a table that is being written to.
///
/// # Errors
/// `SOURCE_BLOCKED` if the lock was not to be had, and those of [`from_sql`].
pub async fn add(session: &Session, name: &str, table: &TableName) -> Result<()> {
    let sql = format!(
        "set local lock_timeout = '{LOCK_TIMEOUT}';
         lock table only {table} in share row exclusive mode;
         alter publication {name} add table only {table}",
        table = table.to_sql(),
        name = quote_ident(name)
    );
    let added = patiently(session, "adding a table to the publication", &sql).await;
    added.map_err(|error| error.with("table", table.to_string()))
}

/// Takes a table out. Nothing happens if it is not in, or if either does not exist any more.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn remove(session: &Session, name: &str, table: &TableName) -> Result<()> {
    match find(session, name).await? {
        Some(found) if found.holds(table) => {
            let sql = format!("alter publication {} drop table only {}", quote_ident(name), table.to_sql());
            transact(session, "taking a table out of the publication", &sql).await
        }
        _ => Ok(()),
    }
}

/// Drops the mirror's own publication, and leaves another's alone.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn drop(session: &Session, name: &str, mark: &str) -> Result<()> {
    match find(session, name).await? {
        Some(found) if found.comment == mark => {
            let sql = format!("drop publication if exists {}", quote_ident(name));
            transact(session, "dropping the publication", &sql).await
        }
        _ => Ok(()),
    }
}

/// A publication as the source has it.
struct Found {
    comment: String,
    all_tables: bool,
    /// Whether it tells of every operation.
    complete: bool,
    via_root: bool,
    /// Schemas that it holds as a whole.
    schemas: Vec<String>,
    tables: Vec<Held>,
}

/// A table that a publication names.
struct Held {
    name: TableName,
    /// Whether only some rows are told of.
    is_filtered: bool,
    /// Columns that are not told of.
    untold: Vec<String>,
}

impl Found {
    fn holds(&self, table: &TableName) -> bool {
        self.tables.iter().any(|held| held.name == *table)
    }
}

async fn find(session: &Session, name: &str) -> Result<Option<Found>> {
    let failed = |error| from_sql("reading the publication", &error);
    let Some(row) = session.query_opt(FIND, &[&name]).await.map_err(failed)? else { return Ok(None) };
    let tables = session.query(TABLES, &[&row.get::<_, u32>(0)]).await.map_err(failed)?;
    let table = |row: &tokio_postgres::Row| Held {
        name: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
        is_filtered: row.get(2),
        untold: row.get(3),
    };
    let schemas = match session.version().await? >= HOLDS_SCHEMAS {
        true => session.query(SCHEMAS, &[&row.get::<_, u32>(0)]).await.map_err(failed)?,
        false => Vec::new(),
    };
    Ok(Some(Found {
        comment: row.get(1),
        all_tables: row.get(2),
        complete: row.get(3),
        via_root: row.get(4),
        schemas: schemas.iter().map(|row| row.get(0)).collect(),
        tables: tables.iter().map(table).collect(),
    }))
}

async fn create(session: &Session, name: &str, mark: &str, tables: &[TableName]) -> Result<()> {
    let list: Vec<String> = tables.iter().map(|table| format!("only {}", table.to_sql())).collect();
    // A publication of no tables is valid: the first table of a mirror may be added later.
    let list = if list.is_empty() { String::new() } else { format!("for table {}", list.join(", ")) };
    let name = quote_ident(name);
    // Older servers never send generated columns: they are read from the source instead.
    let generated = match session.version().await? >= SENDS_GENERATED_COLUMNS {
        true => ", publish_generated_columns = stored",
        false => "",
    };
    // A statement whose client has gone does not wait for ever, to make it when nobody wants it.
    let sql = format!(
        "set local lock_timeout = '{LOCK_TIMEOUT}';
         create publication {name} {list} with (publish = 'insert, update, delete, truncate', \
         publish_via_partition_root = false{generated});
         comment on publication {name} is '{}'",
        mark.replace('\'', "''")
    );
    let publish = |error: Error| match error.code() {
        Code::SourcePermission => {
            let tables: Vec<String> = tables.iter().map(TableName::to_sql).collect();
            error.with_remedy(format!(
                "Make the peer's user a member of the tables' owner and run `GRANT CREATE ON DATABASE ... TO ...;`, or as the owner run `CREATE PUBLICATION my_publication FOR TABLE {};` and set `publication: my_publication` for the mirror.",
                tables.join(", ")
            ))
        }
        _ => error,
    };
    patiently(session, "creating the publication", &sql).await.map_err(publish)
}

/// As [`transact`], for statements that wait for a lock for a while: they are tried again.
async fn patiently(session: &Session, doing: &str, sql: &str) -> Result<()> {
    let mut attempt = 1;
    loop {
        match transact(session, doing, sql).await {
            Err(error) if error.code() == Code::SourceBlocked && attempt < LOCK_ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Runs statements in one transaction.
async fn transact(session: &Session, doing: &str, sql: &str) -> Result<()> {
    match session.batch_execute(&format!("begin; {sql}; commit")).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // If this fails too, the session is broken, and the server rolls back by itself.
            let _ = session.batch_execute("rollback").await;
            Err(from_sql(doing, &error))
        }
    }
}
