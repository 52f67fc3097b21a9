//! Dropping a mirror: whatever state it is in, and whatever happened to those who drop it, nothing of
//! it stays on the source or, if so asked, in the destination.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror};
use millrace_workflows::ids;
use temporalio_client::{UntypedWorkflow, WorkflowTerminateOptions};
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use crate::support::bed::{Bed, SOON};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("drop::while_the_source_is_prepared", while_the_source_is_prepared),
        test("drop::tables_made_before_it_was_prepared", tables_made_before_it_was_prepared),
        test("drop::is_taken_up_again", is_taken_up_again),
        test("drop::goes_on_for_whoever_waits", goes_on_for_whoever_waits),
    ]
}

impl Bed {
    async fn delete(&self) -> api::DeleteMirrorResponse {
        let request = api::DeleteMirrorRequest {
            name: self.name.clone(),
            drop_destination: true,
            ..Default::default()
        };
        self.mirrors().delete_mirror(request).await.expect("a drop").into_inner()
    }

    /// Waits until a session of the mirror waits for a lock on the source.
    async fn wait_blocked(&self) {
        let mine = format!("millrace/%/{}%", self.name);
        wait::until("a session that waits for a lock", SOON, || async {
            let sql = "select count(*) from pg_stat_activity
                        where application_name like $1 and wait_event_type = 'Lock'";
            let row = self.source.query_one(sql, &[&mine]).await.map_err(|error| error.to_string())?;
            if row.get::<_, i64>(0) > 0 { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
    }

    /// Whatever of the mirror is on the source: slots, publications, sessions.
    async fn on_source(&self) -> Vec<String> {
        let object = format!("millrace\\_______\\_{}", self.name.replace('-', "\\_"));
        let session = format!("millrace/%/{}%", self.name);
        let sql = "select 'slot ' || slot_name from pg_replication_slots where slot_name like $1
             union all select 'publication ' || pubname from pg_publication where pubname like $1
             union all select 'session ' || query from pg_stat_activity where application_name like $2";
        let rows = self.source.query(sql, &[&object, &session]).await.expect("the source's objects");
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn wait_nothing_on_source(&self) {
        wait::until("nothing on the source", SOON, || async {
            let left = self.on_source().await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

/// A publication is being made, or is just made, when the mirror is dropped.
async fn while_the_source_is_prepared(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let other = bed.session().await;
    other.batch_execute("begin; lock table t in share mode").await.expect("a lock");
    bed.create(bed.mirror(&["public.t"])).await.expect("a mirror");
    bed.wait_blocked().await;
    let dropped = bed.delete().await;
    other.batch_execute("rollback").await.expect("no lock");
    assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    bed.wait_nothing_on_source().await;
}

async fn tables_made_before_it_was_prepared(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key)").await;
    let other = bed.session().await;
    other.batch_execute("begin; lock table a in share mode").await.expect("a lock");
    bed.create(bed.mirror(&["public.a", "public.b"])).await.expect("a mirror");
    bed.wait_blocked().await;
    let database = bed.name.replace('-', "_");
    bed.clickhouse_admin(&format!("create database if not exists {database}")).await;
    bed.clickhouse.query("create table b (other String) engine = MergeTree order by other").await.expect("b");
    other.batch_execute("rollback").await.expect("no lock");
    bed.wait_state(mirror::State::Failed).await;

    let tables = || async {
        bed.clickhouse
            .query("select name from system.tables where database = currentDatabase() order by name")
            .await
            .expect("tables")
    };
    assert_eq!(tables().await.trim(), "a\nb");
    assert!(bed.delete().await.done);
    assert_eq!(tables().await.trim(), "b", "only what the mirror made");
    bed.wait_nothing_on_source().await;
}

/// The workflow that drops the mirror is ended in the middle of it.
async fn is_taken_up_again(bed: Bed) {
    let first = terminated(&bed).await;
    let dropped = bed.delete().await;
    assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    assert!(first.await.expect("the first call").expect("an answer").into_inner().done);
    bed.wait_nothing_on_source().await;
}

async fn goes_on_for_whoever_waits(bed: Bed) {
    let only = terminated(&bed).await;
    assert!(only.await.expect("the call").expect("an answer").into_inner().done);
    bed.wait_nothing_on_source().await;
}

/// A drop whose workflow was terminated in its middle, and the call that waits for it.
async fn terminated(bed: &Bed) -> JoinHandle<Result<Response<api::DeleteMirrorResponse>, Status>> {
    bed.sql("create table t (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let row = bed.source.query_one("select pubname from pg_publication", &[]).await.expect("a publication");
    let publication: String = row.get(0);
    let other = bed.session().await;
    let lock =
        format!("begin; alter publication {publication} set (publish = 'insert, update, delete, truncate')");
    other.batch_execute(&lock).await.expect("a lock");
    let request = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let mut mirrors = bed.mirrors();
    let first = tokio::spawn(async move { mirrors.delete_mirror(request).await });
    bed.wait_blocked().await;
    let handle = stack::temporal().await.get_workflow_handle::<UntypedWorkflow>(ids::drop(&bed.name));
    handle.terminate(WorkflowTerminateOptions::default()).await.expect("its end");
    other.batch_execute("rollback").await.expect("no lock");
    first
}
