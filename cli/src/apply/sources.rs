//! The files of one `apply`, merged into one document.
//!
//! I/O rim: reads files, stdin and environment variables.

use std::io::Read;
use std::path::Path;

use millrace_terms::{Code, Error};
use secrecy::ExposeSecret;

use super::substitute::{Reference, substitute};
use crate::failure::Failure;
use crate::settings::read_secret_file;

/// Bytes of a file at most: the server takes 2 MiB.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// Name by which stdin is asked for.
const STDIN: &str = "-";

/// The merged document, and where its lines come from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    document: String,
    /// Name of each file, and the number of its first line in the document, from 1.
    files: Vec<(String, u64)>,
}

/// Reads the files and replaces the references in them.
///
/// # Errors
/// INVALID_ARGUMENT, naming the file.
pub(super) fn read(files: &[String]) -> Result<Sources, Error> {
    let mut sources = Sources::default();
    for file in files {
        let text = read_file(file)?;
        let name = shown(file);
        sources.add(name, &text).map_err(|error| error.context(name))?;
    }
    if sources.files.is_empty() {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("{}: there is nothing in it", files.iter().map(|file| shown(file)).collect::<Vec<_>>().join(", ")),
        )
        .with_remedy(
            "Write `peers:` and `mirrors:`; to drop everything say so by `peers: []`, with --prune and --prune-all.",
        ));
    }
    Ok(sources)
}

/// What messages call a file.
fn shown(file: &str) -> &str {
    if file == STDIN { "stdin" } else { file }
}

impl Sources {
    pub(super) fn document(&self) -> &str {
        &self.document
    }

    fn add(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let done = substitute(text, look_up)?;
        if !done.has_content {
            return Ok(());
        }
        if !self.document.is_empty() && !done.has_start {
            self.document.push_str("---\n");
        }
        let line = 1 + self.document.matches('\n').count() as u64;
        self.files.push((name.to_owned(), line));
        self.document.push_str(&done.text);
        if !done.text.ends_with('\n') {
            self.document.push('\n');
        }
        Ok(())
    }

    /// Names the file, and the line in it, where the server named a line of the document.
    pub(super) fn locate(&self, mut failure: Failure) -> Failure {
        let Some(line) = failure.line else { return failure };
        let Some((name, first)) = self.files.iter().rfind(|(_, first)| *first <= line) else {
            return failure;
        };
        let own = line + 1 - first;
        let message = failure.message.replacen(&format!("line {line}"), &format!("line {own}"), 1);
        failure.message = format!("{name}: {message}");
        failure
    }
}

/// Reads a file, - for stdin.
///
/// # Errors
/// INVALID_ARGUMENT, naming the file.
pub(crate) fn read_file(name: &str) -> Result<String, Error> {
    let failed = |why: String| {
        Error::new(Code::InvalidArgument, format!("{name}: {why}"))
            .with_remedy("Check the path, and that this user may read the file; - stands for stdin.")
    };
    let mut text = String::new();
    let read = if name == STDIN {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(name).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    let size = read.map_err(|error| failed(error.to_string()))?;
    if size as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn look_up(reference: &Reference<'_>) -> Result<String, Error> {
    match reference {
        Reference::File(path) => Ok(read_secret_file(Path::new(path))?.expose_secret().to_owned()),
        Reference::Variable(name) => std::env::var(name).map_err(|_| {
            Error::new(
                Code::InvalidArgument,
                format!("the environment variable {name} is not set, or is not UTF-8"),
            )
            .with_remedy(format!("Set {name}, or take the reference out of the file."))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_terms::Class;

    #[test]
    fn files_are_merged_and_errors_name_their_file_and_line() {
        let mut sources = Sources::default();
        sources.add("a.yaml", "peers:\n- name: a").unwrap();
        sources.add("empty.yaml", "# nothing\n").unwrap();
        sources.add("b.yaml", "# b\n---\nmirrors:\n- name: b\n  sauce: c\n").unwrap();
        sources.add("c.yaml", "peers: []\n").unwrap();
        assert_eq!(
            sources.document(),
            "peers:\n- name: a\n# b\n---\nmirrors:\n- name: b\n  sauce: c\n---\npeers: []\n"
        );
        let failure = Failure {
            code: "INVALID_ARGUMENT".into(),
            class: Class::InvalidArgument,
            message: "line 7, column 3: unknown key `sauce`".into(),
            remedy: None,
            faults: Vec::new(),
            line: Some(7),
        };
        assert_eq!(sources.locate(failure).message, "b.yaml: line 5, column 3: unknown key `sauce`");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(&["/no/such.yaml".to_owned()]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with("/no/such.yaml: "), "{error}");
    }
}
