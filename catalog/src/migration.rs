//! Brings the catalog's schema up to date. The rules for changes are in `migrations/README.md`.

use millrace_terms::{Code, Error, Result};
use tokio_postgres::Client;

use crate::connection::{self, Catalog};
use crate::errors;
use crate::names::Installation;
use crate::sql::{self, Columns};

mod embedded {
    refinery::embed_migrations!("../migrations");
}

/// The advisory lock that lets one process migrate at a time: `millrace` in ASCII.
const LOCK: i64 = 0x6d69_6c6c_7261_6365;

/// What [`migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The version found; 0 for an empty database.
    pub from: u32,
    /// The version that the schema has now.
    pub to: u32,
    /// The installation, made by the first migration.
    pub installation: Installation,
}

/// The version of the schema that this release needs.
pub fn version_needed() -> u32 {
    let versions = embedded::migrations::runner();
    let newest = versions.get_migrations().iter().map(|migration| migration.version()).max();
    newest.and_then(|version| u32::try_from(version).ok()).unwrap_or(0)
}

/// Applies the migrations that are missing. Several processes may call it at once: one works, the
/// others wait for it. Each migration is a transaction, so that a killed process leaves no half.
///
/// # Errors
/// CATALOG_VERSION if the catalog is newer than this release, or was made by altered migrations.
pub async fn migrate(url: &str) -> Result<Migrated> {
    let mut client = connection::dial(url).await?;
    // The lock is the session's: it goes with the connection, whatever happens to this process.
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await.map_err(errors::database)?;
    let from = version_found(&client).await?;
    let to = version_needed();
    if from > to {
        return Err(Error::new(
            Code::CatalogVersion,
            format!("the catalog is at version {from}, this release knows versions up to {to}"),
        ));
    }
    embedded::migrations::runner().run_async(&mut client).await.map_err(failed)?;
    let row = client.query_one("select id from installation", &[]).await.map_err(errors::database)?;
    Ok(Migrated { from, to, installation: Installation(Columns(&row).text("id")?) })
}

/// The newest migration that was applied; 0 for none. Migrations run in order, so it stands for all.
async fn version_found(client: &Client) -> Result<u32> {
    // In two steps: a table that is not there cannot be named in a statement.
    let exists =
        client.query_one("select to_regclass('refinery_schema_history') is not null as it", &[]).await;
    if !Columns(&exists.map_err(errors::database)?).get("it")? {
        return Ok(0);
    }
    let row = client.query_one(VERSION, &[]).await.map_err(errors::database)?;
    Columns(&row).number("version")
}

const VERSION: &str = "select coalesce(max(version), 0)::integer as version from refinery_schema_history";

fn failed(error: refinery::Error) -> Error {
    use refinery::error::Kind;
    match error.kind() {
        Kind::DivergentVersion(applied, _) | Kind::MissingVersion(applied) => Error::new(
            Code::CatalogVersion,
            format!("the catalog was made by another form of migration {applied}"),
        ),
        Kind::Connection(what, cause) => {
            let error = Error::new(Code::CatalogError, what.clone());
            // The driver's words for an answer of the server are "db error"; the answer is its cause.
            match cause.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error()) {
                Some(answer) => {
                    error.context(format!("{} (SQLSTATE {})", answer.message(), answer.code().code()))
                }
                None => error.context(cause),
            }
        }
        _ => errors::internal(format!("migrations: {error}")),
    }
}

impl Catalog {
    /// Sees that the schema is at least what this release needs. A newer one is right: migrations
    /// keep the release before running.
    ///
    /// # Errors
    /// CATALOG_VERSION if it is older.
    pub async fn check_version(&self) -> Result<()> {
        let client = self.client().await?;
        let found = match sql::one(&client, VERSION, &[]).await {
            Ok(row) => Columns(&row).number("version")?,
            // There is no history: nothing was ever migrated.
            Err(error) if error.code() == Code::CatalogVersion => 0,
            Err(error) => return Err(error),
        };
        let needed = version_needed();
        if found >= needed {
            return Ok(());
        }
        Err(Error::new(
            Code::CatalogVersion,
            format!("the catalog is at version {found}, this release needs version {needed}"),
        )
        .with_remedy("Run `millrace migrate` with MILLRACE_CATALOG_URL of this catalog."))
    }
}
