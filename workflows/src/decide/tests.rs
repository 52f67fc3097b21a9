use millrace_terms::Code;

use super::*;

fn due(id: i64, bytes: u64) -> DueTable {
    DueTable { id, table: format!("public.t{id}"), copy_no: 1, bytes }
}

fn running(tables: &[DueTable]) -> Progress {
    let overview = Overview {
        streams: vec![0],
        due: tables.to_vec(),
        parallel_tables: 2,
        parallel_partitions: 4,
        ..Overview::default()
    };
    let streams = [(0, Child::Running)].into();
    Progress { phase: Phase::Running, streams, stale: false, overview, ..Progress::default() }
}

#[test]
fn a_new_mirror_is_recorded_prepared_streamed_and_copied_in_this_order() {
    let mut mirror = Progress::default();
    assert_eq!(mirror.next(), Step::Record);
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Prepare);
    mirror.apply(Event::Prepared).unwrap();
    assert_eq!(mirror.next(), Step::Record);
    mirror.overview = running(&[due(1, 10)]).overview;
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::StartStreams(vec![0]), "the stream runs before the first copy begins");
    mirror.streams.insert(0, Child::Running);
    assert_eq!(mirror.next(), Step::StartCopies(vec![(due(1, 10), 4)]));
    mirror.copies_started(&due(1, 10), 4);
    assert_eq!(mirror.next(), Step::Wait);
}

#[test]
fn tables_and_copiers_stay_within_their_limits() {
    let mut mirror = running(&[due(1, 900), due(2, 100), due(3, 100)]);
    assert_eq!(mirror.next(), Step::StartCopies(vec![(due(1, 900), 3), (due(2, 100), 1)]));
    mirror.copies_started(&due(1, 900), 3);
    mirror.copies_started(&due(2, 100), 1);
    assert_eq!(mirror.next(), Step::Wait);
    mirror.copy_ended(&CopyEnded { table_id: 1, copy_no: 1, outcome: Outcome::Done });
    assert_eq!(mirror.next(), Step::Record, "the end of a copy is looked up before the next begins");
    mirror.stale = false;
    mirror.overview.due = vec![due(3, 100)];
    assert_eq!(mirror.next(), Step::StartCopies(vec![(due(3, 100), 3)]));
}

#[test]
fn the_report_of_an_older_copy_changes_nothing() {
    let mut mirror = running(&[]);
    mirror.copies_started(&DueTable { copy_no: 2, ..due(1, 1) }, 1);
    mirror.copy_ended(&CopyEnded { table_id: 1, copy_no: 1, outcome: Outcome::Stopped });
    assert_eq!(mirror.copies.len(), 1);
}

#[test]
fn a_pause_stops_every_child_once_and_resume_waits_until_the_old_stream_is_gone() {
    let mut mirror = running(&[due(1, 1)]);
    mirror.copies_started(&due(1, 1), 1);
    mirror.apply(Event::Pause).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Stop);
    mirror.streams.insert(0, Child::Stopping);
    mirror.copies.get_mut(&1).unwrap().stopping = true;
    assert_eq!(mirror.next(), Step::Wait);
    assert!(!mirror.is_quiet());
    mirror.apply(Event::Resume).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Wait, "two streams would fight for one slot");
    mirror.stream_ended(StreamEnded { stream: 0, outcome: Outcome::Stopped });
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::StartStreams(vec![0]));
}

#[test]
fn a_stream_that_fails_for_good_fails_the_mirror_and_resume_prepares_again() {
    let mut mirror = running(&[]);
    let denied = Error::new(Code::SourcePermission, "permission denied");
    mirror.stream_ended(StreamEnded { stream: 0, outcome: Outcome::Failed(denied.clone()) });
    assert_eq!((mirror.phase, mirror.error.clone()), (Phase::Failed, Some(denied)));
    mirror.apply(Event::Resume).unwrap();
    assert_eq!((mirror.phase, mirror.error.clone()), (Phase::Setup, None));
    assert_eq!(mirror.recovery, None, "nothing is lost");
}

