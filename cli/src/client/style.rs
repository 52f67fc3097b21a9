//! Colours: only on a terminal, and never where `NO_COLOR` (<https://no-color.org>) asks for none.
//!
//! I/O rim: looks at the streams and the environment.

use std::io::IsTerminal;

/// How text is painted, if at all.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    is_on: bool,
}

/// What a colour says.
#[derive(Debug, Clone, Copy)]
pub enum Tone {
    /// Comes into being.
    Good,
    /// Changes.
    Notable,
    /// Goes, or fails.
    Bad,
}

impl Paint {
    /// For stdout.
    pub fn stdout() -> Self {
        Self { is_on: std::io::stdout().is_terminal() && is_wanted() }
    }

    /// For stderr.
    pub fn stderr() -> Self {
        Self { is_on: std::io::stderr().is_terminal() && is_wanted() }
    }

    /// Never.
    pub fn none() -> Self {
        Self { is_on: false }
    }

    /// Whether anything is painted.
    pub fn is_on(self) -> bool {
        self.is_on
    }

    /// The text in its colour (ECMA-48, select graphic rendition).
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.is_on => return text.to_owned(),
            Tone::Good => "32",
            Tone::Notable => "33",
            Tone::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn is_wanted() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_painted_only_where_it_may_be() {
        assert_eq!(Paint::none().paint(Tone::Bad, "gone"), "gone");
        assert_eq!(Paint { is_on: true }.paint(Tone::Bad, "gone"), "\x1b[1;31mgone\x1b[0m");
    }
}
