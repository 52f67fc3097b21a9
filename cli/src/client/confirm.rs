//! Questions before what cannot be undone: asked of a person at a terminal, and of nobody else.
//!
//! I/O rim.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use millrace_terms::{Code, Error};

/// Whether a command asks.
#[derive(Debug, Clone, Args)]
pub struct Confirmation {
    /// Do not ask; without a terminal nothing asks anyway
    #[arg(short, long)]
    yes: bool,
}

impl Confirmation {
    /// Whether [`Self::ask`] would ask.
    pub fn asks(&self) -> bool {
        !self.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks, if there is a person to ask.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the answer is not yes.
    pub fn ask(&self, question: &str) -> Result<(), Error> {
        if !self.asks() {
            return Ok(());
        }
        // A terminal that is gone has no answer either.
        let _gone = write!(std::io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        let _gone = std::io::stdin().lock().read_line(&mut answer);
        match is_yes(&answer) {
            true => Ok(()),
            false => Err(Error::new(Code::InvalidArgument, "not confirmed: nothing was changed")
                .with_remedy("Answer y, or pass --yes.")),
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        for (answer, yes) in
            [("y\n", true), (" YES \n", true), ("\n", false), ("", false), ("yesterday", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer}");
        }
    }
}
