//! As much of ClickHouse's grammar as decides what happens with a request's bytes: where an INSERT's
//! data begin, and in which format a result goes out. Everything else is the engine's business.
//!
//! Pure.

use std::ops::Range;

/// What stands at the beginning of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    /// Undecided: more bytes are needed.
    NeedMore,
    /// An INSERT with data.
    Insert {
        /// Length of the statement before its FORMAT or VALUES.
        head: usize,
        /// The data's format.
        format: String,
        /// Where the data begin.
        data: usize,
    },
    /// Any other statement: the whole request is SQL.
    Plain,
}

/// Looks at the beginning of a request. `is_complete` says that nothing follows.
pub(super) fn opening(text: &[u8], is_complete: bool) -> Opening {
    let undecided = if is_complete { Opening::Plain } else { Opening::NeedMore };
    let mut tokens = Tokens { text, at: 0 };
    // A token that touches the end may go on in the bytes to come.
    let mut next = || tokens.next().filter(|token| is_complete || token.end < text.len());
    match next() {
        None => return undecided,
        Some(token) if !is_word(text, &token, "INSERT") => return Opening::Plain,
        Some(_) => {}
    }
    let mut depth = 0_usize;
    while let Some(token) = next() {
        match &text[token.clone()] {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            word if ["SELECT", "WITH", "INFILE", "WATCH"]
                .iter()
                .any(|k| word.eq_ignore_ascii_case(k.as_bytes())) =>
            {
                return Opening::Plain;
            }
            word if depth == 0 && word.eq_ignore_ascii_case(b"VALUES") => {
                return Opening::Insert { head: token.start, format: "Values".to_owned(), data: token.end };
            }
            word if depth == 0 && word.eq_ignore_ascii_case(b"FORMAT") => {
                let Some(name) = next() else { return undecided };
                let Some(data) = data_after(text, name.end, is_complete) else { return undecided };
                let format = String::from_utf8_lossy(&text[name]).into_owned();
                return Opening::Insert { head: token.start, format, data };
            }
            _ => {}
        }
    }
    undecided
}

/// Where data begin after a FORMAT's name: spaces and one line break are not data.
fn data_after(text: &[u8], mut at: usize, is_complete: bool) -> Option<usize> {
    loop {
        match text.get(at) {
            Some(b' ' | b'\t' | b'\r' | b';') => at += 1,
            Some(b'\n') => return Some(at + 1),
            Some(_) => return Some(at),
            None => return is_complete.then_some(at),
        }
    }
}

/// What a whole statement is, as far as the way of its result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// Whether its result may be sent in pieces.
    pub is_select: bool,
    /// Whether it is KILL QUERY.
    pub is_kill: bool,
    /// The format that it names.
    pub format: Option<String>,
}

/// Describes a whole statement.
pub(super) fn describe(text: &[u8]) -> Statement {
    let tokens: Vec<Range<usize>> = Tokens { text, at: 0 }.collect();
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|token| is_word(text, token, word));
    let begins_select = ["SELECT", "WITH", "("].iter().any(|word| is(0, word));
    // Totals are a second result, which pieces would repeat.
    let has_totals = (0..tokens.len()).any(|i| is(i, "TOTALS"));
    let mut depth = 0_i64;
    let mut format = None;
    for (i, token) in tokens.iter().enumerate() {
        match &text[token.clone()] {
            b"(" => depth += 1,
            b")" => depth -= 1,
            _ if depth == 0 && i > 0 && is(i, "FORMAT") => {
                let name = tokens.get(i + 1).map(|name| &text[name.clone()]);
                // `format` may also be a column or a function.
                let name = name.filter(|name| name.first().is_some_and(u8::is_ascii_alphabetic));
                format = name.map(|name| String::from_utf8_lossy(name).into_owned());
            }
            _ => {}
        }
    }
    Statement { is_select: begins_select && !has_totals, is_kill: is(0, "KILL"), format }
}

/// A KILL QUERY as the engine understands it. The library gives clients no way to name a query, so a
/// request's `query_id` travels in the setting `log_comment`, which the engine shows with the query.
pub(super) fn translate_kill(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for token in (Tokens { text, at: 0 }) {
        out.extend_from_slice(&text[at..token.start]);
        match &text[token.clone()] {
            word if word.eq_ignore_ascii_case(b"query_id") => {
                out.extend_from_slice(b"Settings['log_comment']")
            }
            other => out.extend_from_slice(other),
        }
        at = token.end;
    }
    out.extend_from_slice(&text[at..]);
    out
}

fn is_word(text: &[u8], token: &Range<usize>, word: &str) -> bool {
    text[token.clone()].eq_ignore_ascii_case(word.as_bytes())
}

