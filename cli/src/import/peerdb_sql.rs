//! PeerDB's SQL (`CREATE PEER`, `CREATE MIRROR ... WITH TABLE MAPPING`) as the objects of its REST API.
//!
//! Written from the public documentation of that dialect. Pure.

use millrace_terms::{Code, Error};
use serde_json::{Map, Value, json};

/// Options of a mirror that have another name in the REST API.
const RENAMED: [(&str, &str); 3] = [
    ("do_initial_copy", "do_initial_snapshot"),
    ("initial_copy_only", "initial_snapshot_only"),
    ("sync_interval", "idle_timeout_seconds"),
];

/// Reads every statement.
///
/// # Errors
/// INVALID_ARGUMENT with the line.
pub(super) fn read(text: &str) -> Result<Vec<Map<String, Value>>, Error> {
    let mut statements = Parser { tokens: tokens(text)?, at: 0 };
    let mut objects = Vec::new();
    while !statements.is_over() {
        if statements.accept_symbol(';') {
            continue;
        }
        objects.push(statements.statement()?);
    }
    Ok(objects)
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// An identifier or keyword, without its quotes.
    Name(String),
    /// A string or a text between dollars.
    Text(String),
    Number(i64),
    Symbol(char),
}

#[derive(Debug, Clone)]
struct Token {
    line: usize,
    word: Word,
}

fn wrong(line: usize, what: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("line {line}: {what}"))
        .with_remedy("Give CREATE PEER and CREATE MIRROR statements as PeerDB's documentation writes them.")
}

fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), text, 1);
    loop {
        let trimmed = rest.trim_start();
        line += rest[..rest.len() - trimmed.len()].matches('\n').count();
        rest = trimmed;
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").ok_or_else(|| wrong(line, "a comment has no end"))? + 2
        } else {
            let (word, length) = word(rest, first).map_err(|what| wrong(line, what))?;
            tokens.push(Token { line, word });
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
}

/// The word at the front, and its bytes.
fn word(rest: &str, first: char) -> Result<(Word, usize), &'static str> {
    let length_while = |is_part: fn(char) -> bool| rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
    match first {
        '\'' | '"' => {
            let (text, length) = quoted(rest, first).ok_or("a quote has no end")?;
            Ok((if first == '"' { Word::Name(text) } else { Word::Text(text) }, length))
        }
        '$' => {
            let tag =
                rest[1..].find('$').map(|end| &rest[..end + 2]).ok_or("a text between dollars has no end")?;
            let end = rest[tag.len()..].find(tag).ok_or("a text between dollars has no end")?;
            let text = rest[tag.len()..tag.len() + end].to_owned();
            Ok((Word::Text(text), end + 2 * tag.len()))
        }
        '0'..='9' => {
            let length = length_while(|c| c.is_ascii_digit());
            let number = rest[..length].parse().map_err(|_| "a number is too large")?;
            Ok((Word::Number(number), length))
        }
        c if c.is_alphabetic() || c == '_' => {
            let length = length_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'));
            Ok((Word::Name(rest[..length].to_owned()), length))
        }
        symbol => Ok((Word::Symbol(symbol), symbol.len_utf8())),
    }
}

