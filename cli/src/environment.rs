//! The table of all environment variables that the binary knows. It is read off the definition of
//! the command line, so that `--help`, the documentation and the compose file's test cannot differ.
//!
//! Pure.

use std::collections::BTreeMap;

use clap::{Arg, Command, CommandFactory};

use crate::arguments::Arguments;

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name, `MILLRACE_...`.
    pub name: String,
    /// The flag of the same meaning, without dashes.
    pub flag: String,
    /// What it does: the flag's help.
    pub help: String,
    /// Whether its value is a secret, and never shown.
    pub is_secret: bool,
    /// The commands that read it, such as `server`, with the default of each.
    pub commands: BTreeMap<String, Option<String>>,
}

/// Every environment variable, by name.
pub fn variables() -> BTreeMap<String, Variable> {
    let mut found = BTreeMap::new();
    walk(&built(), "", &mut |path, command| {
        for arg in command.get_arguments() {
            if let Some(name) = variable_of(arg) {
                let variable = found.entry(name.clone()).or_insert_with(|| describe(name, arg));
                variable.commands.insert(path.to_owned(), default_of(arg));
            }
        }
    });
    found
}

/// What a command cannot start without: for each group, one of the variables must be given.
pub fn required(command: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    walk(&built(), "", &mut |path, definition| {
        if path != command {
            return;
        }
        for group in definition.get_groups().filter(|group| group.is_required_set()) {
            let ids: Vec<_> = group.get_args().collect();
            let members = definition.get_arguments().filter(|arg| ids.contains(&arg.get_id()));
            found.push(members.filter_map(variable_of).collect());
        }
        let alone = definition.get_arguments().filter(|arg| arg.is_required_set());
        found.extend(alone.filter_map(variable_of).map(|name| vec![name]));
    });
    found
}

fn built() -> Command {
    let mut command = Arguments::command();
    command.build();
    command
}

/// Visits every command with its path, such as `mirror create`; the root's is empty. Hidden ones are
/// left out: only our own processes start them.
fn walk(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Command)) {
    visit(path, command);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let path =
            if path.is_empty() { sub.get_name().to_owned() } else { format!("{path} {}", sub.get_name()) };
        walk(sub, &path, visit);
    }
}

fn variable_of(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

fn default_of(arg: &Arg) -> Option<String> {
    arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned())
}

fn describe(name: String, arg: &Arg) -> Variable {
    Variable {
        name,
        flag: arg.get_long().unwrap_or_default().to_owned(),
        help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        is_secret: arg.is_hide_env_values_set(),
        commands: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_the_upper_case_of_its_flag() {
        let variables = variables();
        assert!(variables.len() >= 12, "{variables:?}");
        for (name, variable) in &variables {
            let flag = variable.flag.to_uppercase().replace('-', "_");
            // Flags of `peer create` have short names.
            assert!(
                *name == format!("MILLRACE_{flag}") || *name == format!("MILLRACE_PEER_{flag}"),
                "{name}"
            );
            assert!(!variable.help.is_empty(), "{name}");
        }
    }

    #[test]
    fn server_and_worker_cannot_start_without_catalog_and_keys() {
        let catalog = vec!["MILLRACE_CATALOG_URL".to_owned(), "MILLRACE_CATALOG_URL_FILE".to_owned()];
        let keys = vec!["MILLRACE_SECRET_KEYS".to_owned(), "MILLRACE_SECRET_KEYS_FILE".to_owned()];
        assert_eq!(required("server"), [catalog.clone(), keys.clone()]);
        assert_eq!(required("worker"), [catalog.clone(), keys]);
        assert_eq!(required("migrate"), [catalog]);
    }

    #[test]
    fn every_secret_can_be_given_as_a_file() {
        let variables = variables();
        for variable in variables.values().filter(|variable| variable.is_secret) {
            assert!(variables.contains_key(&format!("{}_FILE", variable.name)), "{}", variable.name);
        }
    }
}
