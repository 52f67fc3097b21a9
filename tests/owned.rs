//! Publications and slots that the user has made: used as they are, and never altered or dropped.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, peer};
use tonic_types::StatusExt;

use crate::support::bed::Bed;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("owned::publication_and_slot_of_the_user", publication_and_slot_of_the_user),
        test(
            "owned::a_publication_that_tells_too_little_is_refused",
            a_publication_that_tells_too_little_is_refused,
        ),
    ]
}

fn settings(publication: &str, slot: &str) -> Option<api::Settings> {
    Some(api::Settings { publication: publication.into(), slot: slot.into(), ..Default::default() })
}

fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().expect("ErrorInfo").reason.clone()
}

/// A role that owns nothing and may make nothing: it reads, and replicates what the owner publishes.
async fn publication_and_slot_of_the_user(bed: Bed) {
    let role = bed.name.replace('-', "_");
    bed.sql(&format!(
        "create table t (id int primary key, v text, hidden text); create table later (id int primary key);
         insert into t select i, 'v', 'secret-word' from generate_series(1, 100) i;
         create role {role} login replication password 'secret-word'; grant select (id, v) on t to {role}; grant select on later to {role};
         create publication owned for table t (id, v)"
    ))
    .await;
    bed.sql(&format!("select pg_create_logical_replication_slot('{role}', 'pgoutput')")).await;
    let mut source = bed.source_peer();
    source.name = format!("{}-reader", bed.name);
    let Some(peer::Config::Postgres(config)) = &mut source.config else { unreachable!("a source") };
    (config.user, config.password) = (role.clone(), Some("secret-word".into()));
    let request = api::CreatePeerRequest { peer: Some(source.clone()), ..Default::default() };
    bed.peers().create_peer(request).await.expect("a peer");
    let mut request = bed.mirror(&["public.t"]);
    request.source = source.name;
    request.settings = settings("owned", &role);
    let refused = bed.create(request.clone()).await.expect_err("a column is not published");
    assert!(refused.message().contains("hidden"), "{refused:?}");
    request.tables[0].exclude = vec!["hidden".into()];
    bed.create(request.clone()).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("update t set v = 'w' where id < 10; delete from t where id = 50; insert into t values (200, 'x', 'y'); create view seen as select id, v from t").await;
    assert_eq!(bed.wait_equal("seen", "t").await, 100);
    let mirror = bed.get().await.expect("the mirror");
    assert_eq!(
        (mirror.streams[0].slot.as_str(), mirror.streams[0].publication.as_str()),
        (role.as_str(), "owned")
    );

    // Its slot is nobody else's.
    request.name = format!("{}-2", bed.name);
    request.tables[0].destination = "other".into();
    assert_eq!(reason(&bed.create(request).await.expect_err("a slot that is used")), "SLOT_EXISTS");

    // A table joins once its owner publishes it.
    let add = || api::UpdateMirrorRequest {
        mirror: Some(api::Mirror {
            tables: mirror
                .tables
                .iter()
                .map(|table| table.source.as_str())
                .chain(["public.later"])
                .map(|source| {
                    let exclude = if source == "public.t" { vec!["hidden".into()] } else { Vec::new() };
                    api::Table { source: source.into(), exclude, ..Default::default() }
                })
                .collect(),
            name: bed.name.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = bed.mirrors().update_mirror(add()).await.expect_err("it is not published");
    assert_eq!(reason(&refused), "PUBLICATION_MISSING");
    bed.sql("alter publication owned add table later; insert into later values (1)").await;
    bed.mirrors().update_mirror(add()).await.expect("it joins");
    assert_eq!(bed.wait_equal("later", "later").await, 1);

    // What the user made stays.
    let request = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().delete_mirror(request).await.expect("it is dropped");
    let sql = format!(
        "select count(*) from pg_replication_slots s, pg_publication p where s.slot_name = '{role}' and not s.active and p.pubname = 'owned'"
    );
    crate::support::wait::until(
        "slot and publication stay, and are free",
        crate::support::bed::SOON,
        || async {
            let left: i64 = bed.source.query_one(&sql, &[]).await.map_err(|error| error.to_string())?.get(0);
            if left == 1 { Ok(()) } else { Err(format!("{left} are there and free")) }
        },
    )
    .await;
    bed.sql(&format!("select pg_drop_replication_slot('{role}')")).await;
}

async fn a_publication_that_tells_too_little_is_refused(bed: Bed) {
    bed.sql("create table t (id int primary key); create publication p_inserts for table t with (publish = 'insert'); create publication p_rows for table t where (id > 5)").await;
    for (publication, message) in [
        ("p_none", "no publication p_none"),
        ("p_inserts", "leaves out operations"),
        ("p_rows", "row filter"),
    ] {
        let mut request = bed.mirror(&["public.t"]);
        request.settings = settings(publication, "");
        let refused = bed.create(request).await.expect_err(publication);
        assert_eq!(reason(&refused), "PUBLICATION_MISSING", "{refused:?}");
        assert!(refused.message().contains(message), "{refused:?}");
    }
    for (slot, code, said) in [
        ("No Slot", tonic::Code::InvalidArgument, "slot"),
        ("no_slot", tonic::Code::DataLoss, "no replication slot no_slot"),
    ] {
        let mut request = bed.mirror(&["public.t"]);
        request.settings = settings("", slot);
        let refused = bed.create(request).await.expect_err(slot);
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(said), "{refused:?}");
    }
}
