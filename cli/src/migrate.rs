//! `millrace migrate`.
//!
//! I/O rim: wiring only.

use std::process::ExitCode;

use clap::Args;
use clap::builder::FalseyValueParser;
use millrace_catalog::tokens::{self, AdminToken};
use secrecy::ExposeSecret;

use crate::client::output;
use crate::settings::{AdminTokenArguments, CatalogUrl};

/// Arguments of `millrace migrate`.
#[derive(Debug, Args)]
pub struct MigrateArguments {
    #[command(flatten)]
    catalog: CatalogUrl,
    #[command(flatten)]
    admin_token: AdminTokenArguments,
    /// Make no admin token: the server is to run with --insecure-no-auth
    #[arg(long, env = "MILLRACE_INSECURE_NO_AUTH", value_parser = FalseyValueParser::new())]
    insecure_no_auth: bool,
}

/// Brings the catalog's schema to what this release needs, and sees that there is an admin token. Several at
/// once are safe: they take turns.
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
    if arguments.insecure_no_auth {
        return Ok(ExitCode::SUCCESS);
    }
    let given = arguments.admin_token.resolve()?;
    match tokens::ensure_admin_token(url.expose_secret(), given.as_ref()).await? {
        AdminToken::Made(token) => {
            output::write("admin token, shown this once (pass it by MILLRACE_TOKEN or --token):")?;
            output::write(token.expose_secret())?;
        }
        AdminToken::Given => output::write("the given admin token is stored")?,
        AdminToken::Kept => {}
    }
    Ok(ExitCode::SUCCESS)
}
