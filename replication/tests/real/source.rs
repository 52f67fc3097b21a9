//! What is asked of a source outside its replication protocol.

use std::time::Duration;

use millrace_replication::postgres::describe::{self, TableKind};
use millrace_replication::postgres::{check, dial, epoch, identify, partition, publication, slot};
use millrace_terms::check::Status;
use millrace_terms::{Code, Lsn, TableName};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::servers::{APPLICATION, Source};

fn table(name: &str) -> TableName {
    TableName::new("public", name)
}

const NEW: check::Purpose = check::Purpose::NewMirror { publishes: true, slots: 1 };

#[tokio::test]
async fn a_good_source_passes_every_check_and_knows_who_it_is() {
    let source = Source::new().await;
    let (checks, session) = check::source(&source.config, APPLICATION, NEW).await;
    assert!(checks.iter().all(|check| check.status == Status::Pass), "{checks:#?}");
    assert!(session.is_some());
    let system = identify(&source.config, APPLICATION).await.unwrap();
    assert!(system.id.len() > 10 && system.timeline == 1 && system.position > Lsn::ZERO, "{system:?}");
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let source = Source::new().await;
    let refused = |change: &dyn Fn(&mut millrace_replication::postgres::SourceConfig)| {
        let mut config = source.config.clone();
        change(&mut config);
        async move { dial(&config, APPLICATION).await.unwrap_err().code() }
    };
    assert_eq!(refused(&|c| c.port = 1).await, Code::SourceUnreachable);
    assert_eq!(refused(&|c| c.host = "no-such-host.invalid".into()).await, Code::SourceUnreachable);
    assert_eq!(refused(&|c| c.database = "nowhere".into()).await, Code::SourceAuth);
    assert_eq!(
        refused(&|c| c.tls.mode = millrace_replication::postgres::TlsMode::Require).await,
        Code::SourceTls
    );

    let role = format!("{}_reader", source.word);
    source
        .run(&format!("create role {role} login password 'secret'; create table hidden (id int primary key)"))
        .await;
    let mut config = source.config.clone();
    config.user = role;
    config.password = SecretString::from("secret");
    let (checks, session) = check::source(&config, APPLICATION, NEW).await;
    let failed: Vec<_> = checks.iter().filter(|c| c.status == Status::Fail).collect();
    assert_eq!(
        failed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["publication_privilege", "replication_privilege"],
        "{checks:#?}"
    );
    assert!(failed[1].remedy.contains("REPLICATION"), "{failed:#?}");
    let wanted =
        check::Wanted { name: table("hidden"), exclude: Vec::new(), append_only: false, merges_heirs: false };
    let (checks, _) = check::tables(&session.unwrap(), &[wanted], true).await.unwrap();
    let failed: Vec<_> =
        checks.iter().filter(|c| c.status == Status::Fail).map(|c| c.name.as_str()).collect();
    assert_eq!(failed, ["read_privilege", "publish_privilege"], "{checks:#?}");
    let grant = format!("GRANT SELECT ON \"public\".\"hidden\" TO \"{}\";", config.user);
    assert!(checks.iter().any(|check| check.remedy.contains(&grant)), "{checks:#?}");
}

