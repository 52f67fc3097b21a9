use jiff::Timestamp;
use millrace_catalog::state::Verdict as Health;

use super::*;

fn stream(position: u64, written_below: u64) -> Stream {
    Stream {
        mirror: "shop".into(),
        n: 0,
        slot: "s".into(),
        publication: "p".into(),
        system_id: Some("7".into()),
        timeline: Some(2),
        position: Some(Lsn(position)),
        hold: None,
        position_at: None,
        lease: 1,
        lease_until: None,
        base: 0,
        written_below: Lsn(written_below),
        verdict: Health::Healthy,
        reason: None,
        verdict_since: Timestamp::UNIX_EPOCH,
        last_commit_at: None,
        source_wal: None,
        source_wal_at: None,
        attended_at: None,
        caught_up_at: None,
        moved_at: None,
        rows_per_s: 0.0,
        slot_seen: None,
    }
}

fn found(timeline: u32, left: Option<u64>, slot: u64) -> Found {
    let system = System { id: "7".into(), timeline, position: Lsn(1000) };
    Found { system, left: left.map(Lsn), slot: Ok(Lsn(slot)) }
}

fn lost(verdict: &Verdict) -> (Code, bool, bool) {
    match verdict {
        Verdict::Lost(loss) => (loss.error.code(), loss.other_log, loss.doubtful),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slot_at_or_before_the_position_goes_on_and_one_beyond_is_lost() {
    let stream = stream(500, 600);
    assert_eq!(judge(&stream, &found(2, None, 500)), Verdict::Same);
    assert_eq!(judge(&stream, &found(2, None, 100)), Verdict::Same);
    assert_eq!(lost(&judge(&stream, &found(2, None, 501))), (Code::SlotLost, false, false));
    let gone = Found { slot: Err(Error::new(Code::SlotLost, "gone")), ..found(2, None, 0) };
    assert_eq!(lost(&judge(&stream, &gone)), (Code::SlotLost, false, false));
}

#[test]
fn a_fork_above_what_was_written_is_followed() {
    let followed = |fork| Verdict::Followed { fork: Lsn(fork) };
    assert_eq!(judge(&stream(500, 600), &found(3, Some(600), 400)), followed(600));
    // The position followed the end of the log, in which nothing was ours.
    assert_eq!(judge(&stream(700, 600), &found(3, Some(650), 650)), followed(650));
    let beyond = judge(&stream(700, 600), &found(3, Some(650), 660));
    assert_eq!(lost(&beyond), (Code::SlotLost, false, false), "changes between are missing");
    let without = Found { slot: Err(Error::new(Code::SlotLost, "gone")), ..found(3, Some(650), 0) };
    assert_eq!(lost(&judge(&stream(500, 600), &without)), (Code::SlotLost, false, false));
}

#[test]
fn a_fork_below_what_was_written_and_another_cluster_are_other_logs() {
    let other = (Code::SourceTimeline, true, false);
    let stream = stream(500, 600);
    assert_eq!(lost(&judge(&stream, &found(3, Some(599), 100))), other);
    assert_eq!(lost(&judge(&stream, &found(3, None, 100))), other, "another branch");
    let mut cluster = found(2, None, 100);
    cluster.system.id = "8".into();
    assert_eq!(lost(&judge(&stream, &cluster)), other);
    let mut restored = found(2, None, 100);
    restored.system.position = Lsn(499);
    assert_eq!(lost(&judge(&stream, &restored)), other, "its log ends before the position");
}

#[test]
fn a_former_primary_is_taken_for_the_source_only_by_a_person() {
    assert_eq!(lost(&judge(&stream(500, 600), &found(1, None, 100))), (Code::SourceTimeline, true, true));
}

#[test]
fn decoding_that_is_stuck_is_known_by_the_failure_alone() {
    let stuck = Error::new(Code::DecodingStuck, "could not map filenode").with(STREAM, "0");
    let recovery = Recovery { error: stuck, asked: false };
    let verdict = decide(&stream(500, 600), &found(2, None, 100), Some(&recovery));
    assert_eq!(lost(&verdict), (Code::DecodingStuck, false, false));
    assert_eq!(decide(&stream(500, 600), &found(2, None, 100), None), Verdict::Same);
    let another = Stream { n: 1, ..stream(500, 600) };
    assert_eq!(decide(&another, &found(2, None, 100), Some(&recovery)), Verdict::Same);
}

#[test]
fn a_new_base_is_above_everything_that_was_or_may_have_been_written() {
    let mut stream = stream(500, 600);
    stream.base = 1 << 40;
    // (commit LSNs known, other log, new slot) and what an epoch just below the slot must exceed.
    for (known, other, slot) in [(550, false, 900), (550, true, 10), (550, true, 5000)] {
        let base = stream.base_above((u128::from(stream.base) + known) << 64, other, Lsn(slot));
        let epoch = u128::from(base) + u128::from(slot) - 1;
        assert!(epoch > u128::from(stream.base) + known);
        assert!(!other || epoch >= u128::from(stream.base + stream.written_below.0));
        assert!(base >= stream.base);
    }
    assert_eq!(stream.base_above(0, false, Lsn(900)), stream.base, "on the same log nothing needs to change");
    // A catalog of a backup that knows nothing of a base that was raised since.
    let base = stream.base_above(u128::from(stream.base + (1 << 50)) << 64, false, Lsn(900));
    assert!(base > stream.base + (1 << 50));
}
