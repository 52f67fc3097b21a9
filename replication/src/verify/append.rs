//! Compares a table whose rows are only ever added, and have no key. I/O.
//!
//! What can be promised of it: every row is there as often as on the source. Which row is missing or is
//! too much has no name, so they are counted. The two sides are never seen at one moment, so the
//! destination is put between two readings of the source: what the first one saw must be in it when the
//! stream has passed its end, and what is in it must be seen by the second one, which is begun when every
//! transaction that had an id is over. Between them the table may grow.

use std::collections::HashMap;
use std::time::Duration;

use millrace_terms::Result;

use super::order::Range;
use super::range::{Answer, Question};
use super::read::{Digest, Sides};
use crate::postgres::epoch;

/// Rows whose digests are held at once: of a larger table a part at a time is looked at.
const ROWS_MAX: u64 = 4_000_000;
/// How long transactions that are open may keep a difference from being certain.
const PASSING_MAX: Duration = Duration::from_secs(30);

/// How often each row is there, by its digest.
type Bag = HashMap<Digest, u64>;

/// How a table of added rows compares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bags {
    /// Rows, and what could not be made certain.
    pub answer: Answer,
    /// Rows that the destination lacks.
    pub missing: u64,
    /// Rows that it has and the source does not, or more often than the source.
    pub extra: u64,
}

impl Sides<'_> {
    /// Compares the whole table; `rows` is about how many it has.
    ///
    /// # Errors
    /// As [`Sides::compare`].
    pub async fn compare_bags(&self, question: &Question<'_>, rows: u64) -> Result<Bags> {
        let slices = u128::from(rows.div_ceil(ROWS_MAX).max(1));
        let mut bags = Bags::default();
        for slice in 0..slices {
            self.slice(question, |digest| digest % slices == slice, &mut bags).await?;
        }
        Ok(bags)
    }

    async fn slice(
        &self,
        question: &Question<'_>,
        is_in: impl Fn(Digest) -> bool + Copy,
        bags: &mut Bags,
    ) -> Result<()> {
        let first = self.source_bag(is_in).await?;
        let end = epoch::log_end(self.session).await?;
        super::range::reached(&question.position, end).await?;
        let mut found = Bag::new();
        let on_row = |row: &super::read::Seen<'_>| {
            if is_in(row.digest) {
                *found.entry(row.digest).or_default() += 1;
            }
            Ok(())
        };
        self.read_destination(&Range::default(), &[], on_row).await?;
        bags.answer.source_rows += first.values().sum::<u64>();
        bags.answer.destination_rows += found.values().sum::<u64>();
        bags.missing += surplus(&first, &found);
        if surplus(&found, &first) == 0 {
            return Ok(());
        }
        let held_by = epoch::passed(self.session, PASSING_MAX).await?;
        let second = self.source_bag(is_in).await?;
        match held_by {
            None => bags.extra += surplus(&found, &second),
            Some(_) => bags.answer.unsettled += surplus(&found, &second),
        }
        bags.answer.held_by = bags.answer.held_by.take().or(held_by);
        Ok(())
    }

    async fn source_bag(&self, is_in: impl Fn(Digest) -> bool) -> Result<Bag> {
        let mut bag = Bag::new();
        let on_row = |row: &super::read::Seen<'_>| {
            if is_in(row.digest) {
                *bag.entry(row.digest).or_default() += 1;
            }
            Ok(())
        };
        self.read_source(&Range::default(), &[], on_row).await?;
        Ok(bag)
    }
}

/// How many rows one bag has more than another.
fn surplus(of: &Bag, over: &Bag) -> u64 {
    of.iter().map(|(digest, count)| count.saturating_sub(over.get(digest).copied().unwrap_or(0))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_as_often_as_they_are_there() {
        let (two, one) = (Bag::from([(1, 2), (2, 1)]), Bag::from([(1, 1), (3, 1)]));
        assert_eq!((surplus(&two, &one), surplus(&one, &two)), (2, 1));
    }
}