/// A text in quotes, those within it doubled, and its bytes.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            text.push(quote);
            chars.next();
        } else {
            return Some((text, index + 1));
        }
    }
    None
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn is_over(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    fn peek(&self) -> Option<&Word> {
        self.tokens.get(self.at).map(|token| &token.word)
    }

    fn accept_symbol(&mut self, symbol: char) -> bool {
        let is_it = self.peek() == Some(&Word::Symbol(symbol));
        self.at += usize::from(is_it);
        is_it
    }

    fn expect_symbol(&mut self, symbol: char) -> Result<(), Error> {
        if self.accept_symbol(symbol) {
            Ok(())
        } else {
            Err(wrong(self.line(), format!("`{symbol}` is missing")))
        }
    }

    fn accept(&mut self, keyword: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Word::Name(name)) if name.eq_ignore_ascii_case(keyword));
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, keyword: &str) -> Result<(), Error> {
        if self.accept(keyword) { Ok(()) } else { Err(wrong(self.line(), format!("{keyword} is missing"))) }
    }

    fn name(&mut self) -> Result<String, Error> {
        match self.peek().cloned() {
            Some(Word::Name(name)) | Some(Word::Text(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(wrong(self.line(), "a name is missing")),
        }
    }

    /// Names with dots between them.
    fn path(&mut self) -> Result<String, Error> {
        let mut path = self.name()?;
        while self.accept_symbol('.') {
            path = format!("{path}.{}", self.name()?);
        }
        Ok(path)
    }

    fn statement(&mut self) -> Result<Map<String, Value>, Error> {
        self.expect("CREATE")?;
        let object = match (self.accept("PEER"), self.accept("MIRROR")) {
            (true, _) => self.peer()?,
            (false, true) => self.mirror()?,
            (false, false) => return Err(wrong(self.line(), "PEER or MIRROR is missing")),
        };
        if !self.is_over() {
            self.expect_symbol(';')?;
        }
        Ok(object)
    }

    fn if_not_exists(&mut self) -> Result<(), Error> {
        if self.accept("IF") {
            self.expect("NOT")?;
            self.expect("EXISTS")?;
        }
        Ok(())
    }

    fn peer(&mut self) -> Result<Map<String, Value>, Error> {
        self.if_not_exists()?;
        let name = self.name()?;
        self.expect("FROM")?;
        let kind = self.name()?.to_uppercase();
        self.expect("WITH")?;
        let options = Value::Object(self.options()?);
        let mut peer = Map::from_iter([("name".to_owned(), json!(name))]);
        match kind.as_str() {
            "POSTGRES" => peer.insert("postgres_config".to_owned(), options),
            "CLICKHOUSE" => peer.insert("clickhouse_config".to_owned(), options),
            _ => peer.insert("type".to_owned(), json!(kind)),
        };
        Ok(peer)
    }

    fn mirror(&mut self) -> Result<Map<String, Value>, Error> {
        self.if_not_exists()?;
        let name = self.name()?;
        self.expect("FROM")?;
        let source = self.path()?;
        self.expect("TO")?;
        let destination = self.path()?;
        if self.accept("FOR") {
            self.name()?;
            if self.accept("WITH") {
                self.options()?;
            }
            return Ok(Map::from_iter([("query".to_owned(), json!(name))]));
        }
        self.expect("WITH")?;
        self.expect("TABLE")?;
        self.expect("MAPPING")?;
        let tables = self.tables()?;
        let mut mirror = if self.accept("WITH") { self.options()? } else { Map::new() };
        for (sql, api) in RENAMED {
            if let Some(value) = mirror.remove(sql) {
                mirror.insert(api.to_owned(), value);
            }
        }
        // The dialect copies unless it is told not to.
        mirror.entry("do_initial_snapshot").or_insert(json!(true));
        mirror.insert("flow_job_name".to_owned(), json!(name));
        mirror.insert("source_name".to_owned(), json!(source));
        mirror.insert("destination_name".to_owned(), json!(destination));
        mirror.insert("table_mappings".to_owned(), Value::Array(tables));
        Ok(mirror)
    }

    fn tables(&mut self) -> Result<Vec<Value>, Error> {
        self.expect_symbol('(')?;
        let mut tables = Vec::new();
        while !self.accept_symbol(')') {
            let table = if self.accept_symbol('{') {
                self.table()?
            } else {
                let source = self.path()?;
                self.expect_symbol(':')?;
                json!({"source_table_identifier": source, "destination_table_identifier": self.path()?})
            };
            tables.push(table);
            if !self.accept_symbol(',') && self.peek() != Some(&Word::Symbol(')')) {
                return Err(wrong(self.line(), "`,` or `)` is missing after a table"));
            }
        }
        Ok(tables)
    }

    /// `from: public.t, to: t, key: id, exclude: [a, b]}`, behind the opening brace.
    fn table(&mut self) -> Result<Value, Error> {
        let mut table = Map::new();
        while !self.accept_symbol('}') {
            let key = self.name()?.to_lowercase();
            self.expect_symbol(':')?;
            let value = match self.accept_symbol('[') {
                true => json!(self.list()?),
                false => json!(self.path()?),
            };
            let key = match key.as_str() {
                "from" => "source_table_identifier".to_owned(),
                "to" => "destination_table_identifier".to_owned(),
                "key" => "partition_key".to_owned(),
                _ => key,
            };
            table.insert(key, value);
            self.accept_symbol(',');
        }
        Ok(Value::Object(table))
    }

    fn list(&mut self) -> Result<Vec<String>, Error> {
        let mut items = Vec::new();
        while !self.accept_symbol(']') {
            items.push(self.name()?);
            self.accept_symbol(',');
        }
        Ok(items)
    }

    /// `(key = value, ...)`.
    fn options(&mut self) -> Result<Map<String, Value>, Error> {
        self.expect_symbol('(')?;
        let mut options = Map::new();
        while !self.accept_symbol(')') {
            let key = self.name()?.to_lowercase();
            self.expect_symbol('=')?;
            let value = match self.peek().cloned() {
                Some(Word::Text(text)) => json!(text),
                Some(Word::Number(number)) => json!(number),
                Some(Word::Name(name)) if name.eq_ignore_ascii_case("true") => json!(true),
                Some(Word::Name(name)) if name.eq_ignore_ascii_case("false") => json!(false),
                Some(Word::Name(name)) => json!(name),
                _ => return Err(wrong(self.line(), format!("the value of {key} is missing"))),
            };
            self.at += 1;
            options.insert(key, value);
            if !self.accept_symbol(',') && self.peek() != Some(&Word::Symbol(')')) {
                return Err(wrong(self.line(), "`,` or `)` is missing after an option"));
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_told_with_its_line_and_without_its_text() {
        for (text, part) in [
            ("CREATE PEER p FROM POSTGRES\nWITH (password = 'hunter2", "line 2: a quote"),
            ("-- one\nCREATE TABLE hunter2", "line 2: PEER or MIRROR"),
            ("CREATE PEER p\nFROM POSTGRES WITH (password 'hunter2')", "line 2: `=` is missing"),
            ("CREATE MIRROR m FROM a TO b WITH TABLE MAPPING (a.b a.c)", "`:` is missing"),
            ("/* never", "line 1: a comment"),
            ("SELECT 1", "CREATE is missing"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(part) && !error.message().contains("hunter2"), "{error}");
        }
        assert_eq!(read(" ;; -- nothing\n"), Ok(vec![]));
    }
}
