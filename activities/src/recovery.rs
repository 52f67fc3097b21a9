//! A source that is not what it was: judged, followed to another timeline, or begun anew from a new slot.
//!
//! # When a stream can go on
//!
//! Its log must be the one that it has followed, and its slot must hold everything behind the position.
//! A promoted standby writes a log that left the former one at a *fork*: what was committed from there on,
//! on the former timeline, is gone. If nothing of it was written to the destination (the catalog knows, by
//! `written_below`), and the slot is there, the stream goes on. A position beyond the fork goes back to it:
//! it followed the end of a log in which nothing was ours. Tables that a copy has read beyond the fork are
//! copied again, because it may have seen what is gone.
//!
//! # When it begins anew
//!
//! Otherwise a new slot is made, every table of the stream is copied again with a new epoch, and each copy ends with its
//! sweep: what was missed in between, deletes too, is made up for. On the log that the stream followed, a
//! new slot's positions are above all that were written. On another one they need not be: `base` is raised
//! by what the old log may have brought, so that `base + E` is above every version in the destination. The
//! destination is asked too: a catalog that was restored from a backup may know of less.
//!
//! An attempt on a primary that was replaced, but lives, may still be writing. So the lease is taken first:
//! from then on it can neither announce more than `written_below` has, nor write a position.
//!
//! # Several streams
//!
//! Each stream of a mirror is judged by itself, and the others go on: one may have lost its slot, or have
//! written beyond a fork, where another has not. So the bases of a mirror's streams may come to differ. They
//! are never compared: rows of one key are rows of one source table (tables that share a destination have
//! their name in the key), and a table stays with its stream, also if it leaves the mirror and comes back.
//!
//! Changes are never skipped: either the stream goes on without a gap, or all is copied again and an event
//! says so, or the mirror fails with the reason. Which of the last two is the mirror's `on_slot_lost`; a
//! person who resumes a mirror that has failed so asks for the former. Where all of the stream is to be copied
//! again in any case, nothing is asked.

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::recovery::Restart;
use millrace_catalog::spec::OnSlotLost;
use millrace_catalog::streams::{SlotFacts, Stream};
use millrace_catalog::tables::Table;
use millrace_replication::postgres::{self, SourceConfig, System, slot};
use millrace_terms::{Code, Error, Lsn, Result};
use millrace_workflows::payload::Recovery;

use crate::environment::Environment;
use crate::prepare_source::publish_all;

/// What a source is to a stream that was prepared on it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on from its position.
    Same,
    /// It goes on, on the source's timeline, from here at most.
    Followed {
        /// Where that timeline left the stream's.
        fork: Lsn,
    },
    /// It cannot go on.
    Lost(Loss),
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The reason.
    pub(crate) error: Error,
    /// Whether the source's log is another one, or one that forked below what was written.
    pub(crate) other_log: bool,
    /// Whether a person must ask for a new beginning, whatever the mirror's policy: it may be the
    /// address that is wrong.
    pub(crate) doubtful: bool,
}

/// What was found on a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Who it is.
    pub(crate) system: System,
    /// Where its log left the stream's timeline; none if it is the same, or does not come from it.
    pub(crate) left: Option<Lsn>,
    /// Where the slot stands, or why it cannot be used.
    pub(crate) slot: Result<Lsn, Error>,
}

/// Looks at the source of a stream.
///
/// # Errors
/// `SOURCE_IN_RECOVERY`, `SLOT_EXISTS`, and those of a session. A slot that is lost is no error here.
pub(crate) async fn look(source: &SourceConfig, application: &str, stream: &Stream) -> Result<Found> {
    let system = postgres::identify(source, application).await?;
    let is_same_cluster = stream.system_id.as_ref() == Some(&system.id);
    let left = match stream.timeline {
        Some(timeline) if is_same_cluster && timeline < system.timeline => {
            postgres::left_timeline(source, application, &system, timeline).await?
        }
        _ => None,
    };
    let session = postgres::dial_log(source, application, &system).await?;
    let slot = match slot::verify(&session, &stream.slot).await {
        Err(error) if error.code() != Code::SlotLost => return Err(error),
        found => found,
    };
    Ok(Found { system, left, slot })
}

