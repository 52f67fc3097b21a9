//! `millrace mirror update`: tables come and go, settings change.
//!
//! I/O rim.

use clap::Args;
use millrace_proto::v1::{GetMirrorRequest, Mirror, Table, UpdateMirrorRequest};
use millrace_terms::{Code, Error};
use pbjson_types::FieldMask;

use super::create::{LiveSettings, table};
use crate::client::confirm::Confirmation;
use crate::client::output::Output;
use crate::client::{Client, LinkArguments, call, request_id};

/// Arguments of `millrace mirror update`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace mirror update shop --add-table public.returns
  millrace mirror update shop --remove-table public.old --drop-destination
  millrace mirror update shop --flush-interval 1s --parallel-tables 8

The other tables go on. What has no flag here has a key in the file of `millrace apply`.")]
pub(super) struct UpdateArguments {
    /// Name of the mirror
    name: String,
    /// Add a table, perhaps with its name in ClickHouse; or all of a schema: 'public.*'
    #[arg(long = "add-table", value_name = "TABLE[=NAME]")]
    add: Vec<String>,
    /// Remove a table, named as the mirror shows it; its destination table stays
    #[arg(long = "remove-table", value_name = "TABLE")]
    remove: Vec<String>,
    /// Drop the destination tables of the tables that are removed
    #[arg(long, requires = "remove")]
    drop_destination: bool,
    /// Only check; change nothing
    #[arg(long)]
    validate_only: bool,
    /// The mirror must still have this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    settings: LiveSettings,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; `INVALID_ARGUMENT` for a table to be removed that is not in the mirror.
pub(super) async fn run(
    link: &LinkArguments,
    arguments: UpdateArguments,
    output: Output,
) -> anyhow::Result<()> {
    let is_trial = arguments.validate_only;
    if arguments.drop_destination && !is_trial {
        let tables = arguments.remove.join(", ");
        arguments.confirmation.ask(&format!("Drop the destination tables of {tables}?"))?;
    }
    let mut client = Client::connect(link).await?;
    let get = GetMirrorRequest { name: arguments.name.clone() };
    let mirror = client.mirrors.get_mirror(call(get)).await?.into_inner();
    let request = request(&mirror, arguments)?;
    let mirror = client.mirrors.update_mirror(call(request)).await?.into_inner();
    output.print(&mirror, |mirror| match is_trial {
        true => format!("mirror {} can be changed", mirror.name),
        false => {
            format!("mirror {0} updated; follow it with `millrace mirror watch {0}`", mirror.name)
        }
    })
}

/// The request that the arguments stand for. With tables in it, it is only good for the mirror as it
/// was looked at: another change in between is refused, and not undone.
fn request(mirror: &Mirror, arguments: UpdateArguments) -> Result<UpdateMirrorRequest, Error> {
    let (settings, mut paths) = arguments.settings.fields();
    let mut asked =
        Mirror { name: arguments.name, etag: arguments.etag, settings: Some(settings), ..Mirror::default() };
    if !(arguments.add.is_empty() && arguments.remove.is_empty()) {
        asked.tables = tables(mirror, &arguments.add, &arguments.remove)?;
        paths.push("tables".to_owned());
        if asked.etag.is_empty() {
            asked.etag.clone_from(&mirror.etag);
        }
    }
    if paths.is_empty() {
        let error = Error::new(Code::InvalidArgument, "nothing is to be changed");
        return Err(error.with_remedy("Give --add-table, --remove-table or a setting."));
    }
    Ok(UpdateMirrorRequest {
        mirror: Some(asked),
        update_mask: Some(FieldMask { paths }),
        request_id: request_id(),
        validate_only: arguments.validate_only,
        drop_destination: arguments.drop_destination,
    })
}

fn tables(mirror: &Mirror, add: &[String], remove: &[String]) -> Result<Vec<Table>, Error> {
    let mut tables = mirror.tables.clone();
    for source in remove {
        let before = tables.len();
        tables.retain(|table| table.source != source.trim());
        if tables.len() == before {
            let text = format!("--remove-table {source}: mirror {} has no such table", mirror.name);
            return Err(Error::new(Code::InvalidArgument, text).with("table", source));
        }
    }
    for text in add {
        tables.push(table("--add-table", text)?);
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: UpdateArguments,
    }

    fn asked(arguments: &[&str]) -> Result<UpdateMirrorRequest, Error> {
        let table = |source: &str| Table { source: source.into(), ..Table::default() };
        let mirror = Mirror {
            name: "shop".into(),
            etag: "e1".into(),
            tables: vec![table("public.a"), table("public.b")],
            ..Mirror::default()
        };
        let command = Command::try_parse_from(["update", "shop"].iter().chain(arguments)).unwrap();
        request(&mirror, command.arguments)
    }

    #[test]
    fn tables_come_and_go_and_only_what_is_named_is_masked() {
        let request = asked(&["--add-table", "public.c=sea", "--remove-table", "public.a"]).unwrap();
        let mirror = request.mirror.unwrap();
        let names: Vec<&str> = mirror.tables.iter().map(|table| table.source.as_str()).collect();
        assert_eq!((names, mirror.tables[1].destination.as_str()), (vec!["public.b", "public.c"], "sea"));
        assert_eq!((request.update_mask.unwrap().paths, mirror.etag.as_str()), (vec!["tables".into()], "e1"));

        let request = asked(&["--flush-rows", "5", "--parallel-tables", "2"]).unwrap();
        let paths = ["settings.snapshot.parallel_tables", "settings.flush.max_rows"].map(str::to_owned);
        assert_eq!(request.update_mask.unwrap().paths, paths);
        assert_eq!(request.mirror.unwrap().etag, "", "another change may come in between");
    }

    #[test]
    fn what_changes_nothing_or_names_no_table_is_refused() {
        assert!(asked(&[]).is_err());
        let error = asked(&["--remove-table", "public.x"]).unwrap_err();
        assert!(error.message().contains("public.x"), "{error}");
    }
}