#[tokio::test]
async fn tables_are_described_as_they_are() {
    let source = Source::new().await;
    source
        .run("create type mood as enum ('sad', 'ok');
              create domain price as numeric(10, 2);
              create table shop (id bigint generated always as identity primary key, name text not null, p price, m mood, tags text[], \"Odd \"\"Name\"\"\" int);
              create table nokey (a int);
              create table deferred (a int primary key deferrable);
              create table marked (a int, b int not null, c text not null, unique (c, b));
              alter table marked replica identity using index marked_c_b_key;
              create table total (a int primary key, b int); alter table total replica identity full;
              create table gen (a int primary key, b int generated always as (a + 1) stored);
              create table seengen (a int primary key, b int generated always as (a + 1) virtual);
              create table rows (a int, b text); alter table rows replica identity full;
              create table parts (id int, at date, primary key (id, at)) partition by range (at);
              create table parts_1 partition of parts for values from ('2020-01-01') to ('2021-01-01');
              create table parts_2 partition of parts for values from ('2021-01-01') to ('2022-01-01');
              create unlogged table quick (id int primary key);
              create view seen as select 1 as x")
        .await;
    let session = source.session().await;
    let shapes = describe::list(&session).await.unwrap();
    let names: Vec<&str> = shapes.iter().map(|shape| shape.name.name.as_str()).collect();
    assert_eq!(
        names,
        ["deferred", "gen", "marked", "nokey", "parts", "quick", "rows", "seengen", "shop", "total"]
    );
    let refusals: Vec<&str> = shapes
        .iter()
        .filter(|shape| shape.refusal(&[], false).is_some())
        .map(|shape| shape.name.name.as_str())
        .collect();
    assert_eq!(refusals, ["deferred", "nokey", "quick", "seengen"]);

    let shop = &describe::describe(&session, &[table("shop")]).await.unwrap()[0];
    let kinds: Vec<&str> = shop.columns.iter().map(|c| c.plan.clickhouse_type.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "Int64",
            "String",
            "Nullable(Decimal(10, 2))",
            "LowCardinality(Nullable(String))",
            "Array(Nullable(String))",
            "Nullable(Int32)"
        ]
    );
    assert_eq!(shop.columns[5].plan.name, "Odd \"Name\"");
    assert_eq!(shop.key().unwrap().0, [0]);
    let marked = &describe::describe(&session, &[table("marked")]).await.unwrap()[0];
    assert_eq!(marked.key().unwrap().0, [2, 1]);
    let parts = &describe::describe(&session, &[table("parts")]).await.unwrap()[0];
    assert_eq!((parts.kind, parts.leaves.len()), (TableKind::Partitioned, 2));
    assert_eq!(
        describe::describe(&session, &[table("nope")]).await.unwrap_err().code(),
        Code::SourceTableMissing
    );
    let view = &describe::describe(&session, &[table("seen")]).await.unwrap()[0];
    assert_eq!(view.refusal(&[], false).unwrap().code(), Code::TableUnsupported);
}

#[tokio::test]
async fn publications_are_made_once_widened_and_never_taken_over() {
    let source = Source::new().await;
    source.run("create table a (id int primary key); create table b (id int primary key)").await;
    let session = source.session().await;
    let ensure =
        async |tables: &[TableName], mark: &str| publication::ensure(&session, "Pub 1", mark, tables).await;
    assert_eq!(ensure(&[table("a")], "ours").await, Ok(true));
    assert_eq!(ensure(&[table("a")], "ours").await, Ok(false));
    assert_eq!(ensure(&[table("a"), table("b")], "ours").await, Ok(false));
    let told = |name: &str| publication::Told { table: table(name), exclude: vec!["hidden".into()] };
    let verify = async |names: &[&str]| {
        let tables: Vec<publication::Told> = names.iter().map(|name| told(name)).collect();
        publication::verify(&session, "Pub 1", &tables).await
    };
    verify(&["a", "b"]).await.unwrap();
    assert_eq!(ensure(&[table("a")], "others").await.unwrap_err().code(), Code::SlotExists);
    publication::remove(&session, "Pub 1", &table("a")).await.unwrap();
    let missing = verify(&["a"]).await.unwrap_err();
    assert_eq!(missing.code(), Code::PublicationMissing);
    publication::drop(&session, "Pub 1", "others").await.unwrap();
    assert!(verify(&[]).await.is_ok(), "another's is left alone");
    publication::drop(&session, "Pub 1", "ours").await.unwrap();
    assert!(verify(&[]).await.is_err());

    // Publications that a user makes, in all their forms.
    source.run("alter table a add hidden text, add seen text").await;
    for (definition, refusal) in [
        ("for all tables", None),
        ("for tables in schema public", None),
        ("for table a (id, seen)", None),
        ("for table a (id)", Some("leaves out columns of public.a: seen")),
        ("for table a where (id > 1)", Some("row filter")),
        ("for table b", Some("does not hold public.a")),
        ("for table a with (publish = 'insert')", Some("leaves out operations")),
        ("for table a with (publish_via_partition_root)", Some("as their root")),
    ] {
        source.run(&format!("create publication \"Pub 1\" {definition}")).await;
        let found = verify(&["a"]).await.err();
        let message = found.as_ref().map_or("", |error| error.message());
        assert_eq!(found.is_some(), refusal.is_some(), "{definition}: {message}");
        assert!(message.contains(refusal.unwrap_or_default()), "{definition}: {message}");
        source.run("drop publication \"Pub 1\"").await;
    }
}

#[tokio::test]
async fn slots_are_made_once_and_dropped() {
    let source = Source::new().await;
    let name = format!("millrace_{}", source.word);
    let made = slot::ensure(&source.config, APPLICATION, &name).await.unwrap();
    assert!(made.created && made.position > Lsn::ZERO);
    let found = slot::ensure(&source.config, APPLICATION, &name).await.unwrap();
    assert_eq!(found, slot::Ensured { position: made.position, created: false });
    let session = source.session().await;
    assert_eq!(slot::verify(&session, &name).await, Ok(made.position));
    let status = slot::status(&session, &name).await.unwrap().unwrap();
    assert!(!status.is_lost() && status.active_pid.is_none(), "{status:?}");
    slot::drop(&session, &name, APPLICATION).await.unwrap();
    slot::drop(&session, &name, APPLICATION).await.unwrap();
    assert_eq!(slot::verify(&session, &name).await.unwrap_err().code(), Code::SlotLost);
    source.run(&format!("select pg_create_logical_replication_slot('{name}', 'test_decoding')")).await;
    assert_eq!(slot::ensure(&source.config, APPLICATION, &name).await.unwrap_err().code(), Code::SlotExists);
    source.run(&format!("select pg_drop_replication_slot('{name}')")).await;
}

/// B2: a running transaction may have a higher id than the latest completed one. The wait names it,
/// and ends with it; what begins later is not waited for.
#[tokio::test]
async fn the_epoch_waits_for_older_transactions_and_names_them() {
    let source = Source::new().await;
    source.run("create table t (id int primary key)").await;
    let gid = format!("p'{}", source.word);
    let older = dial(&source.config, "the older one").await.unwrap();
    older.batch_execute("begin; insert into public.t values (1)").await.unwrap();
    let quoted = gid.replace('\'', "''");
    source.run(&format!("begin; insert into t values (2); prepare transaction '{quoted}'")).await;

    let session = source.session().await;
    let (told, mut blockers) = tokio::sync::mpsc::unbounded_channel();
    let taking = tokio::spawn(async move {
        epoch::take(&session, &CancellationToken::new(), |now| {
            told.send(now.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        })
        .await
    });
    // The server is shared: others may be named too.
    let both_named = async {
        while let Some(named) = blockers.recv().await {
            let is_named = |what: &str| named.iter().any(|who| who.contains(what));
            if is_named("(the older one)") && is_named(&format!("prepared transaction '{quoted}'")) {
                return true;
            }
        }
        false
    };
    let named = tokio::time::timeout(Duration::from_secs(5), both_named).await;
    let waited = !taking.is_finished();
    let younger = source.session().await;
    younger.batch_execute("begin; insert into t values (3)").await.unwrap();
    // Before anything is asserted: a prepared transaction outlives the test and holds up all others.
    source.run(&format!("commit prepared '{quoted}'")).await;
    older.batch_execute("commit").await.unwrap();
    assert_eq!((named, waited), (Ok(true), true));
    let epoch = tokio::time::timeout(Duration::from_secs(5), taking).await.unwrap().unwrap().unwrap();
    assert!(epoch.0 > Lsn::ZERO);
}

#[tokio::test]
async fn the_epoch_can_be_cancelled() {
    let source = Source::new().await;
    source.run("create table t (id int primary key)").await;
    let older = source.session().await;
    older.batch_execute("begin; insert into t values (1)").await.unwrap();
    let cancel = CancellationToken::new();
    let session = source.session().await;
    let token = cancel.clone();
    let taking = tokio::spawn(async move { epoch::take(&session, &token, |_| ()).await });
    cancel.cancel();
    assert_eq!(taking.await.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn partitions_cover_every_leaf() {
    let source = Source::new().await;
    source
        .run(
            "create table parts (id int primary key) partition by range (id);
              create table low partition of parts for values from (0) to (1000);
              create table high partition of parts for values from (1000) to (100000);
              insert into parts select generate_series(500, 20000)",
        )
        .await;
    let session = source.session().await;
    let shape = &describe::describe(&session, &[table("parts")]).await.unwrap()[0];
    let plan = partition::plan(&session, &shape.leaves, 64 << 10).await.unwrap();
    let open: Vec<&str> =
        plan.iter().filter(|p| p.end_block.is_none()).map(|p| p.leaf.name.as_str()).collect();
    assert_eq!(open, ["low", "high"]);
    assert!(plan.len() > 8 && plan[0].filenode > 0, "{plan:?}");
}
