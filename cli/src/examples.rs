//! Examples at the end of each command's help: those of commands whose definition does not bring its own.
//!
//! Pure.

use clap::{Command, CommandFactory};

use crate::arguments::Arguments;

/// Commands, and what a person types.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("peer cleanup", &["millrace peer cleanup shop-pg --validate-only", "millrace peer cleanup shop-pg"]),
    ("token create", &["millrace token create ci --role operator --expires-in 30d"]),
    ("token list", &["millrace token list"]),
    ("token revoke", &["millrace token revoke ci"]),
    ("keys generate", &["millrace keys generate"]),
    ("keys list", &["millrace keys list"]),
    ("keys rotate", &["MILLRACE_SECRET_KEYS_FILE=/run/secrets/new-and-old millrace keys rotate"]),
    ("demo", &["millrace demo", "millrace demo --once --json"]),
    ("dev", &["millrace dev", "millrace dev --state-dir /tmp/try --workers 2 --restart"]),
    ("peer get", &["millrace peer get shop-pg", "millrace peer get shop-pg -o json"]),
    ("peer list", &["millrace peer list", "millrace peer list -o yaml"]),
    ("peer drop", &["millrace peer drop shop-pg", "millrace peer drop shop-pg --yes"]),
    ("peer validate", &["millrace peer validate shop-pg"]),
    ("peer tables", &["millrace peer tables shop-pg", "millrace peer tables shop-pg --schema public"]),
    (
        "mirror validate",
        &["millrace mirror validate shop --source shop-pg --destination warehouse --table 'public.*'"],
    ),
    ("mirror get", &["millrace mirror get shop", "millrace mirror get shop -o json | jq .state"]),
    ("mirror list", &["millrace mirror list"]),
    ("mirror pause", &["millrace mirror pause shop"]),
    ("mirror resume", &["millrace mirror resume shop"]),
    ("mirror resync", &["millrace mirror resync shop"]),
    ("mirror drop", &["millrace mirror drop shop", "millrace mirror drop shop --drop-destination --yes"]),
    ("mirror watch", &["millrace mirror watch shop", "millrace mirror watch shop -o json"]),
    ("mirror batches", &["millrace mirror batches shop", "millrace mirror batches shop -n 360 -o json"]),
    ("mirror logs", &["millrace mirror logs shop", "millrace mirror logs shop -n 20 --follow"]),
    ("table pause", &["millrace table pause shop public.orders"]),
    ("table resume", &["millrace table resume shop public.orders"]),
    ("table resync", &["millrace table resync shop public.orders"]),
    ("table cancel", &["millrace table cancel shop public.orders"]),
    ("table drop", &["millrace table drop shop 'public.\"Odd Name\"' --drop-destination"]),
    (
        "context add",
        &["millrace context add prod --address https://millrace.example:8112 --token-file ~/.millrace-token"],
    ),
    ("context list", &["millrace context list"]),
    ("context use", &["millrace context use prod"]),
    ("context remove", &["millrace context remove staging"]),
    (
        "server",
        &[
            "MILLRACE_CATALOG_URL=postgresql://... MILLRACE_SECRET_KEYS_FILE=/run/secrets/keys millrace server",
        ],
    ),
    (
        "worker",
        &[
            "MILLRACE_CATALOG_URL=postgresql://... MILLRACE_SECRET_KEYS_FILE=/run/secrets/keys millrace worker",
            "millrace worker --queues snapshot",
        ],
    ),
    ("migrate", &["MILLRACE_CATALOG_URL=postgresql://... millrace migrate"]),
    ("health", &["millrace health http://127.0.0.1:8113/readyz"]),
];

/// The definition of the command line, with the examples.
pub fn command() -> Command {
    EXAMPLES.iter().fold(Arguments::command(), |command, (path, lines)| {
        let text = lines.iter().map(|line| format!("\n  {line}")).collect::<String>();
        with(command, path, format!("Examples:{text}"))
    })
}

fn with(command: Command, path: &str, text: String) -> Command {
    match path.split_once(' ') {
        Some((first, rest)) => command.mut_subcommand(first, |sub| with(sub, rest, text)),
        None => command.mut_subcommand(path, |sub| sub.after_help(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, String)>) {
        let subs: Vec<&Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
        if subs.is_empty() {
            let help = command.get_after_help().or(command.get_after_long_help());
            found.push((path.to_owned(), help.map(ToString::to_string).unwrap_or_default()));
        }
        for sub in subs {
            leaves(sub, format!("{path} {}", sub.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_command_shows_an_example_of_itself() {
        let mut found = Vec::new();
        leaves(&command(), "", &mut found);
        assert!(found.len() > 30, "{found:?}");
        for (path, help) in found {
            assert!(
                help.contains("Example") && help.contains(&format!("millrace {path}")),
                "{path}: {help:?}"
            );
        }
    }
}
