use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A table on the source.
///
/// The text form, also in JSON and YAML, is that of SQL: `public.orders`, with double quotes where
/// SQL needs them: `public."Odd ""Name"""`. Unquoted parts are folded to lower case, as the server
/// does (PostgreSQL documentation, section 4.1.1). A name without a schema is in `public`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Name of the schema, unquoted.
    pub schema: String,
    /// Name of the table, unquoted.
    pub name: String,
}

impl TableName {
    /// A table by its unquoted names.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// The name as an SQL statement takes it, always quoted.
    pub fn to_sql(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }
}

/// An identifier as an SQL statement takes it: in double quotes, those within doubled.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether SQL reads the name back unchanged without quotes. Keywords count as plain: they are
/// parsed by us here, and quoted by [`TableName::to_sql`] for the server.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'$')
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name: &str| if is_plain(name) { name.to_owned() } else { quote_ident(name) };
        write!(f, "{}.{}", part(&self.schema), part(&self.name))
    }
}

/// The text is not a table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseTableNameError;

impl fmt::Display for ParseTableNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table's name looks like public.orders or public.\"Odd Name\"")
    }
}

impl std::error::Error for ParseTableNameError {}

/// Takes one identifier off the front of `text`.
fn take_ident(text: &str) -> Result<(String, &str), ParseTableNameError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let allowed = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit() || c == '$')
            || !name.chars().all(allowed)
        {
            return Err(ParseTableNameError);
        }
        return Ok((name.to_ascii_lowercase(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"').ok_or(ParseTableNameError)?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None if name.is_empty() => return Err(ParseTableNameError),
            None => return Ok((name, rest)),
        }
    }
}

impl FromStr for TableName {
    type Err = ParseTableNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, rest) = take_ident(text.trim())?;
        if rest.is_empty() {
            return Ok(Self::new("public", first));
        }
        let (second, rest) = take_ident(rest.strip_prefix('.').ok_or(ParseTableNameError)?)?;
        if rest.is_empty() { Ok(Self::new(first, second)) } else { Err(ParseTableNameError) }
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let read = |text: &str| text.parse::<TableName>();
        assert_eq!(read("orders"), Ok(TableName::new("public", "orders")));
        assert_eq!(read("Shop.Orders"), Ok(TableName::new("shop", "orders")));
        assert_eq!(read("public.\"Odd Name\""), Ok(TableName::new("public", "Odd Name")));
        assert_eq!(read("\"a.b\".\"c\"\"d\""), Ok(TableName::new("a.b", "c\"d")));
        assert_eq!(read("größe.t"), Ok(TableName::new("größe", "t")));
        for bad in ["", ".", "a.", ".a", "a.b.c", "\"", "\"a", "\"\"", "a b", "1a", "a.\"b\"c", "a-b"] {
            assert_eq!(read(bad), Err(ParseTableNameError), "{bad}");
        }
    }

    #[test]
    fn text_form_is_read_back() {
        for name in
            [TableName::new("public", "orders"), TableName::new("A", "b\"c.d"), TableName::new("s", "ä ö")]
        {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }
}
