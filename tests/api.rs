//! The API's promises that are not about rows: lists, watching, dropping, health, reflection.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use tonic::Code;

use crate::support::bed::Bed;
use crate::support::proxy::Proxy;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("api::peers_never_tell_secrets", peers_never_tell_secrets),
        test("api::a_peer_changes_under_its_mirror", a_peer_changes_under_its_mirror),
        test("api::an_etag_decides", an_etag_decides),
        test("api::lists_source_tables", lists_source_tables),
        test("api::validate_only_makes_nothing", validate_only_makes_nothing),
        test("api::watch_follows_a_mirror_to_its_end", watch_follows_a_mirror_to_its_end),
        test("api::states_follow_one_another", states_follow_one_another),
        test("api::rows_are_counted", rows_are_counted),
        test("api::drop_removes_what_was_made", drop_removes_what_was_made),
        test("api::health_and_reflection", health_and_reflection),
    ]
}

async fn peers_never_tell_secrets(bed: Bed) {
    let name = format!("{}-pg", bed.name);
    let peer = bed
        .peers()
        .get_peer(api::GetPeerRequest { name: name.clone() })
        .await
        .expect("the peer")
        .into_inner();
    let Some(api::peer::Config::Postgres(config)) = &peer.config else { panic!("{peer:?}") };
    assert!(config.password.is_none() && config.password_set, "{peer:?}");
    let listed = bed.peers().list_peers(api::ListPeersRequest::default()).await.expect("peers").into_inner();
    assert!(listed.peers.iter().any(|p| p.name == name));
    let valid = bed
        .peers()
        .validate_peer(api::ValidatePeerRequest {
            target: Some(api::validate_peer_request::Target::Name(name)),
        })
        .await
        .expect("a report")
        .into_inner();
    assert!(valid.ok && valid.checks.iter().any(|check| check.name == "wal_level"), "{valid:?}");
}

/// A role gets another password, then the server another address; the mirror goes on.
async fn a_peer_changes_under_its_mirror(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    let role = bed.name.replace('-', "_");
    bed.sql(&format!("create role {role} superuser login replication password 'first'")).await;
    let mut source = bed.source_peer();
    let Some(api::peer::Config::Postgres(config)) = &mut source.config else { panic!("a source") };
    let server = format!("{}:{}", config.host, config.port);
    (config.user, config.password) = (role.clone(), Some("first".to_owned()));
    let update = |config: api::PostgresConfig, paths: &[&str]| api::UpdatePeerRequest {
        peer: Some(api::Peer {
            name: format!("{}-pg", bed.name),
            config: Some(api::peer::Config::Postgres(config)),
            ..Default::default()
        }),
        update_mask: Some(pbjson_types::FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() }),
        ..Default::default()
    };
    let mut peers = bed.peers();
    let both = update(config.clone(), &["postgres.user", "postgres.password"]);
    peers.update_peer(both).await.expect("another user");
    bed.mirror_streaming(&["public.t"]).await;

    bed.sql(&format!("alter role {role} password 'hunter-two'; insert into t values (2)")).await;
    let second = api::PostgresConfig { password: Some("hunter-two".into()), ..Default::default() };
    let updated = peers.update_peer(update(second, &[])).await.expect("another password").into_inner();
    assert!(!format!("{updated:?}").contains("hunter-two"));
    bed.sql("insert into t values (3)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 3);

    let proxy = Proxy::start(&server).await;
    let moved = api::PostgresConfig { port: proxy.address.port().into(), ..Default::default() };
    let refused =
        peers.update_peer(update(moved.clone(), &[])).await.expect_err("the password goes elsewhere");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let moved = api::PostgresConfig { password: Some("hunter-two".into()), ..moved };
    peers.update_peer(update(moved.clone(), &[])).await.expect("another address");
    bed.sql("insert into t values (4)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 4);
    let other = api::PostgresConfig { database: "postgres".into(), ..Default::default() };
    let refused = peers.update_peer(update(other, &[])).await.expect_err("another database");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let nowhere = api::PostgresConfig { port: 1, password: Some("hunter-two".into()), ..Default::default() };
    let refused = peers.update_peer(update(nowhere, &[])).await.expect_err("nobody is there");
    assert_eq!(refused.code(), Code::Unavailable);
}

async fn an_etag_decides(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let before = bed.mirror_streaming(&["public.t"]).await;
    let pause = |etag: String| api::PauseMirrorRequest { name: bed.name.clone(), etag, ..Default::default() };
    let refused = bed.mirrors().pause_mirror(pause("stale".into())).await.expect_err("changed since");
    assert_eq!(refused.code(), Code::Aborted);
    let paused = bed.mirrors().pause_mirror(pause(before.etag)).await.expect("as it was").into_inner();
    let list = async |states: &[mirror::State]| {
        let request = api::ListMirrorsRequest {
            states: states.iter().map(|state| i32::from(*state)).collect(),
            source: paused.source.clone(),
            ..Default::default()
        };
        bed.mirrors().list_mirrors(request).await.expect("mirrors").into_inner().mirrors.len()
    };
    assert_eq!((list(&[mirror::State::Running]).await, list(&[mirror::State::Paused]).await), (0, 1));
}

async fn lists_source_tables(bed: Bed) {
    bed.sql("create table with_key (id int primary key, t text not null); create table without_key (a numeric(10,2)); create view v as select 1").await;
    let request = api::ListSourceTablesRequest { name: format!("{}-pg", bed.name), ..Default::default() };
    let tables = bed.peers().list_source_tables(request).await.expect("tables").into_inner().tables;
    let names: Vec<&str> = tables.iter().map(|t| t.source.as_str()).collect();
    assert_eq!(names, ["public.with_key", "public.without_key"]);
    assert_eq!(tables[0].key_columns, ["id"]);
    assert!(tables[0].replicable && !tables[1].replicable);
    assert_eq!(tables[1].columns[0].r#type, "numeric(10,2)");
}

async fn validate_only_makes_nothing(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let request = api::CreateMirrorRequest {
        mirror: Some(bed.mirror(&["public.*"])),
        validate_only: true,
        ..Default::default()
    };
    let mirror = bed.mirrors().create_mirror(request).await.expect("it would work").into_inner();
    assert_eq!(mirror.tables.len(), 1);
    assert_eq!((mirror.tables[0].source.as_str(), mirror.tables[0].destination.as_str()), ("public.t", "t"));
    assert_eq!(bed.get().await.expect_err("nothing was made").code(), Code::NotFound);
}

async fn watch_follows_a_mirror_to_its_end(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t select generate_series(1, 1000)").await;
    bed.create(bed.mirror(&["public.t"])).await.expect("a mirror");
    let request = api::WatchMirrorRequest { name: bed.name.clone() };
    let mut watched = bed.mirrors().watch_mirror(request).await.expect("a stream").into_inner();
    loop {
        let seen =
            watched.message().await.expect("an update").expect("the mirror lives").mirror.expect("a mirror");
        if seen.state() == mirror::State::Running {
            assert_eq!(
                (seen.tables[0].state(), seen.tables[0].rows_copied),
                (table::State::Streaming, 1_000)
            );
            break;
        }
    }
    let delete = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    assert!(bed.mirrors().delete_mirror(delete).await.expect("deleted").into_inner().done);
    while watched.message().await.expect("the watch ends without an error").is_some() {}
}

/// Whoever watches sees these states in this order. Some pass too quickly to be seen.
async fn states_follow_one_another(bed: Bed) {
    use mirror::State::{Paused, Running, Setup, Snapshot};
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.create(bed.mirror(&["public.t"])).await.expect("a mirror");
    let request = api::WatchMirrorRequest { name: bed.name.clone() };
    let mut watched = bed.mirrors().watch_mirror(request).await.expect("a stream").into_inner();
    let mut seen = Vec::new();
    let mut steps = vec![("resume", Paused), ("pause", Running)];
    let (pause, resume) = (
        api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() },
        api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() },
    );
    loop {
        let mirror =
            watched.message().await.expect("an update").expect("the mirror lives").mirror.expect("a mirror");
        if seen.last() != Some(&mirror.state()) {
            seen.push(mirror.state());
        }
        match steps.last() {
            Some(("pause", state)) if mirror.state() == *state => {
                bed.mirrors().pause_mirror(pause.clone()).await.expect("paused");
                steps.pop();
            }
            Some(("resume", state)) if mirror.state() == *state => {
                bed.mirrors().resume_mirror(resume.clone()).await.expect("resumed");
                steps.pop();
            }
            None if mirror.state() == Running => break,
            _ => {}
        }
    }
    let mut all = [Setup, Snapshot, Running, Paused, Running].into_iter();
    assert!(seen.iter().all(|state| all.any(|expected| expected == *state)), "{seen:?}");
    assert!(seen.ends_with(&[Running, Paused, Running]), "{seen:?}");
}

