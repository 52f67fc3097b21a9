//! What a person sees while something is fetched or built: a bar on a terminal, else plain lines.
//! All of it goes to stderr; stdout belongs to results.
//!
//! I/O rim.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws of a spinner. Slower looks stuck, faster is of no use.
const TICK: Duration = Duration::from_millis(120);

/// A piece of work that takes long enough to be shown.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: Cow<'static, str>,
    is_terminal: bool,
}

impl Progress {
    /// Shows work of `total` bytes, or of unknown length.
    pub fn start(what: impl Into<Cow<'static, str>>, total: Option<u64>) -> Self {
        let what = what.into();
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal {
            line(&format!("{what} ..."));
            return Self { bar: ProgressBar::hidden(), what, is_terminal };
        }
        let (bar, template) = match total {
            Some(bytes) => {
                (ProgressBar::new(bytes), "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
            }
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {elapsed}"),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.clone());
        if total.is_none() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, what, is_terminal }
    }

    /// More bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// The number of bytes became known.
    pub fn set_total(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    /// Begins again, after a failed try.
    pub fn reset(&self) {
        self.bar.set_position(0);
    }

    /// The work is done.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        if self.is_terminal {
            line(&format!("{}: done", self.what));
        }
    }
}

/// One line to stderr. A closed stderr is no reason to stop.
fn line(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}
