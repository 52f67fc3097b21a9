//! `millrace migrate`.
//!
//! I/O rim: wiring only.

use std::process::ExitCode;

use clap::Args;
use secrecy::ExposeSecret;

use crate::client::output;
use crate::settings::CatalogUrl;

/// Arguments of `millrace migrate`.
#[derive(Debug, Args)]
pub struct MigrateArguments {
    #[command(flatten)]
    catalog: CatalogUrl,
}

/// Brings the catalog's schema to what this release needs. Several at once are safe: they take turns.
///
/// # Errors
/// CATALOG_UNREACHABLE; CATALOG_VERSION if the catalog is newer than this release.
pub async fn run(arguments: MigrateArguments) -> anyhow::Result<ExitCode> {
    let url = arguments.catalog.resolve()?;
    let done = millrace_catalog::migrate(url.expose_secret()).await?;
    let from = match done.from {
        from if from == done.to => "as before".to_owned(),
        0 => "new".to_owned(),
        from => format!("was {from}"),
    };
    output::write(&format!("catalog at version {} ({from}), installation {}", done.to, done.installation))?;
    Ok(ExitCode::SUCCESS)
}
