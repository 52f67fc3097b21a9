//! TLS: towards ClickHouse, with an authority of its own and a client's certificate; and the API's own
//! certificate, which is renewed under a server that runs.

use std::process::Command;

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, peer, tls_config};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::support::bed::{Bed, SOON};
use crate::support::guarded::Guarded;
use crate::support::tls::{self, certificate, pem};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("tls::clickhouse_with_an_authority_of_its_own", clickhouse_with_an_authority_of_its_own),
        test("tls::clickhouse_that_asks_for_a_certificate", clickhouse_that_asks_for_a_certificate),
        test("tls::a_renewed_certificate_of_the_api_is_taken_up", a_renewed_certificate_is_taken_up),
    ]
}

/// Where ClickHouse itself listens, `host:port`.
fn clickhouse() -> String {
    let url = &stack::endpoints().clickhouse;
    url.rsplit('@').next().expect("a host").trim_end_matches('/').to_owned()
}

/// The peer of the test's database in ClickHouse behind TLS on this port.
fn behind(bed: &Bed, url: &str, ca: &str, client: Option<&str>) -> api::Peer {
    let mut behind = bed.destination_peer();
    behind.name.push_str("-tls");
    let Some(peer::Config::Clickhouse(config)) = &mut behind.config else { panic!("a destination") };
    config.url = url.to_owned();
    config.tls = Some(api::TlsConfig {
        mode: tls_config::Mode::VerifyFull.into(),
        ca: ca.to_owned(),
        cert: client.map(|name| pem(&format!("{name}.pem"))).unwrap_or_default(),
        key: client.map(|name| pem(&format!("{name}.key"))),
        ..Default::default()
    });
    behind
}

async fn create(bed: &Bed, peer: api::Peer) -> Result<(), Status> {
    let request = api::CreatePeerRequest { peer: Some(peer), ..Default::default() };
    bed.peers().create_peer(request).await.map(drop)
}

/// The refusal's code, and its words.
async fn refused(bed: &Bed, peer: api::Peer) -> (String, String) {
    let status = create(bed, peer).await.expect_err("a refusal");
    let info = status.get_error_details().error_info().cloned().expect("an ErrorInfo");
    (info.reason, status.message().to_owned())
}

#[track_caller]
fn names((code, message): &(String, String), words: &str) {
    assert_eq!(code, "DESTINATION_TLS", "{message}");
    assert!(message.contains(words), "{message}");
}

async fn stream_into(bed: &Bed, peer: api::Peer) {
    let destination = peer.name.clone();
    create(bed, peer).await.expect("a peer");
    bed.sql("create table t (id int primary key, v text); insert into t select i, repeat('x', 100) from generate_series(1, 5000) i").await;
    bed.create(api::Mirror { destination, ..bed.mirror(&["public.t"]) }).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("update t set v = 'new' where id % 7 = 0; delete from t where id % 11 = 0").await;
    bed.wait_equal("t", "t").await;
}

async fn clickhouse_with_an_authority_of_its_own(bed: Bed) {
    let port = tls::before(&clickhouse(), "server", false).await.port();
    let url = format!("https://localhost:{port}");
    names(&refused(&bed, behind(&bed, &url, &pem("stranger.pem"), None)).await, "UnknownIssuer");
    let other = tls::before(&clickhouse(), "elsewhere", false).await.port();
    let other = format!("https://localhost:{other}");
    names(&refused(&bed, behind(&bed, &other, &pem("authority.pem"), None)).await, "not valid for name");
    let plain = behind(&bed, &format!("https://{}", clickhouse()), &pem("authority.pem"), None);
    names(&refused(&bed, plain).await, "the connection failed");

    stream_into(&bed, behind(&bed, &url, &pem("authority.pem"), None)).await;
}

async fn clickhouse_that_asks_for_a_certificate(bed: Bed) {
    let port = tls::before(&clickhouse(), "server", true).await.port();
    let url = format!("https://127.0.0.1:{port}");
    let (code, message) = refused(&bed, behind(&bed, &url, &pem("authority.pem"), None)).await;
    assert!(["DESTINATION_TLS", "DESTINATION_UNREACHABLE"].contains(&code.as_str()), "{code}: {message}");
    assert!(message.contains("CertificateRequired") || message.contains("connection"), "{message}");
    stream_into(&bed, behind(&bed, &url, &pem("authority.pem"), Some("client"))).await;
}

async fn a_renewed_certificate_is_taken_up(bed: Bed) {
    let dir = tempfile::tempdir().expect("a directory");
    let install = |name: &str| {
        for ending in ["key", "pem"] {
            // By rename: nobody reads half a file.
            let new = dir.path().join(format!("new.{ending}"));
            std::fs::copy(certificate(&format!("{name}.{ending}")), &new).expect("a copy");
            std::fs::rename(new, dir.path().join(format!("api.{ending}"))).expect("a rename");
        }
    };
    // First one of another name, which the client refuses.
    install("elsewhere");
    let file = |ending: &str| dir.path().join(format!("api.{ending}")).display().to_string();
    let server =
        Guarded::with(&bed, &[("MILLRACE_API_TLS_CERT", file("pem")), ("MILLRACE_API_TLS_KEY", file("key"))])
            .await;
    let port = server.grpc.rsplit(':').next().expect("a port").to_owned();
    let health = format!("https://localhost:{}/readyz", server.http.rsplit(':').next().expect("a port"));
    let authority = certificate("authority.pem").display().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(stack::binary());
        command.args(arguments).args(["--server-ca", &authority]).env("MILLRACE_TOKEN", &server.admin);
        command.output().expect("the client")
    };
    let address = format!("https://localhost:{port}");
    let list = || run(&["peer", "list", "--address", &address]);
    let before = list();
    let text = String::from_utf8_lossy(&before.stderr).into_owned();
    assert!(before.status.code() == Some(3) && text.contains("certificate"), "{before:?}");
    assert_eq!(run(&["health", &health]).status.code(), Some(3), "the same for a probe");

    // A key that does not belong to the certificate changes nothing, and breaks nothing.
    std::fs::copy(certificate("server.key"), dir.path().join("api.key")).expect("a key");
    install("server");
    wait::until("the new certificate", SOON, || async {
        let output = list();
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    let well = run(&["health", &health]);
    assert_eq!(well.status.code(), Some(0), "{well:?}");
}
