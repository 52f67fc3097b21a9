//! `${NAME}` and `${file:/path}` in a document's values, so that no secret need stand in the file.
//!
//! `$${` stands for `${` itself.
//!
//! A reference is replaced within the parsed value, which is then written back as one YAML string: a
//! secret with quotes, colons or line ends in it stays one value. Lines keep their numbers, because
//! the server's errors name them.
//!
//! Pure: the caller looks the references up.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};
use millrace_terms::{Code, Error};

/// What stands between `${` and `}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// An environment variable.
    Variable(&'a str),
    /// The content of a file.
    File(&'a str),
}

/// A document with its references replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Substituted {
    pub(super) text: String,
    /// Whether it begins with a `---` of its own.
    pub(super) has_start: bool,
    /// Whether there is anything but comments in it.
    pub(super) has_content: bool,
}

/// Replaces the references in the values of a document. Keys and comments are left alone.
///
/// # Errors
/// INVALID_ARGUMENT with the line, if the text is no YAML, or a reference is malformed or cannot be
/// looked up.
pub(super) fn substitute(
    text: &str,
    look_up: impl Fn(&Reference<'_>) -> Result<String, Error>,
) -> Result<Substituted, Error> {
    let mut result =
        Substituted { text: String::with_capacity(text.len()), has_start: false, has_content: false };
    let mut copied_to = 0;
    let mut position = Position::default();
    for event in Parser::new_from_str(text) {
        // The parser's own words may quote the text, and with it a secret.
        let (event, span) = event.map_err(|error| {
            at_line(error.marker().line(), "this is not YAML")
                .with_remedy("Look at this line and the one above it for quotes, brackets and indentation.")
        })?;
        if let Event::DocumentStart(is_explicit, _) = &event {
            result.has_start |= *is_explicit && !result.has_content;
            result.has_content = true;
        }
        let is_value = position.advance(&event);
        let Event::Scalar(value, style, ..) = &event else { continue };
        if !is_value || !value.contains("${") {
            continue;
        }
        let line = span.start.line();
        // A block's indentation would have to go into every line of what is put there.
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            return Err(at_line(line, "a reference cannot stand in a block of text (| or >)")
                .with_remedy("Write the value in double quotes, on one line."));
        }
        let range = span.byte_range().ok_or_else(|| at_line(line, "this value cannot be replaced"))?;
        let replaced =
            replace(value, &look_up).map_err(|error| error.context(format_args!("line {line}")))?;
        result.text.push_str(&text[copied_to..range.start]);
        result.text.push_str(&scalar(&replaced, is_whole(value)));
        keep_lines(&text[range.clone()], &mut result.text);
        copied_to = range.end;
    }
    result.text.push_str(&text[copied_to..]);
    Ok(result)
}

fn at_line(line: usize, what: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("line {line}: {what}"))
}

/// As many line ends as the replaced text had.
fn keep_lines(old: &str, text: &mut String) {
    text.extend(old.chars().filter(|c| *c == '\n'));
}

/// A value as YAML. A number or a truth value that was wholly given by a reference stays one: where
/// the field is text, it is read as text all the same.
fn scalar(value: &str, is_whole: bool) -> String {
    /// Digits of the longest number that every reader holds.
    const DIGITS_MAX: usize = 18;
    let is_number = matches!(value.as_bytes(), [b'0'] | [b'1'..=b'9', ..])
        && value.len() <= DIGITS_MAX
        && value.bytes().all(|b| b.is_ascii_digit());
    if is_whole && (is_number || value == "true" || value == "false") {
        return value.to_owned();
    }
    // A JSON string is a double-quoted YAML scalar (YAML 1.2, section 1.3).
    serde_json::Value::from(value).to_string()
}

/// Whether the value is one reference and nothing else.
fn is_whole(value: &str) -> bool {
    matches!(find(value), Ok(Some(Found::Reference(range))) if range == (0..value.len()))
}

/// What is first in a value beside plain text.
enum Found {
    /// A reference, braces included.
    Reference(Range<usize>),
    /// `$${`, which stands for `${`.
    Escaped(Range<usize>),
}

/// The first of them; none if there is nothing but plain text.
fn find(value: &str) -> Result<Option<Found>, Error> {
    let Some(start) = value.find("${") else { return Ok(None) };
    if value[..start].ends_with('$') {
        return Ok(Some(Found::Escaped(start - 1..start + 2)));
    }
    let end = value[start..].find('}').ok_or_else(malformed)?;
    Ok(Some(Found::Reference(start..start + end + 1)))
}

fn replace(value: &str, look_up: &impl Fn(&Reference<'_>) -> Result<String, Error>) -> Result<String, Error> {
    let mut replaced = String::new();
    let mut rest = value;
    while let Some(found) = find(rest)? {
        let (Found::Reference(range) | Found::Escaped(range)) = &found;
        replaced.push_str(&rest[..range.start]);
        match &found {
            Found::Reference(range) => {
                replaced.push_str(&look_up(&parse(&rest[range.start + 2..range.end - 1])?)?);
            }
            Found::Escaped(_) => replaced.push_str("${"),
        }
        rest = &rest[range.end..];
    }
    replaced.push_str(rest);
    Ok(replaced)
}

fn parse(inner: &str) -> Result<Reference<'_>, Error> {
    if let Some(path) = inner.strip_prefix("file:").filter(|path| !path.is_empty()) {
        return Ok(Reference::File(path));
    }
    let mut bytes = inner.bytes();
    let is_name = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name { Ok(Reference::Variable(inner)) } else { Err(malformed()) }
}

