//! The documentation is true: generated pages are what the code would generate, links lead somewhere,
//! and states are those of the API. `UPDATE_DOCS=1` writes the generated pages.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use millrace::{environment, examples, failure};
use millrace_proto::v1;
use millrace_replication::stream::schema_changes as schema_changes_table;
use millrace_replication::types::reference;
use millrace_terms::check::{Name, Scope};
use millrace_terms::{Class, Code, EventCode};

use crate::{path, read};

/// Put under the title of every generated page.
pub const GENERATED: &str = "Generated from the code; a test compares. To update: `UPDATE_DOCS=1 cargo test -p millrace --test repository`.";

/// Compares a generated page, or writes it.
pub fn check(page: &str, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path(page), expected).unwrap();
        return;
    }
    let found = read(page);
    if let Some((number, (old, new))) =
        found.lines().zip(expected.lines()).enumerate().find(|(_, (old, new))| old != new)
    {
        panic!("{page}:{} is\n{old}\nand should be\n{new}\n{GENERATED}", number + 1);
    }
    assert!(found == expected, "{page} has another length than it should have. {GENERATED}");
}

#[test]
fn schema_changes() {
    let mut page = format!("# Schema changes\n\n{GENERATED}\n\n");
    page.push_str(
        "What happens when a table changes on the source while it is replicated. A change is seen with the table's next row in the log, \
         and followed in the order of the log; only its own table waits. PostgreSQL says nothing of it before: until the next row, and for good where none \
         follows, the destination table has the columns of before, and their values are right. A resync follows it at once. Every change is an event of the mirror (`millrace mirror logs NAME`) \
         with the code below.\n\n\
         Two settings decide what the log does not tell:\n\n\
         - `on_column_dropped`: `keep` (default) or `drop`.\n\
         - `on_rewrite`, where the source wrote all rows anew, perhaps with other values: `resync` (default) copies the table again by itself, \
         `error` puts it into ERROR until it is resynced, `keep` leaves the rows as they are.\n\n\
         Columns are followed by their number and tables by their OID, not by name. A stream that is behind sees the source's catalog of a later \
         time; where it then cannot be told which column a name means, the table is copied again.\n\n\
         A table may change while it is being copied, too: the copy reads its columns by their numbers and leaves to the stream what came later. \
         Only a column that gets another type ends the copy; the table is copied anew then, by `on_rewrite: resync`, or goes to ERROR. \
         One that changed before its copy began to read is planned anew in any case. A part of a table (`partition_bytes`) in which a column was renamed \
         while it was read is read once more: a copy ends when renames are further apart than that takes.\n\n\
         | On the source | What happens | Code |\n|---|---|---|\n",
    );
    for line in schema_changes_table() {
        let code = if line.code.is_empty() {
            String::new()
        } else {
            format!("`{}`", line.code.replace(", ", "`, `"))
        };
        writeln!(page, "| {} | {} | {code} |", line.statement, line.effect).unwrap();
    }
    check("docs/reference/schema-changes.md", &page);
}

#[test]
fn checks() {
    let mut page = format!("# Checks\n\n{GENERATED}\n\n");
    page.push_str(
        "What `millrace doctor`, `peer validate`, `mirror validate` and every creation look at. Names are stable. A check comes out as `PASS`, `WARN` \
         (it works, but something will hurt) or `FAIL` (it cannot work); one that did not pass says what was seen, a [code](errors.md) and what mends it, \
         as the very statement where there is one. Nothing is made or changed by a check, on neither side.\n",
    );
    for (scope, title) in [
        (Scope::Installation, "The installation"),
        (Scope::Source, "A source"),
        (Scope::SourceTable, "A table of a source"),
        (Scope::Destination, "A destination"),
        (Scope::DestinationTable, "A table of a destination"),
        (Scope::Mirror, "A mirror that exists"),
    ] {
        write!(page, "\n## {title}\n\n| Check | What has to be so |\n|---|---|\n").unwrap();
        for name in Name::ALL.iter().filter(|name| name.scope() == scope) {
            writeln!(page, "| `{name}` | {} |", name.summary()).unwrap();
        }
    }
    check("docs/reference/checks.md", &page);
}

