//! The command line as it is read: its definition with the examples, and what a context says where
//! neither a flag nor a variable does.
//!
//! I/O rim: reads the arguments, the environment and the file of contexts; what counts is pure.

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};
use millrace_terms::Error;

use crate::arguments::Arguments;
use crate::client::contexts::{Context, Contexts};
use crate::examples;

/// The flag that names a context: commands that have it call a server.
const CONTEXT: &str = "context";
/// The flag that a context stands for first of all.
const ADDRESS: &str = "address";
/// What is no good with the token of a context that was asked for.
const TOKEN: &str = "token";

/// Reads the command line of this process. Ends it where that is wrong, or only help is asked for.
///
/// # Errors
/// INVALID_ARGUMENT if a context is named that is not there, or the file of contexts cannot be read.
pub fn parse() -> Result<Arguments, Error> {
    let mut matches = examples::command().get_matches();
    if calls_server(&examples::command(), &matches) {
        let given = Given::of(deepest(&matches));
        let choice = given.choice();
        // A broken file is of no interest to a command that does not need it.
        let contexts = if choice == Choice::None { Contexts::default() } else { Contexts::load()? };
        let (context, outranks) = match choice {
            Choice::None => (None, false),
            Choice::Named { name, outranks } => (Some(contexts.get(&name)?), outranks),
            Choice::Current => (contexts.current()?, false),
        };
        if let Some(context) = context {
            matches = fill(examples::command(), context, outranks).get_matches();
        }
    }
    Ok(Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

/// Whether the command that was given has the flag of contexts.
fn calls_server(command: &Command, matches: &ArgMatches) -> bool {
    if has(command, CONTEXT) {
        return true;
    }
    let Some((name, matches)) = matches.subcommand() else { return false };
    command.find_subcommand(name).is_some_and(|command| calls_server(command, matches))
}

fn has(command: &Command, id: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == id)
}

fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| deepest(matches))
}

/// What was said about the server.
#[derive(Debug, Clone, Default)]
struct Given {
    address: Option<ValueSource>,
    context: Option<(String, ValueSource)>,
}

/// The context that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// None: the server is named otherwise. A context's token is not for it.
    None,
    /// This one; whether it outranks the environment, too.
    Named { name: String, outranks: bool },
    /// The one in use, if there is one.
    Current,
}

impl Given {
    fn of(matches: &ArgMatches) -> Self {
        let source = |id: &str| matches.value_source(id);
        let context = matches.get_one::<String>(CONTEXT).cloned().zip(source(CONTEXT));
        Self { address: source(ADDRESS), context }
    }

    /// A flag, then the environment, then the context in use.
    fn choice(self) -> Choice {
        let typed = Some(ValueSource::CommandLine);
        match (self.address, self.context) {
            (address, _) if address == typed => Choice::None,
            (_, Some((name, ValueSource::CommandLine))) => Choice::Named { name, outranks: true },
            (Some(ValueSource::EnvVariable), _) => Choice::None,
            (_, Some((name, _))) => Choice::Named { name, outranks: false },
            (_, None) => Choice::Current,
        }
    }
}

/// The definition with what the context says as defaults. If the context outranks the environment, the
/// variables of what it says are not looked at.
fn fill(mut command: Command, context: &Context, outranks: bool) -> Command {
    if has(&command, CONTEXT) {
        let path = |path: &Option<std::path::PathBuf>| Some(path.as_ref()?.display().to_string());
        let values = [
            (ADDRESS, Some(context.address.clone())),
            ("token_file", path(&context.token_file)),
            ("server_ca", path(&context.tls_ca)),
            ("client_cert", path(&context.tls_cert)),
            ("client_key", path(&context.tls_key)),
        ];
        for (id, value) in values {
            let Some(value) = value.filter(|_| has(&command, id)) else { continue };
            // The definition borrows its texts for as long as the process runs.
            let value: &'static str = value.leak();
            command = command.mut_arg(id, |arg| arg.default_value(value));
            let shadowed = if id == "token_file" { vec![id, TOKEN] } else { vec![id] };
            for id in shadowed.into_iter().filter(|id| outranks && has(&command, id)).collect::<Vec<_>>() {
                command = command.mut_arg(id, |arg| arg.env(Resettable::Reset));
            }
        }
    }
    command.mut_subcommands(|sub| fill(sub, context, outranks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_counts_before_the_environment_and_that_before_the_context_in_use() {
        use ValueSource::{CommandLine, DefaultValue, EnvVariable};
        let named = |outranks| Choice::Named { name: "prod".into(), outranks };
        for (address, context, choice) in [
            (DefaultValue, None, Choice::Current),
            (EnvVariable, None, Choice::None),
            (CommandLine, None, Choice::None),
            (DefaultValue, Some(EnvVariable), named(false)),
            (EnvVariable, Some(EnvVariable), Choice::None),
            (EnvVariable, Some(CommandLine), named(true)),
            (CommandLine, Some(CommandLine), Choice::None),
        ] {
            let context = context.map(|source| ("prod".to_owned(), source));
            let given = Given { address: Some(address), context };
            assert_eq!(given.clone().choice(), choice, "{given:?}");
        }
    }

    #[test]
    fn a_context_fills_what_no_flag_says_in_commands_that_call_a_server() {
        let context = Context { name: "prod".into(), address: "http://prod:1".into(), ..Context::default() };
        let read = |line: &[&str]| {
            let command = fill(examples::command(), &context, true);
            let matches = command.try_get_matches_from([&["millrace"][..], line].concat()).unwrap();
            deepest(&matches).get_one::<String>(ADDRESS).cloned()
        };
        assert_eq!(read(&["mirror", "list"]).as_deref(), Some("http://prod:1"));
        assert_eq!(read(&["mirror", "list", "--address", "http://b:2"]).as_deref(), Some("http://b:2"));
        let server = examples::command().try_get_matches_from(["millrace", "context", "list"]).unwrap();
        assert!(!calls_server(&examples::command(), &server));
    }
}