/// Words, quoted things and single marks; comments and white space are left out.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    fn rest(&self) -> &[u8] {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let before = self.at;
            self.at += self.rest().iter().take_while(|b| b.is_ascii_whitespace()).count();
            if self.rest().starts_with(b"--")
                || self.rest().starts_with(b"#!")
                || self.rest().starts_with(b"# ")
            {
                self.at += self.rest().iter().position(|b| *b == b'\n').unwrap_or(self.rest().len());
            } else if self.rest().starts_with(b"/*") {
                let end = self.rest().windows(2).skip(2).position(|w| w == b"*/");
                self.at += end.map_or(self.rest().len(), |i| i + 4);
            }
            if self.at == before {
                return;
            }
        }
    }

    /// Length of a quoted thing, its quotes included.
    fn quoted(&self, quote: u8) -> usize {
        let mut bytes = self.rest().iter().enumerate().skip(1);
        while let Some((i, byte)) = bytes.next() {
            if *byte == b'\\' {
                bytes.next();
            } else if *byte == quote {
                if self.rest().get(i + 1) != Some(&quote) {
                    return i + 1;
                }
                bytes.next();
            }
        }
        self.rest().len()
    }
}

impl Iterator for Tokens<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        self.skip_blanks();
        let first = *self.rest().first()?;
        let is_wordy = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        let length = match first {
            b'\'' | b'"' | b'`' => self.quoted(first),
            byte if is_wordy(&byte) => self.rest().iter().take_while(|b| is_wordy(b)).count(),
            _ => 1,
        };
        let start = self.at;
        self.at += length;
        Some(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(text: &str) -> (String, String, String) {
        match opening(text.as_bytes(), true) {
            Opening::Insert { head, format, data } => {
                (text[..head].to_owned(), format, text[data..].to_owned())
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_data_of_an_insert_begin_after_its_format() {
        let cases = [
            ("INSERT INTO t FORMAT Native\n\nx", "INSERT INTO t ", "Native", "\nx"),
            ("insert into t (a, b) format JSONEachRow {}", "insert into t (a, b) ", "JSONEachRow", "{}"),
            ("INSERT INTO t SETTINGS a=1 FORMAT CSV \r\n1", "INSERT INTO t SETTINGS a=1 ", "CSV", "1"),
            (
                "/* FORMAT */ INSERT INTO `for mat` VALUES (1)",
                "/* FORMAT */ INSERT INTO `for mat` ",
                "Values",
                " (1)",
            ),
            (
                "INSERT INTO t (`values`, format) VALUES (1)",
                "INSERT INTO t (`values`, format) ",
                "Values",
                " (1)",
            ),
            ("INSERT INTO t FORMAT RowBinary", "INSERT INTO t ", "RowBinary", ""),
        ];
        for (text, head, format, data) in cases {
            assert_eq!(insert(text), (head.to_owned(), format.to_owned(), data.to_owned()), "{text}");
        }
    }

    #[test]
    fn every_cut_of_an_insert_is_undecided_or_decided_alike() {
        let text = b"-- why\nINSERT INTO db.`t x` (a, 'b') SETTINGS x='FORMAT' FORMAT RowBinary\nselect";
        let whole = opening(text, true);
        for end in 0..text.len() {
            let cut = opening(&text[..end], false);
            assert!(cut == Opening::NeedMore || cut == whole, "{end}: {cut:?}");
        }
    }

    #[test]
    fn statements_without_data_are_plain() {
        for text in
            ["SELECT 1 FORMAT CSV", "INSERT INTO t SELECT 1", "INSERT INTO t (SELECT 1)", "INSERT", ""]
        {
            assert_eq!(opening(text.as_bytes(), true), Opening::Plain, "{text}");
        }
    }

    #[test]
    fn the_format_of_a_result_is_the_one_outside_of_strings_and_brackets() {
        let format = |text: &str| describe(text.as_bytes()).format;
        assert_eq!(format("SELECT 'FORMAT x' -- FORMAT y\nformat JSON"), Some("JSON".to_owned()));
        assert_eq!(format("SELECT format('{}', 1)"), None);
        assert_eq!(format("SELECT 1 FORMAT TSV SETTINGS max_threads=1"), Some("TSV".to_owned()));
        assert!(describe(b"with 1 as x select x").is_select);
        assert!(!describe(b"select 1 group by 1 with totals").is_select);
        assert!(!describe(b"explain select 1").is_select);
    }

    #[test]
    fn a_kill_names_the_query_by_its_comment() {
        let sql = translate_kill(b"KILL QUERY WHERE query_id LIKE 'query_id%' SYNC");
        assert_eq!(sql, b"KILL QUERY WHERE Settings['log_comment'] LIKE 'query_id%' SYNC");
    }
}