#[test]
fn a_stream_that_is_lost_is_prepared_again_and_begins_anew_only_when_asked() {
    for code in [Code::SlotLost, Code::SourceTimeline, Code::DecodingStuck] {
        let mut mirror = running(&[]);
        let lost = Error::new(code, "the stream cannot go on");
        mirror.stream_ended(StreamEnded { stream: 0, outcome: Outcome::Failed(lost.clone()) });
        assert_eq!(mirror.phase, Phase::Setup, "the policy is known where the source is prepared");
        assert_eq!(mirror.recovery, Some(Recovery { error: lost.clone(), asked: false }));
        mirror.fail(lost.clone());
        assert_eq!((mirror.phase, mirror.recovery.clone()), (Phase::Failed, None));
        mirror.apply(Event::Resume).unwrap();
        assert_eq!(mirror.recovery, Some(Recovery { error: lost, asked: true }));
        mirror.apply(Event::Prepared).unwrap();
        assert_eq!((mirror.phase, mirror.recovery.clone()), (Phase::Running, None));
    }
}

#[test]
fn a_stream_that_was_stopped_by_somebody_else_is_started_again() {
    let mut mirror = running(&[]);
    mirror.stream_ended(StreamEnded { stream: 0, outcome: Outcome::Stopped });
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::StartStreams(vec![0]));
}

#[test]
fn tables_join_and_leave_before_anything_else_is_copied_and_again_until_nothing_is_left() {
    let mut mirror = running(&[due(1, 1)]);
    mirror.overview.edits = 1;
    assert_eq!(mirror.next(), Step::Edit);
    assert!(!mirror.is_settled());
    mirror.streams.clear();
    assert_eq!(
        mirror.next(),
        Step::StartStreams(vec![0]),
        "a table that joins is streamed before it is copied"
    );
    mirror.streams.insert(0, Child::Running);
    mirror.apply(Event::Pause).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Stop, "a pause does not wait for it");
    mirror.streams.clear();
    assert_eq!(mirror.next(), Step::Edit);
    mirror.recorded(Phase::Paused, Overview::default());
    assert_eq!((mirror.next(), mirror.is_settled()), (Step::Wait, true));
}

#[test]
fn what_was_changed_while_the_catalog_was_asked_is_not_settled() {
    let mut mirror = running(&[]);
    mirror.recorded = Some(Phase::Running);
    assert!(mirror.is_settled());
    mirror.asking = true;
    assert!(!mirror.is_settled(), "the answer is not there");
    mirror.recorded(Phase::Running, Overview { edits: 1, ..Overview::default() });
    assert!(!mirror.is_settled());
    mirror.apply(Event::Drop).unwrap();
    assert!(mirror.is_settled(), "nobody will do it any more");
}

#[test]
fn a_copy_that_is_over_in_the_catalog_is_stopped_once_and_waited_for() {
    let mut mirror = running(&[]);
    mirror.recorded = Some(Phase::Running);
    mirror.copies_started(&due(1, 1), 1);
    mirror.copies_started(&due(2, 1), 1);
    mirror.overview.over = vec![2, 3];
    assert_eq!(mirror.next(), Step::StopCopies(vec![2]));
    mirror.copies.get_mut(&2).unwrap().stopping = true;
    assert_eq!((mirror.next(), mirror.is_settled()), (Step::Wait, false));
    mirror.copy_ended(&CopyEnded { table_id: 2, copy_no: 1, outcome: Outcome::Stopped });
    mirror.stale = false;
    assert!(mirror.is_settled());
}

#[test]
fn a_drop_comes_before_everything() {
    let mut mirror = Progress::default();
    mirror.apply(Event::Drop).unwrap();
    assert_eq!(mirror.next(), Step::Drop);
}

