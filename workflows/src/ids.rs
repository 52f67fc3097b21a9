//! Workflow ids, task queues, search attributes: how the parts find each other in Temporal.
//!
//! Pure: no I/O.

use temporalio_common::search_attributes::SearchAttributeKey;

/// Search attribute: the mirror a workflow works for.
pub const MIRROR_NAME: SearchAttributeKey<String> = SearchAttributeKey::keyword("MirrorName");

/// Search attribute: the mirror's state, as the API names it.
pub const MIRROR_STATE: SearchAttributeKey<String> = SearchAttributeKey::keyword("MirrorState");

/// Search attribute: how the mirror's stream fares that fares worst, as the API names it.
pub const MIRROR_VERDICT: SearchAttributeKey<String> = SearchAttributeKey::keyword("MirrorVerdict");

/// Search attribute: rows copied by the running or the last copy of each of the mirror's tables.
pub const MIRROR_ROWS_COPIED: SearchAttributeKey<i64> = SearchAttributeKey::int("MirrorRowsCopied");

/// Search attribute: whole seconds by which the mirror's stream lags that lags most.
pub const MIRROR_LAG_SECONDS: SearchAttributeKey<i64> = SearchAttributeKey::int("MirrorLagSeconds");

/// Names of the search attributes that hold figures. They are set only where the namespace has all of them.
pub const FIGURE_ATTRIBUTES: [&str; 3] = ["MirrorVerdict", "MirrorRowsCopied", "MirrorLagSeconds"];

/// Id of a mirror's workflow.
pub fn mirror(mirror: &str) -> String {
    format!("mirror/{mirror}")
}

/// Id of the workflow of one stream of a mirror.
pub fn stream(mirror: &str, stream: u32) -> String {
    format!("stream/{mirror}/{stream}")
}

/// Id of the workflow that copies one table (`schema.table`); every new copy has a new number.
pub fn snapshot(mirror: &str, table: &str, copy_no: u32) -> String {
    format!("snapshot/{mirror}/{table}/{copy_no}")
}

/// The mirror of a stream or a copy, by the id of its workflow; `None` for other workflows. Names of mirrors
/// hold no slash.
pub fn mirror_of_child(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("stream/").or_else(|| id.strip_prefix("snapshot/"))?;
    rest.split_once('/').map(|(mirror, _)| mirror)
}

/// Id of the workflow that drops a mirror.
pub fn drop(mirror: &str) -> String {
    format!("drop/{mirror}")
}

/// Id of the workflow that checks a draft.
pub fn check(draft: &str) -> String {
    format!("check/{draft}")
}

/// Id of the workflow that compares a mirror's tables with their sources.
pub fn verify(mirror: &str, id: &str) -> String {
    format!("verify/{mirror}/{id}")
}

/// The task queues of one installation. Several installations share a Temporal namespace by
/// different prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    prefix: String,
}

impl Queues {
    /// The queues with this prefix, such as `millrace`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The queues that a workflow's own queue belongs to: workflows run on the control queue, and
    /// so need not be told the prefix. A name of another form counts as the prefix itself.
    pub fn of_control(queue: &str) -> Self {
        Self::new(queue.strip_suffix("-control").unwrap_or(queue))
    }

    /// Workflows, and activities that are short or rare.
    pub fn control(&self) -> String {
        format!("{}-control", self.prefix)
    }

    /// Copies of tables.
    pub fn snapshot(&self) -> String {
        format!("{}-snapshot", self.prefix)
    }

    /// Id of the housekeeping schedule, and what its workflows' ids begin with.
    pub fn housekeeping(&self) -> String {
        format!("{}-housekeeping", self.prefix)
    }

    /// Streams.
    pub fn stream(&self) -> String {
        format!("{}-stream", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_keys() {
        let keys = [MIRROR_VERDICT.name(), MIRROR_ROWS_COPIED.name(), MIRROR_LAG_SECONDS.name()];
        assert_eq!(keys, FIGURE_ATTRIBUTES);
    }

    #[test]
    fn a_workflow_finds_the_other_queues_from_its_own() {
        let queues = Queues::new("millrace-test");
        assert_eq!(Queues::of_control(&queues.control()), queues);
        assert_eq!(queues.stream(), "millrace-test-stream");
    }

    #[test]
    fn a_child_names_its_mirror() {
        assert_eq!(mirror_of_child(&stream("shop", 3)), Some("shop"));
        assert_eq!(mirror_of_child(&snapshot("shop", "a/b.c/d", 3)), Some("shop"));
        assert_eq!(mirror_of_child(&mirror("shop")), None);
    }
}