/// Judges what was found. Pure.
pub(crate) fn judge(stream: &Stream, found: &Found) -> Verdict {
    let (Some(id), Some(timeline), Some(position)) = (&stream.system_id, stream.timeline, stream.start())
    else {
        return Verdict::Same;
    };
    let Found { system, left, slot } = found;
    let other_log = |why: String, doubtful: bool| {
        let error = Error::new(Code::SourceTimeline, why).with("mirror", &stream.mirror);
        Verdict::Lost(Loss { error, other_log: true, doubtful })
    };
    if *id != system.id {
        return other_log(format!("the source is system {}, the mirror was made for {id}", system.id), false);
    }
    if system.timeline < timeline {
        let why = format!(
            "the source is on timeline {}, which the mirror has left for timeline {timeline}: is it a former primary?",
            system.timeline
        );
        return other_log(why, true);
    }
    let start = match (system.timeline == timeline, left) {
        (true, _) if system.position < position => {
            let why = format!("the source's log ends at {}, before the position {position}", system.position);
            return other_log(why, false);
        }
        (true, _) => position,
        (false, None) => {
            let why = format!("timeline {} of the source does not come from {timeline}", system.timeline);
            return other_log(why, false);
        }
        (false, Some(fork)) if *fork < stream.written_below => {
            let why = format!(
                "timeline {} of the source left timeline {timeline} at {fork}; changes up to {} may have been written",
                system.timeline, stream.written_below
            );
            return other_log(why, false);
        }
        (false, Some(fork)) => position.min(*fork),
    };
    let lost = |error| Verdict::Lost(Loss { error, other_log: false, doubtful: false });
    match (slot, left) {
        (Err(error), _) => lost(error.clone()),
        (Ok(slot), _) if *slot > start => {
            let why = format!(
                "slot {} stands at {slot}, beyond the position {start}: somebody else has moved it, or the catalog is that of a backup",
                stream.slot
            );
            lost(Error::new(Code::SlotLost, why).with("slot", &stream.slot))
        }
        (Ok(_), Some(fork)) if system.timeline != timeline => Verdict::Followed { fork: *fork },
        (Ok(_), _) => Verdict::Same,
    }
}

/// Why the attempt of a stream cannot begin by this verdict: what is to be done is done by those who
/// prepare the source.
pub(crate) fn refusal(verdict: &Verdict, system: &System) -> Option<Error> {
    match verdict {
        Verdict::Same => None,
        Verdict::Followed { fork } => {
            let why = format!("the source goes on on timeline {} since {fork}", system.timeline);
            Some(Error::new(Code::SourceTimeline, why))
        }
        Verdict::Lost(loss) => Some(loss.error.clone()),
    }
}

/// Key in an error's metadata: the number of the stream that could not decode the log.
pub(crate) const STREAM: &str = "stream";

/// A mirror's source, with what a recovery needs of it.
pub(crate) struct Source<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) mirror: &'a Mirror,
    pub(crate) config: SourceConfig,
    pub(crate) application: String,
}

