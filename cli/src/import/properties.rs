//! Java's `.properties` files (java.util.Properties, "load").
//!
//! Pure.

use serde_json::{Map, Value};

/// Reads the keys and values of a file. Every text is one: what is malformed is a key without a value.
pub(super) fn read(text: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    for line in logical_lines(text) {
        let (key, value) = split(&line);
        properties.insert(unescape(key), Value::from(unescape(value)));
    }
    properties
}

/// Lines without comments; one that ends with an odd number of backslashes goes on in the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun: Option<String> = None;
    for line in text.lines() {
        let line = line.trim_start();
        if begun.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let mut whole = begun.take().unwrap_or_default();
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            whole.push_str(&line[..line.len() - 1]);
            begun = Some(whole);
        } else {
            whole.push_str(line);
            lines.push(whole);
        }
    }
    lines.extend(begun);
    lines
}

/// Key and value: between them `=`, `:` or blanks, whichever comes first without a backslash.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|c: char| {
        let ends = !is_escaped && (c == '=' || c == ':' || c.is_whitespace());
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    let Some(end) = end else { return (line, "") };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start())
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                plain.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_values_comments_and_continuations_are_read_as_java_does() {
        let text = "# c\n! c\n a.b = x y \nc:d\ne f\n\ng\\:h=1\\\n   2\\u0041\ni\nj=a\\\\.b\\tc\n";
        let read = read(text);
        let pairs: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap())).collect();
        assert_eq!(
            pairs,
            [("a.b", "x y "), ("c", "d"), ("e", "f"), ("g:h", "12A"), ("i", ""), ("j", "a\\.b\tc")]
        );
    }
}