#[test]
fn event_codes() {
    let mut page = format!("# Event codes\n\n{GENERATED}\n\n");
    page.push_str(
        "Every event of a mirror (`millrace mirror logs NAME`, `ListMirrorEvents`) has a code, by which it can be filtered. What went wrong has the code of \
         the [error](errors.md), with severity `WARNING` or `ERROR`. What is as it should be has severity `INFO` and one of these. Codes are never renamed and never reused.\n\n\
         | Code | What happened |\n|---|---|\n",
    );
    for code in EventCode::ALL {
        writeln!(page, "| `{code}` | {} |", code.summary()).unwrap();
    }
    check("docs/reference/events.md", &page);
}

#[test]
fn error_codes() {
    let mut page = format!("# Error codes\n\n{GENERATED}\n\n");
    page.push_str(
        "The same code stands in gRPC's `ErrorInfo.reason`, in the CLI's output, in states, events, logs, and as the type of a failed \
         activity in Temporal. Codes are never renamed and never reused.\n\n\
         **Class** decides the gRPC status. **Exit** is the CLI's exit code. **Retried**: the same call may succeed later with nothing changed \
         by a person, so the workers go on trying by themselves.\n",
    );
    for code in Code::ALL {
        let retried = if code.is_retryable() { "yes" } else { "no" };
        write!(
            page,
            "\n## {code}\n\n{summary}\n\n{remedy}\n\nClass {class} · exit {exit} · retried: {retried}\n",
            summary = code.summary(),
            remedy = code.remedy(),
            class = class_name(code.class()),
            exit = failure::exit_code(code.class()),
        )
        .unwrap();
    }
    check("docs/reference/errors.md", &page);
}

/// As gRPC writes it.
fn class_name(class: Class) -> String {
    let mut name = String::new();
    for c in format!("{class:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[test]
fn environment_variables() {
    let mut page = format!("# Environment variables\n\n{GENERATED}\n\n");
    page.push_str(
        "Every setting is a flag and an environment variable of the same name; a flag outranks its variable. A secret can be given as the path of \
         a file, too (`*_FILE`); one of the two, not both.\n\n| Variable | Read by | Default | Meaning |\n|---|---|---|---|\n",
    );
    for variable in environment::variables().values() {
        let everywhere = variable.commands.contains_key("");
        let commands: Vec<_> = variable.commands.keys().filter(|name| !name.contains(' ')).cloned().collect();
        let read_by = if everywhere { "all".to_owned() } else { commands.join(", ") };
        let mut defaults: Vec<_> =
            variable.commands.values().flatten().map(|value| format!("`{value}`")).collect();
        defaults.dedup();
        let secret = if variable.is_secret { " Secret." } else { "" };
        let help = variable.help.trim_end_matches('.');
        writeln!(page, "| `{}` | {read_by} | {} | {help}.{secret} |", variable.name, defaults.join(", "))
            .unwrap();
    }
    page.push_str("\nWhat a process cannot start without, one of each line:\n\n");
    for command in ["server", "worker", "migrate"] {
        for alternatives in environment::required(command) {
            let alternatives: Vec<_> = alternatives.iter().map(|name| format!("`{name}`")).collect();
            writeln!(page, "- {command}: {}", alternatives.join(" or ")).unwrap();
        }
    }
    check("docs/reference/environment.md", &page);
}

#[test]
fn command_line() {
    let mut page = format!("# Command line\n\n{GENERATED}\n\n");
    page.push_str(
        "| Exit code | Meaning |\n|---|---|\n| 0 | Done. |\n| 1 | A defect, or anything not foreseen. |\n\
         | 2 | The request is wrong: malformed, not found, exists already, or something is not as it must be. |\n\
         | 3 | The environment is: unreachable, unauthenticated, denied. |\n\
         | 4 | `diff` found differences. |\n\n\
         An error is written to stderr as its cause, the remedy and the [code](errors.md).\n",
    );
    let mut command = examples::command().term_width(100);
    command.build();
    render(&command, "", &mut page);
    check("docs/reference/cli.md", &page);
}

fn render(command: &clap::Command, parents: &str, page: &mut String) {
    let name = format!("{parents}{}", command.get_name());
    let is_root = parents.is_empty();
    let mut shown = command.clone().term_width(100).bin_name(&name).mut_args(|arg| {
        // What all commands have is said once; and the page must not hold this machine's environment.
        let is_common = arg.is_global_set() || ["help", "version"].contains(&arg.get_id().as_str());
        arg.hide_env_values(true).hide(is_common && !is_root)
    });
    let help = shown.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()).unwrap();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        render(sub, &format!("{name} "), page);
    }
}

