//! A cluster: made, used by tokio-postgres, killed, and started again.

use millrace_embedded::cache::Cache;
use millrace_embedded::postgres::{Cluster, Settings, install};
use nix::sys::signal::Signal;
use tokio_postgres::NoTls;

use crate::free_port;

#[tokio::test]
async fn a_cluster_survives_a_kill_and_streams_logically() {
    let binaries = tokio::task::spawn_blocking(|| install(&Cache::open()?)).await.unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        name: "source".to_owned(),
        dir: dir.path().join("source"),
        port: free_port(),
        password: "s3cret".to_owned(),
        log: dir.path().join("source.log"),
        parameters: Settings::source_parameters(),
    };
    let mut cluster = Cluster::start(&binaries, &settings).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&settings.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("create table t (id int primary key); insert into t values (1), (2)").await.unwrap();
    let row = client
        .query_one("select current_setting('wal_level'), version() like 'PostgreSQL 18.6%', usesuper from pg_user where usename = current_user", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "logical");
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2));
    client.query_one("select pg_create_logical_replication_slot('s', 'pgoutput')", &[]).await.unwrap();

    let wrong = settings.url().replace("s3cret", "wrong");
    assert!(tokio_postgres::connect(&wrong, NoTls).await.is_err());

    cluster.process().signal(Signal::SIGKILL);
    cluster.process().wait().await;
    let mut cluster = Cluster::start(&binaries, &settings).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&settings.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let row =
        client.query_one("select count(*), (select count(*) from pg_replication_slots) from t", &[]).await;
    let row = row.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
    assert!(cluster.stop().await, "it did not end by itself");
}
