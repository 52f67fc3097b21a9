//! `millrace completion` and `millrace man`: what a shell and a manual take from the definition of the
//! command line.
//!
//! I/O rim: writes files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use millrace_terms::{Code, Error};

use crate::client::output;
use crate::examples;

/// Arguments of `millrace completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace completion bash > ~/.local/share/bash-completion/completions/millrace
  millrace completion zsh > ~/.zfunc/_millrace
  millrace completion fish > ~/.config/fish/completions/millrace.fish")]
pub struct CompletionArguments {
    /// Shell that completes
    shell: Shell,
}

/// Arguments of `millrace man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace man ~/.local/share/man/man1 && man millrace-apply")]
pub struct ManArguments {
    /// Directory to write the pages into; made if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the completion script.
///
/// # Errors
/// If stdout fails.
pub fn completion(arguments: CompletionArguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut examples::command(), "millrace", &mut script);
    output::write(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes one page a command.
///
/// # Errors
/// INVALID_ARGUMENT if the directory cannot be written.
pub fn man(arguments: ManArguments) -> anyhow::Result<ExitCode> {
    let dir = arguments.dir;
    let written =
        std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(examples::command(), &dir));
    written.map_err(|error| {
        Error::new(Code::InvalidArgument, format!("{}: {error}", dir.display()))
            .with_remedy("Name a directory that this user may write.")
    })?;
    output::write(&format!("the manual's pages are in {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
