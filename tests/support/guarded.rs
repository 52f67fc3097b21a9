//! A server of a test's own that asks for tokens, on a catalog of its own.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::bed::{Bed, connect};
use super::cell::free_port;
use super::{http, stack, wait};

/// Longest wait for the server to answer: a debug build on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The server. It is killed when this is dropped.
pub struct Guarded {
    /// The text of the admin's token.
    pub admin: String,
    /// Where it listens.
    pub grpc: String,
    /// Host and port of its HTTP.
    pub http: String,
    /// A connection to it, without a token.
    pub api: Channel,
    catalog: String,
    prefix: String,
    process: Child,
}

impl Guarded {
    /// Makes the catalog, the admin's token and the server.
    pub async fn new(bed: &Bed) -> Self {
        Self::with(bed, &[]).await
    }

    /// The same with further environment variables for the server.
    pub async fn with(bed: &Bed, environment: &[(&str, String)]) -> Self {
        let stack = tokio::task::spawn_blocking(stack::endpoints).await.expect("the shared stack");
        let database = format!("guarded_{}", bed.name.replace('-', "_"));
        let admin = connect(&stack.catalog, None).await;
        admin.batch_execute(&format!("create database {database}")).await.expect("a catalog database");
        let (base, _) = stack.catalog.rsplit_once('/').expect("a URL with a database");
        let catalog = format!("{base}/{database}");
        let prefix = bed.name.clone();

        let migrated = command("migrate", &catalog, &prefix).output().expect("millrace migrate");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let text = String::from_utf8_lossy(&migrated.stdout).into_owned();
        let admin = text.lines().find(|line| line.starts_with("mlr_")).expect("a token").to_owned();

        let [grpc, http, metrics] = [free_port(), free_port(), free_port()];
        let process = command("server", &catalog, &prefix)
            .env("MILLRACE_GRPC_LISTEN", format!("127.0.0.1:{grpc}"))
            .env("MILLRACE_HTTP_LISTEN", format!("127.0.0.1:{http}"))
            .env("MILLRACE_METRICS_LISTEN", format!("127.0.0.1:{metrics}"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let (http, metrics) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{metrics}"));
        wait::until("the guarded server", START_LIMIT, || async {
            let answer = http::get(&metrics, "/readyz").await?;
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
        })
        .await;
        let grpc = format!("http://127.0.0.1:{grpc}");
        let api = Endpoint::from_shared(grpc.clone()).expect("a URL").connect_lazy();
        Self { admin, grpc, http, api, catalog, prefix, process }
    }

    /// A process of ours on the same catalog.
    pub fn command(&self, role: &str) -> Command {
        command(role, &self.catalog, &self.prefix)
    }

    /// Runs the client as the admin.
    pub fn client(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(stack::binary());
        command.args(arguments).args(["--address", &self.grpc]).env("MILLRACE_TOKEN", &self.admin);
        command.output().expect("the client")
    }

    /// Runs a statement in the catalog.
    pub async fn sql(&self, sql: &str) {
        connect(&self.catalog, None).await.batch_execute(sql).await.expect("a statement in the catalog");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn command(role: &str, catalog: &str, prefix: &str) -> Command {
    let mut command = Command::new(stack::binary());
    command
        .arg(role)
        .env("MILLRACE_CATALOG_URL", catalog)
        .env("MILLRACE_TEMPORAL_ADDRESS", &stack::endpoints().temporal)
        .env("MILLRACE_QUEUE_PREFIX", prefix)
        .env("MILLRACE_SECRET_KEYS", "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .env("MILLRACE_METRICS_LISTEN", format!("127.0.0.1:{}", free_port()))
        .stdin(Stdio::null());
    command
}
