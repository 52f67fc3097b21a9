//! `millrace migrate`.
//!
//! I/O rim: wiring only.

use std::process::ExitCode;

use clap::Args;
use millrace_terms::{Code, Error};

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
/// What `millrace_catalog::migrate` fails with.
pub async fn run(_arguments: MigrateArguments) -> anyhow::Result<ExitCode> {
    Err(Error::new(Code::Unimplemented, "`millrace migrate` is not built yet").into())
}
