//! Who gets in, what they may do, and what is written down; whom the workers dial; the keys of the secrets.

use std::process::{Command, Output, Stdio};

use libtest_mimic::Trial;
use millrace_proto::v1::access_service_client::AccessServiceClient;
use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use millrace_proto::v1::peer_service_client::PeerServiceClient;
use millrace_proto::v1::{self as api, token};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::bed::Bed;
use crate::support::cell::Cell;
use crate::support::guarded::Guarded;
use crate::support::{http, stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("access::nobody_gets_in_without_a_good_token", nobody_gets_in_without_a_good_token),
        test("access::a_viewer_sees_everything_and_changes_nothing", a_viewer_changes_nothing),
        test("access::every_change_is_written_down_without_secrets", every_change_is_written_down),
        test("access::a_server_without_tokens_does_not_start", a_server_without_tokens_does_not_start),
        test("access::a_caller_who_asks_too_often_is_slowed_down", a_caller_is_slowed_down),
        test("access::tls_clients_must_be_known", tls_clients_must_be_known),
        test("access::no_peer_leads_to_metadata_or_the_catalog", no_peer_leads_to_metadata_or_the_catalog),
        test("access::keys_are_rotated_while_a_mirror_runs", keys_are_rotated_while_a_mirror_runs),
    ]
}

/// A request that shows a token.
pub fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    request
}

async fn make(server: &Guarded, name: &str, role: token::Role) -> String {
    let token = api::Token { name: name.into(), role: role.into(), ..Default::default() };
    let request = with(&server.admin, api::CreateTokenRequest { token: Some(token) });
    let made = AccessServiceClient::new(server.api.clone()).create_token(request).await.expect("a token");
    made.into_inner().secret
}

async fn list_peers(api: &Channel, token: Option<&str>) -> Result<(), tonic::Status> {
    let mut request = Request::new(api::ListPeersRequest::default());
    if let Some(token) = token {
        request = with(token, api::ListPeersRequest::default());
    }
    PeerServiceClient::new(api.clone()).list_peers(request).await.map(drop)
}

async fn nobody_gets_in_without_a_good_token(bed: Bed) {
    let server = Guarded::new(&bed).await;
    list_peers(&server.api, Some(&server.admin)).await.expect("the admin gets in");

    let refused = list_peers(&server.api, None).await.expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let wrong_secret = format!("{}{}", &server.admin[..17], "0".repeat(64));
    for wrong in ["nonsense", &wrong_secret, &format!("mlr_{}_{}", "0".repeat(12), "0".repeat(64))] {
        let refused = list_peers(&server.api, Some(wrong)).await.expect_err("a wrong token");
        assert_eq!(refused.code(), Code::Unauthenticated, "{wrong}");
    }

    let viewer = make(&server, "ci", token::Role::Viewer).await;
    list_peers(&server.api, Some(&viewer)).await.expect("a viewer gets in");
    let revoke = api::RevokeTokenRequest { name: "ci".into(), ..Default::default() };
    let mut access = AccessServiceClient::new(server.api.clone());
    access.revoke_token(with(&server.admin, revoke)).await.expect("revoked");
    let refused = list_peers(&server.api, Some(&viewer)).await.expect_err("a revoked token");
    assert_eq!(refused.code(), Code::Unauthenticated);

    let short = make(&server, "short", token::Role::Viewer).await;
    server.sql("update api_tokens set expires_at = now() - interval '1 second' where name = 'short'").await;
    let refused = list_peers(&server.api, Some(&short)).await.expect_err("an expired token");
    assert!(refused.message().contains("has expired"), "{refused}");

    // The same over HTTP.
    let bearer = format!("Bearer {}", server.admin);
    let ask = async |headers: &[(&str, &str)], path: &str| {
        http::request(&server.http, "GET", path, headers, b"").await.expect("an answer")
    };
    let refused = ask(&[], "/v1/peers").await;
    assert!(refused.status == 401 && refused.text().contains("UNAUTHENTICATED"), "{refused:?}");
    assert_eq!(ask(&[("authorization", &bearer)], "/v1/peers").await.status, 200);

    // What tells nothing of the installation is open.
    for path in ["/healthz", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(ask(&[], path).await.status, 200, "{path}");
    }
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.api.clone());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.expect("health needs no token");
}