fn malformed() -> Error {
    Error::new(Code::InvalidArgument, "a reference in a value is malformed").with_remedy(
        "Write ${NAME} for a variable, ${file:/path} for the content of a file, $${ for ${ itself.",
    )
}

/// Where in the nest of collections the parser is: it tells values from keys.
#[derive(Debug, Default)]
struct Position {
    stack: Vec<Collection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collection {
    Sequence,
    MappingAtKey,
    MappingAtValue,
}

impl Position {
    /// Takes note of an event; whether it is a value, and no key.
    fn advance(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::SequenceStart(..) => {
                self.step();
                self.stack.push(Collection::Sequence);
                true
            }
            Event::MappingStart(..) => {
                self.step();
                self.stack.push(Collection::MappingAtKey);
                true
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.stack.pop();
                true
            }
            Event::Scalar(..) | Event::Alias(..) => self.step(),
            _ => true,
        }
    }

    /// One node more in the innermost collection; whether it is a value.
    fn step(&mut self) -> bool {
        let Some(innermost) = self.stack.last_mut() else { return true };
        let was = *innermost;
        *innermost = match was {
            Collection::Sequence => Collection::Sequence,
            Collection::MappingAtKey => Collection::MappingAtValue,
            Collection::MappingAtValue => Collection::MappingAtKey,
        };
        was != Collection::MappingAtKey
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn with(text: &str, value: &str) -> Result<Substituted, Error> {
        substitute(text, |reference| match reference {
            Reference::Variable("X") => Ok(value.to_owned()),
            Reference::File("/run/x") => Ok(format!("file {value}")),
            other => Err(Error::new(Code::InvalidArgument, format!("{other:?} is not set"))),
        })
    }

    fn parsed(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn references_in_values_are_replaced_in_every_style() {
        let text = "a: ${X}\nb: \"<${X}>\" # ${X}\nc: ['${X}', {d: \"${file:/run/x}\"}]\n${X}: e\nf: \"one ${X}\n\n  two\"\ng: h\n";
        let done = with(text, "p\"w: #1\n'").unwrap();
        let value = parsed(&done.text);
        assert_eq!(value["a"], "p\"w: #1\n'");
        assert_eq!(value["b"], "<p\"w: #1\n'>");
        assert_eq!(value["c"][0], "p\"w: #1\n'");
        assert_eq!(value["c"][1]["d"], "file p\"w: #1\n'");
        assert_eq!(value["${X}"], "e");
        assert_eq!(value["f"], "one p\"w: #1\n'\ntwo");
        assert_eq!(value["g"], "h");
        let line = |text: &str| text.lines().position(|line| line == "g: h");
        assert_eq!(line(&done.text), line(text), "{}", done.text);
    }

    #[test]
    fn a_doubled_dollar_stands_for_itself() {
        let text = "a: $${X}\nb: \"$${ and ${X}\"\nc: $$\nd: $${\ne: 'cost: $5, $$${X}'\n";
        let value = parsed(&with(text, "7").unwrap().text);
        assert_eq!((&value["a"], &value["b"]), (&"${X}".into(), &"${ and 7".into()));
        assert_eq!(
            (&value["c"], &value["d"], &value["e"]),
            (&"$$".into(), &"${".into(), &"cost: $5, $${X}".into())
        );
    }

    #[test]
    fn numbers_stay_numbers_and_are_text_where_text_is_wanted() {
        let done = with("port: \"${X}\"\npassword: ${X}\nname: \"db-${X}\"\n", "5432").unwrap();
        #[derive(serde::Deserialize)]
        struct Peer {
            port: u16,
            password: String,
            name: String,
        }
        let peer: Peer = serde_saphyr::from_str(&done.text).unwrap();
        assert_eq!((peer.port, peer.password.as_str(), peer.name.as_str()), (5432, "5432", "db-5432"));
        assert_eq!(parsed(&with("a: ${X}", "007").unwrap().text)["a"], "007");
        assert_eq!(parsed(&with("a: ${X}", "null").unwrap().text)["a"], "null");
    }

    #[test]
    fn what_cannot_be_replaced_names_its_line() {
        for bad in [
            "a: b\nc: ${Y}",
            "a: b\nc: \"${}\"",
            "a: b\nc: \"${X\"",
            "a: b\nc: \"${file:}\"",
            "a: b\nc: ${a b}",
            "a: b\nc: [\n",
        ] {
            let error = with(bad, "hunter2").unwrap_err();
            assert!(
                error.message().starts_with("line 2") || error.message().starts_with("line 3"),
                "{error}"
            );
        }
    }

    #[test]
    fn starts_and_emptiness_are_told() {
        let told = |text: &str| with(text, "").map(|done| (done.has_start, done.has_content)).unwrap();
        assert_eq!(told("# only\n"), (false, false));
        assert_eq!(told("a: b\n---\nc: d\n"), (false, true));
        assert_eq!(told("# x\n---\na: b\n"), (true, true));
    }

    proptest! {
        #[test]
        fn any_secret_stays_one_value(secret in any::<String>()) {
            for text in ["{a: \"${X}\", b: c}", "a: ${X}\nb: c", "a: '${X}'\nb: c"] {
                let value = parsed(&with(text, &secret).unwrap().text);
                let found = value["a"].as_str().map_or_else(|| value["a"].to_string(), str::to_owned);
                prop_assert_eq!(&found, &secret);
                prop_assert_eq!(&value["b"], "c");
            }
        }
    }
}
