//! `millrace keys`.
//!
//! I/O rim.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_catalog::Catalog;
use millrace_catalog::rotation::KeyUse;
use secrecy::ExposeSecret;

use crate::client::output::{self, Column, grid};
use crate::settings::{CatalogUrl, SecretKeys};

/// Arguments of `millrace keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
To change the key, while everything runs:
  1. Make one:                      millrace keys generate
  2. Give it to every process as the second of MILLRACE_SECRET_KEYS (old,new), so that all can open it.
  3. Give it to every process as the first (new,old), so that all seal with it.
  4. Seal everything anew:          millrace keys rotate
  5. See that the old one is unused (millrace keys list), and leave it out.")]
pub struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Print a new key, as MILLRACE_SECRET_KEYS takes it
    Generate,
    /// Show how much is sealed with which key
    List(CatalogArguments),
    /// Seal everything anew with the first key; may be repeated, and interrupted
    Rotate(CatalogArguments),
}

#[derive(Debug, Args)]
struct CatalogArguments {
    #[command(flatten)]
    catalog: CatalogUrl,
    #[command(flatten)]
    keys: SecretKeys,
}

/// Runs the command.
///
/// # Errors
/// CATALOG_UNREACHABLE; CATALOG_VERSION; SECRET_KEY_MISSING if something is sealed with a key that is not given.
pub async fn run(arguments: KeysArguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        KeysCommand::Generate => output::write(&millrace_catalog::SecretKeys::generate())?,
        KeysCommand::List(arguments) => {
            let (catalog, keys) = arguments.open().await?;
            output::write(&show(&catalog.key_uses().await?, &keys))?;
        }
        KeysCommand::Rotate(arguments) => {
            let (catalog, keys) = arguments.open().await?;
            let sealed = catalog.rotate_keys().await?.into_result()?;
            output::write(&format!("{sealed} sealed anew with {}", keys.current_id()))?;
            output::write(&show(&catalog.key_uses().await?, &keys))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl CatalogArguments {
    async fn open(&self) -> anyhow::Result<(Catalog, millrace_catalog::SecretKeys)> {
        let keys = millrace_catalog::SecretKeys::parse(self.keys.resolve()?.expose_secret())?;
        let catalog = Catalog::connect(self.catalog.resolve()?.expose_secret(), keys.clone()).await?;
        catalog.check_version().await?;
        Ok((catalog, keys))
    }
}

fn show(uses: &[KeyUse], keys: &millrace_catalog::SecretKeys) -> String {
    let role = |id: &str| match keys.ids().position(|known| known == id) {
        Some(0) => "seals",
        Some(_) => "opens",
        None => "MISSING",
    };
    let columns = [Column::Text("KEY"), Column::Text("ROLE"), Column::Number("SEALED WITH IT")];
    let rows = uses
        .iter()
        .map(|used| vec![used.key_id.clone(), role(&used.key_id).to_owned(), used.objects.to_string()]);
    grid(&columns, rows)
}