async fn a_viewer_changes_nothing(bed: Bed) {
    let server = Guarded::new(&bed).await;
    let viewer = make(&server, "eyes", token::Role::Viewer).await;
    let operator = make(&server, "hands", token::Role::Operator).await;
    let mut mirrors = MirrorServiceClient::new(server.api.clone());
    let mut access = AccessServiceClient::new(server.api.clone());

    mirrors.list_mirrors(with(&viewer, api::ListMirrorsRequest::default())).await.expect("a viewer looks");
    let pause = || api::PauseMirrorRequest { name: "shop".into(), ..Default::default() };
    let refused = mirrors.pause_mirror(with(&viewer, pause())).await.expect_err("a viewer pauses");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("OPERATOR"), "{refused}");
    let (path, bearer) = ("/v1/mirrors/shop:pause", format!("Bearer {viewer}"));
    let answer = http::request(&server.http, "POST", path, &[("authorization", &bearer)], b"").await;
    assert_eq!(answer.expect("an answer").status, 403, "the same over HTTP");
    let refused = mirrors.pause_mirror(with(&operator, pause())).await.expect_err("there is no such mirror");
    assert_eq!(refused.code(), Code::NotFound);
    for token in [&viewer, &operator] {
        let list = with(token, api::ListTokensRequest::default());
        assert_eq!(access.list_tokens(list).await.expect_err("not an admin").code(), Code::PermissionDenied);
    }

    // The refusal is written down, too.
    let request = api::ListAuditEntriesRequest { caller: "eyes".into(), ..Default::default() };
    let entries =
        access.list_audit_entries(with(&server.admin, request)).await.expect("entries").into_inner();
    let entry = &entries.entries[0];
    assert_eq!(
        (entry.method.as_str(), entry.subject.as_str(), entry.code.as_str()),
        ("PauseMirror", "mirrors/shop", "PERMISSION_DENIED")
    );
}

async fn every_change_is_written_down(bed: Bed) {
    let server = Guarded::new(&bed).await;
    let mut peers = PeerServiceClient::new(server.api.clone());
    let mut peer = bed.source_peer();
    let Some(api::peer::Config::Postgres(config)) = &mut peer.config else { panic!("a source") };
    config.password = Some("hunter2-hunter2".into());
    let name = peer.name.clone();
    let create = api::CreatePeerRequest { peer: Some(peer), skip_validation: true, ..Default::default() };
    let mut request = with(&server.admin, create);
    request.metadata_mut().insert("x-request-id", "request-1".parse().expect("a header"));
    peers.create_peer(request).await.expect("a peer");
    let delete = api::DeletePeerRequest { name: name.clone(), ..Default::default() };
    peers.delete_peer(with(&server.admin, delete)).await.expect("deleted");
    let secret = make(&server, "ci", token::Role::Viewer).await;

    let printed = server.client(&["audit", "-o", "json"]);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8_lossy(&printed.stdout);
    assert!(!text.contains("hunter2") && !text.contains(&secret), "{text}");
    let audit: Value = serde_json::from_str(&text).expect("JSON");
    let entries = audit["entries"].as_array().expect("entries");
    let methods: Vec<&str> =
        entries.iter().map(|entry| entry["method"].as_str().expect("a method")).collect();
    assert_eq!(methods, ["CreateToken", "DeletePeer", "CreatePeer"]);
    let (deleted, created) = (&entries[1], &entries[2]);
    assert_eq!(created["request_id"], "request-1");
    assert_eq!(created["caller"], "admin");
    assert_eq!(created["subject"], format!("peers/{name}"));
    assert!(created["before"].is_null() && created["after"]["postgres"]["password_set"] == true, "{created}");
    assert!(deleted["after"].is_null() && deleted["before"] == created["after"], "{deleted}");
}