#[test]
fn states_are_those_of_the_api() {
    let page = read("docs/reference/states.md");
    let names = (1..=16).flat_map(|n| {
        let mirror = v1::mirror::State::try_from(n).ok().map(|state| state.as_str_name());
        let table = v1::table::State::try_from(n).ok().map(|state| state.as_str_name());
        [mirror, table].into_iter().flatten()
    });
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "docs/reference/states.md lacks {name}");
    }
}

#[test]
fn types() {
    let mut page = format!("# Types\n\n{GENERATED}\n\n{TYPES}\n");
    page.push_str(
        "| PostgreSQL | ClickHouse | Forms | Remarks | Cannot be held | Under `string` | May be chosen |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for entry in reference::entries() {
        let codes =
            |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let cells = [
            codes(&entry.types),
            format!("`{}`", entry.clickhouse_type),
            if entry.binary { "both" } else { "text" }.to_owned(),
            entry.remark.to_owned(),
            entry.refused.clone(),
            entry.as_string.iter().map(|name| format!("`{name}`")).collect(),
            codes(&entry.choices),
        ];
        writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    check("docs/reference/types.md", &page);
}

/// What holds for all types.
const TYPES: &str = "\
Domains are replicated as the type below them, with its modifiers; enums, arrays and everything else as this page says. A nullable column \
is `Nullable(T)`, and NULL stays NULL. ClickHouse's arrays cannot be Nullable: their elements are, and a NULL array is the empty one.

Nothing is clamped, zeroed or cut. What happens to a value that the ClickHouse type cannot hold is the mirror's setting `on_unrepresentable`, \
by which its tables are made:

- `error` (the default): the table goes into `ERROR` with [`VALUE_UNREPRESENTABLE`](errors.md), the others go on.
- `null`: columns of the types that cannot hold everything are `Nullable`, and such a value becomes NULL. An element of an array becomes NULL by itself, \
an array of other dimensions than declared becomes the empty one. The values are counted by column: `nulled` of the table (`mirror get`), the metric `millrace_nulled_values_total`, and at most once an hour an event.
- `string`: columns of these types are made as the last column but one says; they hold PostgreSQL's own text. Arrays stay arrays, their elements become `String`; one of other dimensions is still refused.

Columns of ORDER BY, which holds the key, always follow `error`: different keys would become one.

PostgreSQL does not hold an array to the dimensions that its column declares; a ClickHouse type has to. A column declared `int[][]` is `Array(Array(Nullable(Int32)))`, one declared `int[]` \
(or made by `CREATE TABLE AS`) is `Array(Nullable(Int32))`. For values of another depth, choose `Array(Array(Int32))`, or `String`, which holds any.

A type can be chosen for each column (`columns: {total: {type: \"Decimal(18,4)\"}}`) among those in the last column. Others are refused, \
because they would lose something silently. A value that the chosen type cannot hold (`1.005` for `Decimal(18,2)`) is refused as above; the choice outranks the policy `string`. \
`JSON` is parsed by ClickHouse, which refuses what is not an object and keeps neither order nor spelling. Times are in UTC: the zone of a ClickHouse type only changes what is shown, \
and for a `timestamp` it would show other digits than the source's.

A stream is read in binary form if all columns of all its tables can be; otherwise in text form. The copy reads each column in the best form.
";

#[test]
fn links_lead_somewhere() {
    let mut pages = vec![path("README.md"), path("ARCHITECTURE.md"), path("CONTRIBUTING.md")];
    collect_pages(&path("docs"), &mut pages);
    assert!(pages.len() > 10);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(page.parent().unwrap().join(file).exists(), "{}: {target}", page.display());
        }
    }
}

fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_pages(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}
