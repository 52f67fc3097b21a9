//! Array literals of PostgreSQL, written and read by rules of their own: nothing here is shared with the
//! code under test.

/// An array, an element, or NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Null,
    Leaf(String),
    Array(Vec<Tree>),
}

impl Tree {
    /// As a literal: every element is quoted.
    pub fn literal(&self, delimiter: char) -> String {
        match self {
            Tree::Null => "NULL".to_owned(),
            Tree::Leaf(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            Tree::Array(inside) => {
                let parts: Vec<_> = inside.iter().map(|tree| tree.literal(delimiter)).collect();
                format!("{{{}}}", parts.join(&delimiter.to_string()))
            }
        }
    }

    /// The lengths of its dimensions.
    pub fn lengths(&self) -> Vec<usize> {
        match self {
            Tree::Array(inside) => {
                let mut lengths = vec![inside.len()];
                lengths.extend(inside.first().map(Tree::lengths).unwrap_or_default());
                lengths
            }
            _ => Vec::new(),
        }
    }

    /// From what PostgreSQL writes.
    pub fn parse(text: &str, delimiter: char) -> Self {
        let text = if text.starts_with('[') { text.split_once('=').unwrap().1 } else { text };
        let mut rest: Vec<char> = text.chars().rev().collect();
        let tree = value(&mut rest, delimiter);
        assert!(rest.is_empty(), "{text}");
        tree
    }
}

fn value(rest: &mut Vec<char>, delimiter: char) -> Tree {
    match rest.last().copied().unwrap() {
        '{' => {
            rest.pop();
            let mut inside = Vec::new();
            while rest.last() != Some(&'}') {
                inside.push(value(rest, delimiter));
                if rest.last() == Some(&delimiter) {
                    rest.pop();
                }
            }
            rest.pop();
            Tree::Array(inside)
        }
        '"' => {
            rest.pop();
            let mut text = String::new();
            loop {
                match rest.pop().unwrap() {
                    '"' => return Tree::Leaf(text),
                    '\\' => text.push(rest.pop().unwrap()),
                    c => text.push(c),
                }
            }
        }
        _ => {
            let mut text = String::new();
            while !matches!(rest.last(), Some(c) if *c == delimiter || *c == '}') {
                text.push(rest.pop().unwrap());
            }
            if text == "NULL" { Tree::Null } else { Tree::Leaf(text) }
        }
    }
}
