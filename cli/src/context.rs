//! `millrace context`: servers by name, so that an address need not be typed.
//!
//! I/O rim; what is shown is pure.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_terms::{Code, Error};
use serde::Serialize;

use crate::client::contexts::{Context, Contexts};
use crate::client::output::{Column, Output, grid};

/// Arguments of `millrace context`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace context add prod --address https://millrace.example:8112 --token-file ~/.millrace-token
  millrace context use prod
  millrace mirror list --context staging

What counts, in this order: --address, --context, MILLRACE_ADDRESS, MILLRACE_CONTEXT, the context in use. An address that does not
come from a context is called without the token of one.")]
pub struct ContextArguments {
    #[command(subcommand)]
    command: ContextCommand,
    /// Form of the result on stdout
    #[arg(short, long, global = true, value_name = "FORM", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Add a context, or replace the one of that name; the first one is in use
    Add(AddArguments),
    /// List the contexts
    List,
    /// Use a context where none is named
    Use(Named),
    /// Remove a context
    Remove(Named),
}

#[derive(Debug, Args)]
struct AddArguments {
    /// Name of the context
    name: String,
    /// URL of the server's gRPC; https:// for TLS
    #[arg(long, value_name = "URL")]
    address: String,
    /// File that holds the API token
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// File of authorities (PEM) to trust instead of the system's
    #[arg(long, value_name = "PATH")]
    tls_ca: Option<PathBuf>,
    /// File of the client certificate (PEM), for a server that asks for one
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File of the client certificate's key (PEM)
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the context
    name: String,
}

/// A context, and whether it is in use.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    context: &'a Context,
    current: bool,
}

/// Runs the command.
///
/// # Errors
/// INVALID_ARGUMENT if the address is no URL, there is no context of that name, or the file of contexts
/// cannot be read or written.
pub fn run(arguments: ContextArguments) -> anyhow::Result<ExitCode> {
    let mut contexts = Contexts::load()?;
    let (name, text) = match arguments.command {
        ContextCommand::List => {
            arguments.output.print(&shown(&contexts), |shown| table(shown))?;
            return Ok(ExitCode::SUCCESS);
        }
        ContextCommand::Add(add) => {
            let context = add.context()?;
            let name = context.name.clone();
            contexts.put(context);
            let used = if contexts.current == name { ", and in use" } else { "" };
            (name.clone(), format!("context {name} is stored{used}"))
        }
        ContextCommand::Use(Named { name }) => {
            contexts.select(&name)?;
            (name.clone(), format!("context {name} is in use"))
        }
        ContextCommand::Remove(Named { name }) => {
            contexts.remove(&name)?;
            contexts.save()?;
            arguments.output.print(&shown(&contexts), |_| format!("context {name} is removed"))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    contexts.save()?;
    let context = contexts.get(&name)?;
    let shown = Shown { context, current: contexts.current == name };
    arguments.output.print(&shown, |_| text)?;
    Ok(ExitCode::SUCCESS)
}

impl AddArguments {
    fn context(self) -> Result<Context, Error> {
        if !self.address.starts_with("http://") && !self.address.starts_with("https://") {
            let error = Error::new(Code::InvalidArgument, format!("--address {}: not a URL", self.address));
            return Err(error
                .with_remedy("Give a URL such as http://127.0.0.1:8112 or https://millrace.example:8112."));
        }
        // Commands run anywhere.
        let absolute = |path: Option<PathBuf>| path.map(|path| std::path::absolute(&path).unwrap_or(path));
        Ok(Context {
            name: self.name,
            address: self.address,
            token_file: absolute(self.token_file),
            tls_ca: absolute(self.tls_ca),
            tls_cert: absolute(self.tls_cert),
            tls_key: absolute(self.tls_key),
        })
    }
}

fn shown(contexts: &Contexts) -> Vec<Shown<'_>> {
    let is_current = |context: &Context| context.name == contexts.current;
    contexts.contexts.iter().map(|context| Shown { context, current: is_current(context) }).collect()
}

fn table(contexts: &[Shown<'_>]) -> String {
    if contexts.is_empty() {
        return "no contexts; add one by `millrace context add NAME --address URL`".to_owned();
    }
    let columns =
        [Column::Text(""), Column::Text("NAME"), Column::Text("ADDRESS"), Column::Text("TOKEN FILE")];
    let rows = contexts.iter().map(|shown| {
        let token = shown.context.token_file.as_ref().map(|path| path.display().to_string());
        vec![
            if shown.current { "*" } else { "" }.to_owned(),
            shown.context.name.clone(),
            shown.context.address.clone(),
            token.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    grid(&columns, rows)
}
