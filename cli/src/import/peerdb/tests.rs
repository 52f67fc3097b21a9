use super::*;
use crate::import::tests::shown;

#[test]
fn a_mirror_of_the_rest_api_becomes_a_file() {
    insta::assert_snapshot!(shown(&read(include_str!("../fixtures/peerdb_mirror.json")).unwrap()));
}

#[test]
fn what_the_api_answers_is_read_as_well() {
    insta::assert_snapshot!(shown(&read(include_str!("../fixtures/peerdb_flow.json")).unwrap()));
}

#[test]
fn statements_become_a_file() {
    insta::assert_snapshot!(shown(&read(include_str!("../fixtures/peerdb.sql")).unwrap()));
}

#[test]
fn what_is_not_peerdbs_is_refused_without_showing_it() {
    for text in [
        "{\"a\": \"hunter2\"}",
        "[1]",
        "{\"flow_job_name\": \"m\"}",
        "",
        "{\"password\": \"hunter2\"",
        "hello",
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{text}");
        assert!(!error.message().contains("hunter2"), "{error}");
    }
}
