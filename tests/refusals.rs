//! Requests that cannot succeed: a clear error with a stable code and the remedy, and nothing left
//! behind on the source, in the catalog or in ClickHouse.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, peer};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::bed::Bed;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("refusals::source_refuses_the_connection", source_refuses_the_connection),
        test("refusals::wrong_password", wrong_password),
        test("refusals::clickhouse_wrong_password", clickhouse_wrong_password),
        test("refusals::wal_level_replica", wal_level_replica),
        test("refusals::table_without_key", table_without_key),
        test("refusals::missing_table_and_peer", missing_table_and_peer),
        test("refusals::destination_table_in_the_way", destination_table_in_the_way),
        test("refusals::malformed_requests", malformed_requests),
        test("refusals::mirror_created_twice", mirror_created_twice),
        test("refusals::what_is_not_built", what_is_not_built),
    ]
}

/// The stable code of a refusal, after the promises of every refusal were looked at.
fn code(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "millrace.dev");
    assert!(info.metadata.get("remedy").is_some_and(|remedy| !remedy.is_empty()), "a remedy: {status:?}");
    info.reason.clone()
}

async fn create_peer(bed: &Bed, peer: api::Peer) -> Result<api::Peer, Status> {
    let request = api::CreatePeerRequest { peer: Some(peer), ..Default::default() };
    bed.peers().create_peer(request).await.map(tonic::Response::into_inner)
}

/// A copy of the test's source peer under another name, changed.
fn altered(bed: &Bed, change: impl FnOnce(&mut api::PostgresConfig)) -> api::Peer {
    let mut peer = bed.source_peer();
    peer.name = format!("{}-other", bed.name);
    let Some(peer::Config::Postgres(config)) = &mut peer.config else { unreachable!("a source") };
    change(config);
    peer
}

async fn assert_no_peer(bed: &Bed, name: &str) {
    let request = api::GetPeerRequest { name: name.to_owned() };
    let missing = bed.peers().get_peer(request).await.expect_err("nothing was stored");
    assert_eq!(missing.code(), Code::NotFound);
}

/// Neither the mirror, nor a slot, a publication or a table is there.
async fn assert_nothing_left(bed: &Bed) {
    assert_eq!(bed.get().await.expect_err("no mirror").code(), Code::NotFound);
    for (what, sql) in [
        ("slots", "select count(*) from pg_replication_slots where database = current_database()"),
        ("publications", "select count(*) from pg_publication"),
    ] {
        let count: i64 = bed.source.query_one(sql, &[]).await.expect(what).get(0);
        assert_eq!(count, 0, "{what} left behind");
    }
    let sql = "select count() from system.tables where database = currentDatabase() and name != 'mine'";
    assert_eq!(
        bed.clickhouse.query(sql).await.as_deref().map(str::trim).unwrap_or("0"),
        "0",
        "tables left behind"
    );
}

async fn source_refuses_the_connection(bed: Bed) {
    let peer = altered(&bed, |config| config.port = 1);
    let refused = create_peer(&bed, peer).await.expect_err("nobody listens there");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unavailable, "SOURCE_UNREACHABLE"));
    assert!(refused.message().contains("127.0.0.1:1"), "{refused:?}");
    assert_no_peer(&bed, &format!("{}-other", bed.name)).await;
}

async fn wrong_password(bed: Bed) {
    let peer = altered(&bed, |config| config.password = Some("wrong-secret-word".into()));
    let refused = create_peer(&bed, peer).await.expect_err("a wrong password");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unauthenticated, "SOURCE_AUTH"));
    assert!(!format!("{refused:?}").contains("wrong-secret-word"), "a secret is never echoed");
    assert_no_peer(&bed, &format!("{}-other", bed.name)).await;
}

async fn clickhouse_wrong_password(bed: Bed) {
    let mut peer = bed.destination_peer();
    peer.name = format!("{}-other", bed.name);
    let Some(peer::Config::Clickhouse(config)) = &mut peer.config else { unreachable!("a destination") };
    config.password = Some("wrong-secret-word".into());
    let refused = create_peer(&bed, peer).await.expect_err("a wrong password");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unauthenticated, "DESTINATION_AUTH"));
    assert!(!format!("{refused:?}").contains("wrong-secret-word"), "a secret is never echoed");
}

/// The catalog's cluster does not write logical WAL: a good example of a source that cannot be one.
async fn wal_level_replica(bed: Bed) {
    let url: tokio_postgres::Config = stack::endpoints().catalog.parse().expect("a URL");
    let peer = altered(&bed, |config| {
        config.port = u32::from(url.get_ports()[0]);
        config.user = url.get_user().expect("a user").to_owned();
        config.password = url.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        // Another database than the catalog, which may be no peer at all.
        config.database = "postgres".to_owned();
    });
    let refused = create_peer(&bed, peer).await.expect_err("wal_level is replica");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::FailedPrecondition, "SOURCE_WAL_LEVEL"));
    let details = refused.get_error_details();
    let remedy = &details.error_info().expect("ErrorInfo").metadata["remedy"];
    assert!(remedy.contains("ALTER SYSTEM SET wal_level"), "{remedy}");
    assert_no_peer(&bed, &format!("{}-other", bed.name)).await;
}

