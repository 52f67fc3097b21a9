//! Names, pages and nearest words: the rules for what a request may hold.
//!
//! Pure: no I/O.

use millrace_catalog::page::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageRequest};

use crate::fault::{Answer, Violations, invalid};

/// Characters of a peer's or a mirror's name at most (part of slot names, workflow ids and labels).
const NAME_CHARS_MAX: usize = 40;
/// Bytes of a page token at most.
const PAGE_TOKEN_BYTES_MAX: usize = 512;

/// Checks the name of a peer or a mirror: `^[a-z][a-z0-9-]{0,39}$`.
pub(crate) fn check_name(name: &str, field: &str, violations: &mut Violations) {
    let ok = name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    violations.require(
        ok,
        field,
        format!(
            "a name is 1 to {NAME_CHARS_MAX} lower-case letters, digits and `-`, and begins with a letter"
        ),
    );
}

/// The name out of a request about an existing object.
pub(crate) fn name_of(name: &str) -> Answer<&str> {
    let mut violations = Violations::default();
    check_name(name, "name", &mut violations);
    violations.into_result()?;
    Ok(name)
}

/// Checks a request id: empty or a UUID (AIP-155).
pub(crate) fn check_request_id(id: &str, violations: &mut Violations) {
    violations.require(
        id.is_empty() || uuid::Uuid::try_parse(id).is_ok(),
        "request_id",
        "must be a UUID, such as 123e4567-e89b-12d3-a456-426614174000",
    );
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Entries at most.
    pub(crate) size: u32,
    /// The last key of the page before; empty for the first page.
    pub(crate) after: String,
}

impl Page {
    /// Reads `page_size` and `page_token`.
    pub(crate) fn new(page_size: i32, page_token: &str) -> Answer<Self> {
        let size = match u32::try_from(page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => return Err(invalid("page_size", "must not be negative")),
        };
        if page_token.len() > PAGE_TOKEN_BYTES_MAX {
            return Err(invalid("page_token", "is not a token of ours"));
        }
        Ok(Self { size, after: page_token.to_owned() })
    }

    /// As the catalog takes it.
    pub(crate) fn request(&self) -> PageRequest {
        PageRequest { size: self.size, token: self.after.clone() }
    }

    /// Whether nothing comes before it.
    pub(crate) fn is_first(&self) -> bool {
        self.after.is_empty()
    }

    /// Cuts a list that is sorted by `key` down to this page; returns the token of the next one.
    pub(crate) fn cut<T>(&self, entries: Vec<T>, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
        let mut rest = entries.into_iter().skip_while(|entry| key(entry) <= self.after).peekable();
        let page: Vec<T> = rest.by_ref().take(self.size as usize).collect();
        let next = match rest.peek() {
            Some(_) => page.last().map(&key).unwrap_or_default(),
            None => String::new(),
        };
        (page, next)
    }
}

/// The candidate that the word was probably meant to be, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance over bytes: insertions, deletions and replacements.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_and_begin_with_a_letter() {
        for good in ["a", "shop-pg", "x1", &"x".repeat(40)] {
            assert!(name_of(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "1a", "A", "a_b", "a.b", "ä", "a/b", "a b", &"x".repeat(41)] {
            assert!(name_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_cover_a_list_once() {
        let entries: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        let (mut token, mut seen, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let page = Page::new(2, &token).unwrap();
            let (part, next) = page.cut(entries.clone(), String::clone);
            seen.extend(part);
            pages += 1;
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!((seen, pages), (entries.clone(), 3));
        let exact = Page::new(5, "").unwrap().cut(entries, String::clone);
        assert_eq!(exact.1, "");
        assert!(Page::new(-1, "").is_err());
        assert_eq!(Page::new(i32::MAX, "").unwrap().size, PAGE_SIZE_MAX);
    }

    #[test]
    fn the_nearest_word_is_offered_if_it_is_near() {
        let keys = ["publication", "slot", "snapshot", "flush", "streams"];
        assert_eq!(nearest("pubication", keys), Some("publication"));
        assert_eq!(nearest("stream", keys), Some("streams"));
        assert_eq!(nearest("colour", keys), None);
    }
}
