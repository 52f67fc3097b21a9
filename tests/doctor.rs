//! Diagnoses: what is wrong is named with what mends it, and looking changes nothing.

use libtest_mimic::Trial;
use millrace_proto::v1::peer::Config;
use millrace_proto::v1::system_service_client::SystemServiceClient;
use millrace_proto::v1::{self as api, check, diagnosis};

use crate::support::bed::{Bed, SOON};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("doctor::a_missing_privilege_is_named_with_its_grant", missing_privilege),
        test("doctor::a_look_makes_nothing_on_either_side", look_makes_nothing),
        test("doctor::the_installation_is_well", installation_is_well),
        test("doctor::a_long_transaction_is_named", long_transaction),
        test("doctor::a_lost_slot_and_publication_are_found", lost_slot_and_publication),
    ]
}

async fn diagnose(bed: &Bed, peers: &[&str], mirrors: &[&str]) -> api::DoctorResponse {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let request = api::DoctorRequest { peers: names(peers), mirrors: names(mirrors) };
    SystemServiceClient::new(bed.api.clone()).doctor(request).await.expect("a diagnosis").into_inner()
}

fn not_passed(checks: &[api::Check]) -> Vec<&api::Check> {
    checks.iter().filter(|check| check.status() != check::Status::Pass).collect()
}

/// The peer of the source with another role, which may do little.
async fn as_reader(bed: &Bed) -> (api::Peer, String) {
    let role = format!("{}_reader", bed.name.replace('-', "_"));
    bed.sql(&format!("create role {role} login replication password 'reader'")).await;
    let mut peer = bed.source_peer();
    peer.name = format!("{}-reader", bed.name);
    let Some(Config::Postgres(config)) = &mut peer.config else { unreachable!("a source") };
    config.user = role.clone();
    config.password = Some("reader".into());
    (peer, role)
}

async fn missing_privilege(bed: Bed) {
    bed.sql("create table good (id int primary key); create table secret (id int primary key, pay int)")
        .await;
    let (peer, role) = as_reader(&bed).await;
    bed.sql(&format!("grant select on good to {role}; grant select (id) on secret to {role}")).await;
    bed.sql(&format!("alter table good owner to {role}; alter table secret owner to {role}")).await;
    bed.sql(&format!("revoke all on secret from {role}; grant select (id) on secret to {role}")).await;
    let request = api::CreatePeerRequest { peer: Some(peer.clone()), ..Default::default() };
    bed.peers().create_peer(request).await.expect("a peer");
    let found = diagnose(&bed, &[&peer.name], &[]).await;
    assert!(found.ok, "a warning is no failure: mirrors may be made with publications of the owner");
    let told = not_passed(&found.diagnoses[1].checks);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].name.as_str(), told[0].status()), ("publication_privilege", check::Status::Warn));
    let grant = format!("TO \"{role}\";");
    assert!(
        told[0].remedy.contains("GRANT CREATE ON DATABASE") && told[0].remedy.contains(&grant),
        "{told:?}"
    );

    bed.sql(&format!("grant create on database {} to {role}", bed.name.replace('-', "_"))).await;
    let mut mirror = bed.mirror(&["public.good", "public.secret"]);
    mirror.source = peer.name;
    let request = api::ValidateMirrorRequest { mirror: Some(mirror) };
    let report = bed.mirrors().validate_mirror(request).await.expect("a report").into_inner();
    let told = not_passed(&report.checks);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].name.as_str(), told[0].subject.as_str()), ("read_privilege", "public.secret"));
    let grant = format!("GRANT SELECT (\"pay\") ON \"public\".\"secret\" TO \"{role}\";");
    assert!(told[0].remedy.contains(&grant), "{told:?}");
}

/// Everything that either side knows of, as text.
async fn catalogs(bed: &Bed) -> (Vec<String>, String) {
    let sql = "
        select format('class %s %s %s', oid, relname, relfilenode) from pg_class
        union all select format('publication %s', pubname) from pg_publication
        union all select format('slot %s', slot_name) from pg_replication_slots where slot_name like $1
        union all select format('role %s %s', rolname, rolreplication) from pg_roles where rolname like $1
        order by 1";
    let like = format!("%{}%", bed.name.replace('-', "_"));
    let rows = bed.source.query(sql, &[&like]).await.expect("the source's catalog");
    let tables = bed
        .clickhouse
        .query("select count(), groupArray(name) from system.tables where database = currentDatabase()")
        .await;
    (rows.iter().map(|row| row.get(0)).collect(), tables.unwrap_or_else(|_| "no database".into()))
}