#[test]
fn a_mirror_that_only_copies_stops_its_stream_and_releases_the_source_before_it_ends() {
    let mut mirror = running(&[]);
    mirror.overview.complete = true;
    assert_eq!(mirror.next(), Step::Complete);
    mirror.apply(Event::Complete).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Stop);
    mirror.stream_ended(StreamEnded { stream: 0, outcome: Outcome::Stopped });
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Release);
    mirror.released = true;
    assert_eq!(mirror.next(), Step::Finish);
}

#[test]
fn tables_that_need_a_resync_get_it_while_the_mirror_runs() {
    let mut mirror = running(&[due(1, 1)]);
    mirror.overview.resync_needed = true;
    assert_eq!(mirror.next(), Step::Resync, "before copies that it would make void");
    mirror.streams.clear();
    assert_eq!(mirror.next(), Step::StartStreams(vec![0]));
    mirror.apply(Event::Pause).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Wait, "a pause keeps it for later");
}

#[test]
fn the_streams_of_a_mirror_run_and_end_each_by_itself() {
    let mut mirror = running(&[]);
    mirror.overview.streams = vec![0, 1, 2];
    assert_eq!(mirror.next(), Step::StartStreams(vec![1, 2]));
    mirror.streams.extend([(1, Child::Running), (2, Child::Running)]);
    assert_eq!((mirror.next(), mirror.status().streaming), (Step::Wait, vec![0, 1, 2]));
    mirror.stream_ended(StreamEnded { stream: 1, outcome: Outcome::Stopped });
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::StartStreams(vec![1]));
    mirror.streams.insert(1, Child::Running);
    mirror.apply(Event::Pause).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Stop);
    mirror.streams.values_mut().for_each(|child| *child = Child::Stopping);
    for stream in [2, 0] {
        mirror.stream_ended(StreamEnded { stream, outcome: Outcome::Stopped });
        assert!(!mirror.is_quiet(), "stream 1 still stops");
    }
    mirror.stream_ended(StreamEnded { stream: 1, outcome: Outcome::Stopped });
    assert!(mirror.is_quiet());
}

#[test]
fn streams_that_are_lost_one_after_the_other_are_prepared_together_while_the_rest_go_on() {
    let mut mirror = running(&[]);
    mirror.overview.streams = vec![0, 1, 2];
    mirror.streams.extend([(1, Child::Running), (2, Child::Running)]);
    for stream in [2, 0] {
        let error = Error::new(Code::SlotLost, format!("slot {stream} is gone"));
        mirror.stream_ended(StreamEnded { stream, outcome: Outcome::Failed(error) });
        assert_eq!(mirror.phase, Phase::Setup);
    }
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::Prepare);
    assert_eq!(mirror.prepare_source("shop").running, [1]);
    mirror.apply(Event::Prepared).unwrap();
    mirror.stale = false;
    assert_eq!(mirror.next(), Step::StartStreams(vec![0, 2]));
}

#[test]
fn the_details_hold_the_figures_that_were_told() {
    let mut mirror = running(&[]);
    mirror.overview.state = "SNAPSHOT".into();
    mirror.figures = Some(Figures {
        as_of: "2026-11-21 03:27:00 UTC".into(),
        verdict: "STALLED".into(),
        stalled: "NO_WORKERS: no worker".into(),
        tables: 3,
        tables_done: 1,
        rows_copied: 500,
        rows_estimated: 1_000,
        copied_per_s: Some(50),
        eta_s: Some(10),
        lag_bytes: Some(7),
        lag_s: Some(2),
        ..Figures::default()
    });
    let details = mirror.details();
    for line in [
        "- verdict: **STALLED** NO_WORKERS: no worker",
        "- 1 of 3 tables copied: 500 of about 1000 rows, 50 rows/s, 10 s left",
        "- streamed: 0 rows/s, lag 7 bytes, 2 s",
        "- as of 2026-11-21 03:27:00 UTC",
    ] {
        assert!(details.contains(line), "{line} in {details}");
    }
}