async fn table_without_key(bed: Bed) {
    bed.sql("create table good (id int primary key); create table nokey (a int, b int); create unique index on nokey (a)").await;
    let refused = bed.create(bed.mirror(&["public.good", "public.nokey"])).await.expect_err("no key");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::FailedPrecondition, "TABLE_WITHOUT_KEY"));
    for word in ["public.nokey", "primary key", "replica identity"] {
        assert!(refused.message().contains(word), "{word}: {}", refused.message());
    }
    assert_nothing_left(&bed).await;
}

async fn missing_table_and_peer(bed: Bed) {
    bed.sql("create table good (id int primary key)").await;
    let refused = bed.create(bed.mirror(&["public.good", "public.absent"])).await.expect_err("no table");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::FailedPrecondition, "SOURCE_TABLE_MISSING"));
    assert!(refused.message().contains("public.absent"), "{}", refused.message());
    let mut request = bed.mirror(&["public.good"]);
    request.source = "no-such-peer".into();
    let refused = bed.create(request).await.expect_err("no peer");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::NotFound, "PEER_NOT_FOUND"));
    assert_nothing_left(&bed).await;
}

async fn destination_table_in_the_way(bed: Bed) {
    bed.sql("create table mine (id int primary key)").await;
    let database = bed.name.replace('-', "_");
    bed.clickhouse_admin(&format!("create database {database}")).await;
    bed.clickhouse
        .query("create table mine (x String) engine = MergeTree order by x")
        .await
        .expect("a table");
    bed.clickhouse.query("insert into mine values ('precious')").await.expect("a row");
    let refused = bed.create(bed.mirror(&["public.mine"])).await.expect_err("a foreign table");
    assert_eq!(code(&refused), "DESTINATION_TABLE_EXISTS");
    assert_eq!(
        bed.clickhouse.query("select x from mine").await.expect("it is still there").trim(),
        "precious"
    );
    assert_nothing_left(&bed).await;
}

async fn malformed_requests(bed: Bed) {
    bed.sql("create table good (id int primary key)").await;
    let mut wrong: Vec<(&str, api::Mirror)> = Vec::new();
    wrong.push(("tables", bed.mirror(&[])));
    wrong.push(("tables[0].source", bed.mirror(&["public.good.bad.worse"])));
    wrong.push(("tables[1].source", bed.mirror(&["public.good", "public.good"])));
    let mut request = bed.mirror(&["public.good"]);
    request.name = "Not A Name".into();
    wrong.push(("name", request));
    let mut request = bed.mirror(&["public.good"]);
    request.settings = Some(api::Settings {
        snapshot: Some(api::SnapshotSettings { parallel_tables: Some(0), ..Default::default() }),
        ..Default::default()
    });
    wrong.push(("settings.snapshot.parallel_tables", request));
    for (field, request) in wrong {
        let refused = bed.create(request).await.expect_err(field);
        assert_eq!(
            (refused.code(), code(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_ARGUMENT"),
            "{field}"
        );
        let details = refused.get_error_details();
        let violations =
            &details.bad_request().unwrap_or_else(|| panic!("{field}: {refused:?}")).field_violations;
        assert!(
            violations.iter().any(|violation| violation.field.ends_with(field)),
            "{field}: {violations:?}"
        );
    }
    assert_nothing_left(&bed).await;
}

async fn mirror_created_twice(bed: Bed) {
    bed.sql("create table t (id int primary key); create table u (id int primary key)").await;
    let request = bed.mirror(&["public.t"]);
    let id = uuid::Uuid::new_v4().to_string();
    let create = |mirror: &api::Mirror, request_id: &str, allow_existing| api::CreateMirrorRequest {
        mirror: Some(mirror.clone()),
        request_id: request_id.to_owned(),
        allow_existing,
        ..Default::default()
    };
    let (mut one, mut two) = (bed.mirrors(), bed.mirrors());
    let (first, second) = tokio::join!(
        one.create_mirror(create(&request, &id, false)),
        two.create_mirror(create(&request, &id, false))
    );
    first.expect("a mirror");
    second.expect("the same request again is the same mirror");
    let refused = bed.create(request.clone()).await.expect_err("another request of the same name");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::AlreadyExists, "MIRROR_EXISTS"));
    bed.mirrors().create_mirror(create(&request, "", true)).await.expect("the same mirror is allowed");
    let other = bed.mirror(&["public.t", "public.u"]);
    let refused = bed.mirrors().create_mirror(create(&other, "", true)).await.expect_err("another mirror");
    assert_eq!(refused.code(), Code::AlreadyExists);
    bed.wait_state(api::mirror::State::Running).await;
}

async fn what_is_not_built(bed: Bed) {
    let mut peer = bed.destination_peer();
    peer.name.push_str("-cluster");
    let Some(api::peer::Config::Clickhouse(config)) = &mut peer.config else { unreachable!() };
    config.cluster = "main".to_owned();
    let refused = create_peer(&bed, peer).await.expect_err("a cluster");
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));
    assert!(refused.message().contains("cluster"), "{refused:?}");
}
