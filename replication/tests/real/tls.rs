//! TLS towards a source, of a cluster of its own: what each mode verifies, and client certificates, for sessions
//! and for replication connections alike.

use std::path::Path;

use millrace_embedded::postgres::Cluster;
use millrace_replication::postgres::{SourceConfig, Tls, TlsMode, dial, identify};
use millrace_terms::{Code, Result};

use crate::servers::own_cluster;

fn certificate(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/certificates").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The cluster, with TLS by the certificate of `server`.
async fn cluster(name: &str, server: &str) -> (Cluster, SourceConfig) {
    let (cluster, config) = own_cluster(name).await;
    // The name that the certificates bear.
    let tls = Tls { mode: TlsMode::Disable, ..Tls::default() };
    let config = SourceConfig { host: "localhost".into(), tls, ..config };
    let sql = dial(&config, "test").await.unwrap();
    // By the server itself: its files belong to the user it runs as.
    for (file, source) in [
        ("server.crt", format!("{server}.pem")),
        ("server.key", format!("{server}.key")),
        ("ca.crt", "authority.pem".to_owned()),
    ] {
        let copy = format!(
            "copy (select regexp_split_to_table($pem${}$pem$, '\n')) to program 'umask 077; cat > {file}'",
            certificate(&source)
        );
        sql.batch_execute(&copy).await.unwrap();
    }
    for statement in
        ["alter system set ssl_ca_file = 'ca.crt'", "alter system set ssl = on", "select pg_reload_conf()"]
    {
        sql.batch_execute(statement).await.unwrap();
    }
    // The server reads its settings some moments later.
    let tls = SourceConfig { tls: Tls { mode: TlsMode::Require, ..Tls::default() }, ..config.clone() };
    for _ in 0..500 {
        if dial(&tls, "test").await.is_ok() {
            return (cluster, tls);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the server has no TLS: {:?}", dial(&tls, "test").await.map(drop));
}

fn with(config: &SourceConfig, mode: TlsMode, ca: &str) -> SourceConfig {
    let ca = if ca.is_empty() { String::new() } else { certificate(ca) };
    SourceConfig { tls: Tls { mode, ca, ..Tls::default() }, ..config.clone() }
}

/// How a session and a replication connection end.
async fn both(config: &SourceConfig) -> [Result<()>; 2] {
    [dial(config, "test").await.map(drop), identify(config, "test").await.map(drop)]
}

#[tokio::test]
async fn each_mode_verifies_what_it_promises() {
    let (_cluster, config) = cluster("tls", "server").await;
    for host in ["localhost", "127.0.0.1"] {
        let config = SourceConfig { host: host.into(), ..config.clone() };
        for (mode, ca) in [
            (TlsMode::Prefer, ""),
            (TlsMode::Require, ""),
            (TlsMode::Require, "authority.pem"),
            (TlsMode::VerifyCa, "authority.pem"),
            (TlsMode::VerifyFull, "authority.pem"),
        ] {
            for outcome in both(&with(&config, mode, ca)).await {
                outcome.unwrap_or_else(|error| panic!("{host} {mode:?} {ca}: {error}"));
            }
        }
    }
    // `require` with an authority verifies, as libpq's does.
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        for outcome in both(&with(&config, mode, "stranger.pem")).await {
            assert_eq!(outcome.unwrap_err().code(), Code::SourceTls, "{mode:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_by_verify_full_alone() {
    let (_cluster, config) = cluster("elsewhere", "elsewhere").await;
    for outcome in both(&with(&config, TlsMode::VerifyCa, "authority.pem")).await {
        outcome.unwrap();
    }
    for outcome in both(&with(&config, TlsMode::VerifyFull, "authority.pem")).await {
        assert_eq!(outcome.unwrap_err().code(), Code::SourceTls);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_it() {
    let (_cluster, config) = cluster("mtls", "server").await;
    let sql = dial(&config, "test").await.unwrap();
    let hba = "copy (select 'hostssl all all all scram-sha-256 clientcert=verify-ca' union all
        select 'hostssl replication all all scram-sha-256 clientcert=verify-ca') to program 'cat > pg_hba.conf'";
    sql.batch_execute(hba).await.unwrap();
    sql.batch_execute("select pg_reload_conf()").await.unwrap();

    let mut known = with(&config, TlsMode::VerifyFull, "authority.pem");
    for _ in 0..500 {
        if dial(&known, "test").await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for outcome in both(&known).await {
        outcome.unwrap_err();
    }
    known.tls.cert = certificate("client.pem");
    known.tls.key = certificate("client.key").into();
    for outcome in both(&known).await {
        outcome.unwrap();
    }
}