async fn rows_are_counted(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); create table u (id int primary key); insert into t select i, i from generate_series(1, 1234) i").await;
    bed.mirror_streaming(&["public.t", "public.u"]).await;
    bed.sql("insert into t select i, i from generate_series(2001, 2100) i; update t set v = -v where id <= 40; delete from t where id between 51 and 57; insert into u values (1)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1_327);
    bed.wait_for("the rows are counted", |mirror| {
        let counts = |table: &api::Table| (table.rows_copied, table.inserts, table.updates, table.deletes);
        mirror.tables.iter().map(counts).eq([(1_234, 100, 40, 7), (0, 1, 0, 0)])
    })
    .await;
}

async fn drop_removes_what_was_made(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let delete = |drop_destination| api::DeleteMirrorRequest {
        name: bed.name.clone(),
        drop_destination,
        ..Default::default()
    };
    let dropped = bed.mirrors().delete_mirror(delete(false)).await.expect("deleted").into_inner();
    assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    assert_eq!(bed.get().await.expect_err("gone").code(), Code::NotFound);
    let sql = "select (select count(*) from pg_replication_slots where database = current_database()) + (select count(*) from pg_publication)";
    let left: i64 = bed.source.query_one(sql, &[]).await.expect("a count").get(0);
    assert_eq!(left, 0, "slot and publication are gone");
    assert_eq!(bed.clickhouse.query("select count() from t").await.expect("the table stays").trim(), "1");
    bed.clickhouse.query("drop table t sync").await.expect("by hand");
    bed.mirror_streaming(&["public.t"]).await;
    bed.mirrors().delete_mirror(delete(true)).await.expect("deleted");
    bed.clickhouse.query("select count() from t").await.expect_err("the table was dropped, too");
}

async fn health_and_reflection(bed: Bed) {
    let mut health = tonic_health::pb::health_client::HealthClient::new(bed.api.clone());
    for service in ["", "millrace.v1.MirrorService"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.expect("health").into_inner().status();
        assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving, "{service:?}");
    }
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(bed.api.clone());
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
        ..Default::default()
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection")
        .into_inner();
    let answer = format!("{:?}", answers.message().await.expect("an answer"));
    for service in ["millrace.v1.PeerService", "millrace.v1.MirrorService", "millrace.v1.SystemService"] {
        assert!(answer.contains(service), "{service}: {answer}");
    }
    assert!(stack::endpoints().http.starts_with("http://"));
}
