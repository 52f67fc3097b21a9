//! The requests that are being answered: how many there may be, and under which ids.
//!
//! Pure.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::failure::{self, Failure};

/// Ids of the running queries.
#[derive(Debug, Default)]
pub(super) struct Running {
    ids: Mutex<BTreeSet<String>>,
}

/// A running query. Dropping it frees its id.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    running: &'a Running,
    id: String,
}

impl Running {
    /// Takes an id, which only one query may bear at a time.
    pub fn enter(&self, id: &str) -> Result<Entry<'_>, Failure> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.insert(id.to_owned()) {
            let message = format!("Query with id = {id} is already running");
            return Err(Failure::new(failure::SAME_ID, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", &message));
        }
        Ok(Entry { running: self, id: id.to_owned() })
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.running.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_free_again_when_its_query_ends() {
        let running = Running::default();
        let first = running.enter("a").unwrap();
        assert_eq!(running.enter("a").unwrap_err().code, 216);
        assert!(running.enter("b").is_ok());
        drop(first);
        assert!(running.enter("a").is_ok());
    }
}