async fn look_makes_nothing(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); create table nokey (a int)").await;
    let before = catalogs(&bed).await;
    for tables in [&["public.t"][..], &["public.t", "public.nokey"]] {
        let mirror = Some(bed.mirror(tables));
        let request = api::ValidateMirrorRequest { mirror: mirror.clone() };
        let report = bed.mirrors().validate_mirror(request).await.expect("a report").into_inner();
        assert_eq!(report.ok, tables.len() == 1, "{report:?}");
        let request = api::CreateMirrorRequest { mirror, validate_only: true, ..Default::default() };
        assert_eq!(bed.mirrors().create_mirror(request).await.is_ok(), tables.len() == 1);
    }
    let (source, destination) = (format!("{}-pg", bed.name), format!("{}-ch", bed.name));
    let found = diagnose(&bed, &[&source, &destination], &[]).await;
    assert!(found.ok, "{found:?}");
    assert_eq!(catalogs(&bed).await, before);
    assert!(bed.get().await.is_err(), "no mirror was stored");
}

async fn installation_is_well(bed: Bed) {
    let peer = format!("{}-pg", bed.name);
    let found = diagnose(&bed, &[&peer], &[]).await;
    let installation = &found.diagnoses[0];
    assert_eq!(installation.kind(), diagnosis::Kind::Installation);
    assert!(not_passed(&installation.checks).is_empty(), "{installation:?}");
    let queues: Vec<_> = installation.checks.iter().filter(|check| check.name == "workers").collect();
    assert_eq!(queues.len(), 3, "{installation:?}");
    let unknown = api::DoctorRequest { peers: vec!["no-such-peer".into()], mirrors: Vec::new() };
    let refused = SystemServiceClient::new(bed.api.clone()).doctor(unknown).await.expect_err("no peer");
    assert_eq!(refused.code(), tonic::Code::NotFound);

    let output = std::process::Command::new(stack::binary())
        .args(["doctor", "--peer", &peer])
        .env("MILLRACE_ADDRESS", &stack::endpoints().grpc)
        .output()
        .expect("millrace runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("wal_level is logical"), "{text}");
    assert!(text.contains("0 failed"), "{text}");
}

async fn long_transaction(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let session = bed.session().await;
    session
        .batch_execute("set application_name = 'nightly'; begin; insert into t values (4711)")
        .await
        .expect("an open transaction");
    let pid: i32 = session.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get(0);
    let peer = format!("{}-pg", bed.name);
    let told = wait::until("the transaction is told of", SOON, || async {
        let found = diagnose(&bed, &[&peer], &[]).await;
        let told = found.diagnoses[1].checks.iter().find(|check| {
            check.name == "open_transactions" && check.message.contains(&format!("process {pid} "))
        });
        told.cloned().ok_or_else(|| format!("{found:?}"))
    })
    .await;
    assert_eq!(told.status(), check::Status::Warn);
    assert!(told.message.contains("(nightly)") && told.remedy.contains("pg_terminate_backend("), "{told:?}");
    assert!(!told.message.contains("4711"), "the statement is not shown: {told:?}");
    session.batch_execute("rollback").await.expect("the end");
}

async fn lost_slot_and_publication(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let mirror = bed.mirror_streaming(&["public.t"]).await;
    let found = diagnose(&bed, &[], &[&bed.name]).await;
    assert!(found.ok, "{found:?}");
    let names: Vec<_> = found.diagnoses[1].checks.iter().map(|check| check.name.as_str()).collect();
    for name in ["workflow", "state", "stream", "publication", "slot", "destination_table", "key"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }

    let pause = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(pause).await.expect("it pauses");
    let stream = &mirror.streams[0];
    wait::until("the slot is free", SOON, || async {
        let dropped = bed.source.execute("select pg_drop_replication_slot($1)", &[&stream.slot]).await;
        dropped.map_err(|error| error.to_string())
    })
    .await;
    bed.sql(&format!("drop publication {}", stream.publication)).await;
    let found = diagnose(&bed, &[], &[&bed.name]).await;
    let told = not_passed(&found.diagnoses[1].checks);
    let seen: Vec<_> = told.iter().map(|check| (check.name.as_str(), check.code.as_str())).collect();
    for expected in [("state", "MIRROR_STATE"), ("publication", "PUBLICATION_MISSING"), ("slot", "SLOT_LOST")]
    {
        assert!(seen.contains(&expected), "{expected:?}: {told:?}");
    }
}
