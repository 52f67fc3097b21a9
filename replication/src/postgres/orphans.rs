//! What mirrors that are gone left behind on a source. I/O.

use std::collections::BTreeSet;

use millrace_terms::check::{Check, Name};
use millrace_terms::{Code, Error, Result};

use super::{Session, from_sql, publication, slot};

/// Slots of this database whose names begin so.
const SLOTS: &str = "
select slot_name::text from pg_catalog.pg_replication_slots
 where database = current_database() and starts_with(slot_name::text, $1) order by 1";

/// Publications whose names begin so, with their comments.
const PUBLICATIONS: &str = "
select pubname::text, coalesce(pg_catalog.obj_description(oid, 'pg_publication'), '')
  from pg_catalog.pg_publication where starts_with(pubname::text, $1) order by 1";

/// Slots and publications of an installation, each with the mark that its mirror gave it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    slots: Vec<String>,
    publications: Vec<(String, String)>,
}

/// What there is of the names that begin with `prefix`, of mirrors or not.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn list(session: &Session, prefix: &str) -> Result<Made> {
    let failed = |error| from_sql("listing slots and publications", &error);
    let slots = session.query(SLOTS, &[&prefix]).await.map_err(failed)?;
    let publications = session.query(PUBLICATIONS, &[&prefix]).await.map_err(failed)?;
    Ok(Made {
        slots: slots.iter().map(|row| row.get(0)).collect(),
        publications: publications.iter().map(|row| (row.get(0), row.get(1))).collect(),
    })
}

impl Made {
    /// Without what is in use.
    #[must_use]
    pub fn without(mut self, used: &BTreeSet<String>) -> Self {
        self.slots.retain(|name| !used.contains(name));
        self.publications.retain(|(name, _)| !used.contains(name));
        self
    }

    /// What it is, as messages name it.
    pub fn names(&self) -> Vec<String> {
        let publications = self.publications.iter().map(|(name, _)| publication_object(name));
        self.slots.iter().map(|name| slot_object(name)).chain(publications).collect()
    }

    /// Removes all of it. What cannot be removed keeps nothing else from it.
    pub async fn remove(&self, session: &Session, application: &str) -> Vec<Check> {
        let mut done = Vec::new();
        for name in &self.slots {
            // One that somebody streams from is not taken from them.
            let dropped = slot::drop(session, name, application).await;
            done.push(Check::of(Name::Orphan, &dropped, "removed").on(slot_object(name)));
        }
        for (name, mark) in &self.publications {
            let dropped = match mark.is_empty() {
                // Ours bear their mirror's mark.
                true => Err(Error::new(Code::SlotExists, "it was not made by a mirror")),
                false => publication::drop(session, name, mark).await,
            };
            done.push(Check::of(Name::Orphan, &dropped, "removed").on(publication_object(name)));
        }
        done
    }
}

fn slot_object(name: &str) -> String {
    format!("replication slot {name}")
}

fn publication_object(name: &str) -> String {
    format!("publication {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mirrors_use_stays() {
        let made = Made {
            slots: vec!["millrace_a1b2c3_old".into(), "millrace_a1b2c3_shop".into()],
            publications: vec![("millrace_a1b2c3_shop".into(), "millrace/a1b2c3/shop".into())],
        };
        let used = BTreeSet::from(["millrace_a1b2c3_shop".to_owned()]);
        assert_eq!(made.without(&used).names(), ["replication slot millrace_a1b2c3_old"]);
    }
}
