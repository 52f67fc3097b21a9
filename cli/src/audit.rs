//! `millrace audit`.
//!
//! I/O rim; a line is pure.

use std::process::ExitCode;

use clap::Args;
use millrace_proto::v1::{AuditEntry, ListAuditEntriesRequest, ListAuditEntriesResponse};

use crate::client::output::{Column, grid};
use crate::client::{Client, ClientArguments, call, figures};

/// Entries per call.
const PAGE_SIZE: i32 = 1_000;

/// Arguments of `millrace audit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Request, and the object before and after, are in -o json and -o yaml.

Examples:
  millrace audit
  millrace audit --subject mirrors/shop -o yaml
  millrace audit --caller ci -n 20")]
pub struct AuditArguments {
    /// Only calls of the token of this name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    caller: String,
    /// Only calls about this object, such as mirrors/shop, peers/pg or tokens/ci
    #[arg(long, value_name = "OBJECT", default_value = "", hide_default_value = true)]
    subject: String,
    /// Entries at most, the newest ones
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: AuditArguments) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(&arguments.client.link).await?;
    let mut all = ListAuditEntriesResponse::default();
    loop {
        let request = ListAuditEntriesRequest {
            caller: arguments.caller.clone(),
            subject: arguments.subject.clone(),
            page_size: PAGE_SIZE.min(i32::try_from(arguments.limit).unwrap_or(PAGE_SIZE)),
            page_token: std::mem::take(&mut all.next_page_token),
        };
        let page = client.access.list_audit_entries(call(request)).await?.into_inner();
        all.entries.extend(page.entries);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.entries.len() >= arguments.limit {
            break;
        }
    }
    all.entries.truncate(arguments.limit);
    all.next_page_token.clear();
    arguments.client.output.print(&all, |all| show(&all.entries))?;
    Ok(ExitCode::SUCCESS)
}

fn show(entries: &[AuditEntry]) -> String {
    let columns = ["TIME", "CALLER", "METHOD", "OBJECT", "OUTCOME", "REQUEST"].map(Column::Text);
    let rows = entries.iter().map(|entry| {
        vec![
            figures::time(entry.time.as_ref()),
            entry.caller.clone(),
            entry.method.clone(),
            entry.subject.clone(),
            entry.code.clone(),
            entry.request_id.clone(),
        ]
    });
    grid(&columns, rows)
}