async fn a_server_without_tokens_does_not_start(bed: Bed) {
    let server = Guarded::new(&bed).await;
    server.sql("delete from api_tokens").await;
    let run = |arguments: &[&str]| -> Output {
        let mut command = server.command("server");
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().expect("an end")
    };
    let ended = run(&["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(3) && text.contains("millrace migrate"), "{ended:?}");
    let ended = run(&["--insecure-no-auth", "--grpc-listen", "0.0.0.0:0", "--http-listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && text.contains("open to other machines"), "{ended:?}");

    // The first admin token is made anew, printed once, and works.
    let migrated = server.command("migrate").output().expect("millrace migrate");
    let text = String::from_utf8_lossy(&migrated.stdout).into_owned();
    let made = text.lines().find(|line| line.starts_with("mlr_")).expect("a token");
    let listed = Command::new(stack::binary())
        .args(["token", "list", "--address", &server.grpc])
        .env("MILLRACE_TOKEN", made)
        .output()
        .expect("millrace token list");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("admin"), "{listed:?}");
    let again = server.command("migrate").output().expect("millrace migrate");
    assert!(!String::from_utf8_lossy(&again.stdout).contains("mlr_"), "{again:?}");
}

async fn a_caller_is_slowed_down(bed: Bed) {
    let server = Guarded::with(&bed, &[("MILLRACE_REQUESTS_PER_SECOND", "2".to_owned())]).await;
    let mut refused = None;
    for _ in 0..200 {
        if let Err(status) = list_peers(&server.api, Some(&server.admin)).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");

    let bearer = format!("Bearer {}", server.admin);
    let mut answers = Vec::new();
    for _ in 0..10 {
        let answer =
            http::request(&server.http, "GET", "/v1/peers", &[("authorization", &bearer)], b"").await;
        answers.push(answer.expect("an answer"));
    }
    let limited = answers.iter().find(|answer| answer.status == 429).expect("a refusal over HTTP");
    assert!(limited.head.to_lowercase().contains("retry-after: "), "{limited:?}");
}

fn certificate(name: &str) -> String {
    format!("{}/../tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

async fn tls_clients_must_be_known(bed: Bed) {
    let environment = [
        ("MILLRACE_API_TLS_CERT", certificate("server.pem")),
        ("MILLRACE_API_TLS_KEY", certificate("server.key")),
        ("MILLRACE_API_TLS_CLIENT_CA", certificate("authority.pem")),
    ];
    let server = Guarded::with(&bed, &environment).await;
    let port = server.grpc.rsplit(':').next().expect("a port").to_owned();
    let list = |address: &str, ca: &str, client: Option<&str>| {
        let mut command = Command::new(stack::binary());
        command.args(["peer", "list", "--address", &format!("{address}:{port}")]);
        command.args(["--server-ca", &certificate(ca)]).env("MILLRACE_TOKEN", &server.admin);
        if let Some(name) = client {
            command.args(["--client-cert", &certificate(&format!("{name}.pem"))]);
            command.args(["--client-key", &certificate(&format!("{name}.key"))]);
        }
        command.output().expect("the client").status.code()
    };
    assert_eq!(list("https://localhost", "authority.pem", Some("client")), Some(0));
    assert_eq!(list("https://127.0.0.1", "authority.pem", Some("client")), Some(0));
    assert_eq!(list("https://localhost", "authority.pem", None), Some(3), "a client without a certificate");
    assert_eq!(
        list("https://localhost", "stranger.pem", Some("client")),
        Some(3),
        "a server we do not trust"
    );
    assert_eq!(list("http://localhost", "authority.pem", None), Some(3), "no TLS");
}

async fn no_peer_leads_to_metadata_or_the_catalog(bed: Bed) {
    let catalog: tokio_postgres::Config = stack::endpoints().catalog.parse().expect("a URL");
    let tokio_postgres::config::Host::Tcp(host) = &catalog.get_hosts()[0] else { panic!("a TCP host") };
    let postgres = |host: &str, port: u16, database: &str| {
        let config = api::PostgresConfig {
            host: host.into(),
            port: port.into(),
            user: "postgres".into(),
            database: database.into(),
            ..Default::default()
        };
        api::peer::Config::Postgres(config)
    };
    let clickhouse = |url: &str| {
        api::peer::Config::Clickhouse(api::ClickhouseConfig { url: url.into(), ..Default::default() })
    };
    let own = catalog.get_dbname().expect("a database");
    for config in [
        postgres("169.254.169.254", 80, "d"),
        postgres("::ffff:169.254.169.254", 80, "d"),
        clickhouse("http://169.254.169.254:80"),
        clickhouse("http://[fe80::1]:8123"),
        postgres(host, catalog.get_ports()[0], own),
        postgres("localhost", catalog.get_ports()[0], own),
    ] {
        let peer = api::Peer { name: "spy".into(), config: Some(config.clone()), ..Default::default() };
        let target = Some(api::validate_peer_request::Target::Peer(peer));
        let report = bed.peers().validate_peer(api::ValidatePeerRequest { target }).await;
        let report = report.expect("a report").into_inner();
        let denied = report.checks.iter().any(|check| check.code == "ADDRESS_DENIED");
        assert!(!report.ok && denied, "{config:?}: {report:?}");
    }
}

async fn keys_are_rotated_while_a_mirror_runs(mut bed: Bed) {
    let mut cell = Cell::new(&mut bed).await;
    let old = cell.keys.clone();
    let new = "k2:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    // First everybody can open the new key.
    cell.keys = format!("{old},{new}");
    cell.kill_server();
    cell.restart_server().await;
    let mut worker = cell.worker().await;
    bed.sql("create table t (id int primary key, v text not null); insert into t select i, 'a' from generate_series(1, 500) i").await;
    bed.create(bed.mirror(&["public.t"])).await.expect("a mirror");
    bed.wait_equal("public.t", "t").await;

    cell.keys = format!("{new},{old}");
    let rotated = cell.command("keys").arg("rotate").output().expect("millrace keys rotate");
    let text = String::from_utf8_lossy(&rotated.stdout);
    assert!(rotated.status.success() && text.contains("sealed anew with k2"), "{rotated:?}");
    bed.sql("update t set v = 'b' where id < 100; insert into t values (1000, 'c')").await;
    bed.wait_equal("public.t", "t").await;

    // The old key is gone.
    cell.keys = new.to_owned();
    worker.kill();
    cell.kill_server();
    cell.restart_server().await;
    let _worker = cell.worker().await;
    bed.sql("delete from t where id < 50; insert into t values (1001, 'd')").await;
    bed.wait_equal("public.t", "t").await;
    cell.keys = old;
    let failed = cell.command("keys").arg("rotate").output().expect("millrace keys rotate");
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && text.contains("SECRET_KEY_MISSING") && text.contains("k2"),
        "{failed:?}"
    );
}