/// Makes sure that a stream that was prepared before can go on: as it is, on another timeline, or anew.
///
/// # Errors
/// The reason, if it cannot go on and nobody asks that it begins anew.
pub(crate) async fn recover(source: &Source<'_>, stream: &Stream, recovery: Option<&Recovery>) -> Result<()> {
    let Source { environment, mirror, config, application } = source;
    let found = look(config, application, stream).await?;
    if decide(stream, &found, recovery) == Verdict::Same {
        return Ok(());
    }
    let lease = environment.catalog.take_lease(mirror.name(), stream.n, std::time::Duration::ZERO).await?;
    // What attempts before have announced is final now, and nothing moves any more. An attempt that was cut
    // off may have gone on since the first look: its position may lie beyond what was found then.
    let stream = environment.catalog.get_stream(mirror.name(), stream.n).await?;
    let found = look(config, application, &stream).await?;
    match decide(&stream, &found, recovery) {
        Verdict::Same => Ok(()),
        Verdict::Followed { fork } => {
            let why = format!(
                "the source was promoted: stream {} follows it to timeline {}, from {fork}",
                stream.n, found.system.timeline
            );
            let reason = Error::new(Code::SourceTimeline, why).with_remedy("Nothing: nothing is missing.");
            let (name, timeline) = (mirror.name(), found.system.timeline);
            environment.catalog.follow_timeline(name, stream.n, lease.number, timeline, fork, &reason).await
        }
        Verdict::Lost(loss) => {
            let settings = &mirror.spec.settings;
            let by_policy = settings.on_slot_lost == OnSlotLost::Resync && !loss.doubtful;
            let asked = recovery.is_some_and(|recovery| recovery.asked);
            // Of a mirror that was completed, say: nothing more is copied than would be anyway.
            let is_copied = !loss.doubtful && is_copied_again(environment, mirror, &stream).await?;
            // A slot that its owner made is the owner's to make anew.
            if !settings.slot.is_empty() || !(by_policy || asked || is_copied) {
                return Err(loss.error);
            }
            begin_anew(source, &stream, lease.number, &loss).await
        }
    }
}

/// Whether every table of the stream is to be copied again, whatever becomes of the stream.
async fn is_copied_again(environment: &Environment, mirror: &Mirror, stream: &Stream) -> Result<bool> {
    let wanted = environment.catalog.wanted_resyncs(mirror.name()).await?;
    let streamed = |table: &&Table| table.stream == stream.n && table.state.is_streamed();
    let mut tables = mirror.tables.iter().filter(streamed).peekable();
    Ok(tables.peek().is_some() && tables.all(|table| wanted.contains(&table.id)))
}

/// The verdict, with what attempts have found that cannot be seen from outside.
fn decide(stream: &Stream, found: &Found, recovery: Option<&Recovery>) -> Verdict {
    match (judge(stream, found), recovery) {
        (Verdict::Same | Verdict::Followed { .. }, Some(Recovery { error, .. }))
            if error.code() == Code::DecodingStuck
                && error.metadata().get(STREAM) == Some(&stream.n.to_string()) =>
        {
            Verdict::Lost(Loss { error: error.clone(), other_log: false, doubtful: false })
        }
        (verdict, _) => verdict,
    }
}

/// Begins anew: a new slot, and all tables are copied again. May be repeated from any point: until the
/// catalog has the new slot, the stream is found lost again.
async fn begin_anew(source: &Source<'_>, stream: &Stream, lease: i64, loss: &Loss) -> Result<()> {
    let Source { environment, mirror, config, application } = source;
    let known = highest_version(environment, mirror, stream).await?;
    let session = postgres::dial(config, application).await?;
    slot::drop(&session, &stream.slot, application).await?;
    publish_all(source, stream).await?;
    let system = postgres::identify(config, application).await?;
    let position = slot::ensure(config, application, &stream.slot).await?.position;
    let base = stream.base_above(known, loss.other_log, position);
    let facts = SlotFacts { system_id: system.id, timeline: system.timeline, position };
    let why = format!(
        "{}; stream {} begins anew at {position} with a new slot, and every table of it is copied again",
        loss.error.message(),
        stream.n
    );
    let reason = Error::new(loss.error.code(), why).with_remedy("Nothing: the copies make up for it.");
    let restart = Restart { slot: &facts, base, other_log: loss.other_log, reason: &reason };
    environment.catalog.restart_stream(mirror.name(), stream.n, lease, &restart).await
}

/// The highest version in the destination tables of a stream.
async fn highest_version(environment: &Environment, mirror: &Mirror, stream: &Stream) -> Result<u128> {
    let destination = environment.destination(mirror).await?;
    let mut highest = 0;
    for table in mirror.tables.iter().filter(|table| table.stream == stream.n) {
        let plan = environment.plan(table.id).await?;
        highest = highest.max(destination.clickhouse.highest_version(&plan).await?);
    }
    Ok(highest)
}

#[cfg(test)]
mod tests;
