//! What an importer makes: peers, mirrors, and a warning for everything that was not taken over.
//!
//! Pure. No warning holds a value of a key that is not known: it may be a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use millrace_catalog::spec::{MirrorSpec, Mode, PeerConfig, PeerSpec, Settings, TableSpec};
use millrace_terms::TableName;
use serde_json::{Map, Value};

/// Characters of a name at most, as the API takes it.
const NAME_CHARS_MAX: usize = 40;

/// What is said of a key of which nothing else is known.
const UNKNOWN: &str = "has no counterpart and is left out";

/// A key, or several that begin alike (`key*`), and what there is instead. Nothing is said where that is
/// empty: the key decides nothing here.
pub(super) type Hint = (&'static str, &'static str);

/// Peers and mirrors in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) peers: Vec<PeerSpec>,
    pub(super) mirrors: Vec<MirrorSpec>,
    pub(super) warnings: Vec<Warning>,
}

/// Something that was not taken over, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warning {
    subject: String,
    text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "warning: {}: {}", self.subject, self.text)
    }
}

impl Draft {
    /// Tells of something that was not taken over.
    pub(super) fn warn(&mut self, subject: &str, text: impl Into<String>) {
        self.warnings.push(Warning { subject: subject.to_owned(), text: text.into() });
    }

    /// The name by which an object is known here.
    pub(super) fn rename(&mut self, kind: &str, name: &str) -> String {
        let renamed = self::name(name);
        if renamed != name && !self.warnings.iter().any(|w| w.subject == format!("{kind} {name}")) {
            self.warn(&format!("{kind} {name}"), format!("is called {renamed} here"));
        }
        renamed
    }

    /// Tells of the peers that mirrors name and that the input does not hold.
    pub(super) fn warn_of_missing_peers(&mut self) {
        let named = self.mirrors.iter().flat_map(|mirror| [&mirror.source, &mirror.destination]);
        let mut missing: Vec<String> =
            named.filter(|name| !self.peers.iter().any(|peer| peer.name == **name)).cloned().collect();
        missing.sort();
        missing.dedup();
        for name in missing {
            let text = "is not in the input: add it to the file, or store it by `millrace peer create`";
            self.warn(&format!("peer {name}"), text);
        }
    }
}

/// A name as the API takes it: lower-case letters, digits and dashes, the first one a letter.
pub(super) fn name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    let name = name.trim_matches('-');
    let name = if name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.to_owned()
    } else {
        format!("m-{name}")
    };
    name.chars().take(NAME_CHARS_MAX).collect::<String>().trim_end_matches('-').to_owned()
}

/// A table named `schema.table` without quotes, as SQL writes it.
pub(super) fn table_name(text: &str) -> String {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    TableName::new(schema, name).to_string()
}

/// A peer.
pub(super) fn peer(name: String, config: PeerConfig) -> PeerSpec {
    PeerSpec { name, config }
}

/// A mirror with all defaults.
pub(super) fn mirror(
    name: String,
    source: String,
    destination: String,
    tables: Vec<TableSpec>,
) -> MirrorSpec {
    MirrorSpec { name, source, destination, mode: Mode::default(), tables, settings: Settings::default() }
}

/// The keys of one object of another tool, taken one by one, so that none is lost without a word.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// What the object is, in warnings.
    pub(super) subject: String,
    values: BTreeMap<String, Value>,
}

impl Keys {
    pub(super) fn new(subject: impl Into<String>, object: Map<String, Value>) -> Self {
        Self { subject: subject.into(), values: object.into_iter().collect() }
    }

    /// Whether the key is there, with more than nothing.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| !is_nothing(value))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key).filter(|value| !value.is_null())
    }

    /// A text, number or truth value as text; none if it is empty.
    pub(super) fn take_text(&mut self, key: &str) -> Option<String> {
        let text = match self.take(key)? {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            other => {
                self.values.insert(key.to_owned(), other);
                return None;
            }
        };
        Some(text).filter(|text| !text.is_empty())
    }

    pub(super) fn take_bool(&mut self, key: &str) -> bool {
        self.take_text(key).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// A number above 0, held within the limits.
    pub(super) fn take_number<T>(&mut self, key: &str, limits: (T, T), draft: &mut Draft) -> Option<T>
    where
        T: FromStr + Ord + Copy + fmt::Display,
    {
        let text = self.take_text(key).filter(|text| text != "0")?;
        let (least, most) = limits;
        let Ok(number) = text.parse::<T>() else {
            let subject = self.of(key);
            draft.warn(&subject, "is no number that can be taken over, and is left out");
            return None;
        };
        let held = number.clamp(least, most);
        if held != number {
            let subject = self.of(key);
            draft.warn(&subject, format!("is {held} here: it has to be {least} to {most}"));
        }
        Some(held)
    }

    /// A list; a single value is a list of one.
    pub(super) fn take_list(&mut self, key: &str) -> Vec<Value> {
        match self.take(key) {
            Some(Value::Array(items)) => items,
            Some(value) => vec![value],
            None => Vec::new(),
        }
    }

    /// An object's keys; none if it is empty.
    pub(super) fn take_object(&mut self, key: &str) -> Option<Keys> {
        match self.take(key)? {
            Value::Object(object) if !object.is_empty() => Some(Keys::new(self.of(key), object)),
            _ => None,
        }
    }

    /// Tells of every key that was not taken and that says something, with what there is instead.
    pub(super) fn finish(self, hints: &[Hint], draft: &mut Draft) {
        for (key, value) in &self.values {
            if is_nothing(value) {
                continue;
            }
            let text =
                hints.iter().find(|(pattern, _)| is_meant(pattern, key)).map_or(UNKNOWN, |(_, text)| *text);
            if !text.is_empty() {
                let subject = self.of(key);
                draft.warn(&subject, text);
            }
        }
    }

    /// A key, as warnings name it.
    pub(super) fn of(&self, key: &str) -> String {
        format!("{}: {key}", self.subject)
    }
}

fn is_meant(pattern: &str, key: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == key, |start| key.starts_with(start))
}

/// What every tool writes for "not set".
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_such_as_the_api_takes() {
        let names =
            [("shop", "shop"), ("My_Mirror", "my-mirror"), ("_a__b_", "a-b"), ("9to5", "m-9to5"), ("", "m")];
        for (given, name) in names {
            assert_eq!(super::name(given), name, "{given}");
        }
        assert_eq!(super::name(&"x".repeat(60)).len(), NAME_CHARS_MAX);
        assert_eq!(table_name("public.Odd Name"), "public.\"Odd Name\"");
    }

    #[test]
    fn what_is_not_taken_is_told_without_its_value() {
        let object = serde_json::json!({"a": "hunter2", "b": 0, "c.d": true, "e": 99, "f": "x"});
        let Value::Object(object) = object else { panic!() };
        let mut keys = Keys::new("mirror shop", object);
        let mut draft = Draft::default();
        assert_eq!(keys.take_number("e", (1, 64), &mut draft), Some(64));
        keys.finish(&[("c.*", "is always so"), ("f", "")], &mut draft);
        let texts: Vec<String> = draft.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "warning: mirror shop: e: is 64 here: it has to be 1 to 64",
                "warning: mirror shop: a: has no counterpart and is left out",
                "warning: mirror shop: c.d: is always so",
            ]
        );
    }
}
