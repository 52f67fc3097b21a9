//! The API as any client uses it. I/O.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use millrace_proto::v1::peer_service_client::PeerServiceClient;
use millrace_proto::v1::{self as api, mirror, peer, table};
use tonic::transport::{Channel, Endpoint};

use crate::bed::{DATABASE, LIMIT, Sql};

/// Pause between two looks at a state.
const LOOK: Duration = Duration::from_millis(50);
/// Largest answer that is read: mirrors of thousands of tables are long.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const SOURCE: &str = "source";
const DESTINATION: &str = "destination";

/// The API as any client uses it.
#[derive(Debug, Clone)]
pub struct Api {
    peers: PeerServiceClient<Channel>,
    mirrors: MirrorServiceClient<Channel>,
}

impl Api {
    /// A connection to it.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(address.to_owned())?.connect().await.context("the API")?;
        let mirrors = MirrorServiceClient::new(channel.clone());
        Ok(Self {
            peers: PeerServiceClient::new(channel),
            mirrors: mirrors.max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }

    /// Makes the peers that all mirrors are between.
    ///
    /// # Errors
    /// The server's.
    pub async fn create_peers(
        &mut self,
        source: &tokio_postgres::Config,
        clickhouse: &Sql,
    ) -> anyhow::Result<()> {
        let host = match source.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            _ => bail!("the source has no TCP address"),
        };
        let password = source.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let postgres = peer::Config::Postgres(api::PostgresConfig {
            host,
            port: source.get_ports().first().copied().context("the source's port")?.into(),
            user: source.get_user().context("the source's user")?.to_owned(),
            password,
            database: DATABASE.to_owned(),
            ..Default::default()
        });
        let destination = peer::Config::Clickhouse(api::ClickhouseConfig {
            url: clickhouse.url.clone(),
            user: clickhouse.user.clone(),
            password: Some(clickhouse.password.clone()),
            database: DATABASE.to_owned(),
            ..Default::default()
        });
        for (name, config) in [(SOURCE, postgres), (DESTINATION, destination)] {
            let peer = api::Peer { name: name.to_owned(), config: Some(config), ..Default::default() };
            let request = api::CreatePeerRequest { peer: Some(peer), ..Default::default() };
            self.peers.create_peer(request).await?;
        }
        Ok(())
    }

    /// Makes a mirror of tables of the schema `public`, with default settings.
    ///
    /// # Errors
    /// The server's.
    pub async fn create(&mut self, name: &str, tables: &[String]) -> anyhow::Result<()> {
        self.create_mirror(asked(name, tables)).await
    }

    /// Makes a mirror.
    ///
    /// # Errors
    /// The server's.
    pub async fn create_mirror(&mut self, mirror: api::Mirror) -> anyhow::Result<()> {
        let request = api::CreateMirrorRequest { mirror: Some(mirror), ..Default::default() };
        self.mirrors.create_mirror(request).await?;
        Ok(())
    }

    /// All mirrors, in pages of the default size; how many they are.
    ///
    /// # Errors
    /// The server's.
    pub async fn list(&mut self) -> anyhow::Result<usize> {
        let (mut count, mut page_token) = (0, String::new());
        loop {
            let request = api::ListMirrorsRequest { page_token, ..Default::default() };
            let page = self.mirrors.list_mirrors(request).await?.into_inner();
            count += page.mirrors.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(count);
            }
        }
    }

    /// The mirror as it is now.
    ///
    /// # Errors
    /// The server's, and that of a mirror or table that stopped.
    pub async fn get(&mut self, name: &str) -> anyhow::Result<api::Mirror> {
        let request = api::GetMirrorRequest { name: name.to_owned() };
        let mirror = self.mirrors.get_mirror(request).await?.into_inner();
        let mut failures = mirror.error.iter().chain(mirror.tables.iter().filter_map(|t| t.error.as_ref()));
        if let Some(failure) = failures.next() {
            bail!("{name}: {} {}", failure.code, failure.message);
        }
        Ok(mirror)
    }

    /// Waits until every table is copied and streams.
    ///
    /// # Errors
    /// As [`Api::get`], and `LIMIT`.
    pub async fn wait_until_streaming(&mut self, name: &str) -> anyhow::Result<()> {
        self.wait(name, |mirror| mirror.tables.iter().all(|t| t.state() == table::State::Streaming)).await
    }

    async fn wait(&mut self, name: &str, is_so: impl Fn(&api::Mirror) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !is_so(&self.get(name).await?) {
            ensure!(Instant::now() < deadline, "{name} does not get on");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Pauses a mirror, and waits until it is.
    ///
    /// # Errors
    /// As [`Api::get`], and `LIMIT`.
    pub async fn pause(&mut self, name: &str) -> anyhow::Result<()> {
        self.mirrors
            .pause_mirror(api::PauseMirrorRequest { name: name.to_owned(), ..Default::default() })
            .await?;
        self.wait(name, |mirror| mirror.state() == mirror::State::Paused).await
    }

    /// Has a mirror go on.
    ///
    /// # Errors
    /// The server's.
    pub async fn resume(&mut self, name: &str) -> anyhow::Result<()> {
        let request = api::ResumeMirrorRequest { name: name.to_owned(), ..Default::default() };
        self.mirrors.resume_mirror(request).await?;
        Ok(())
    }

    /// Removes a mirror and its destination tables, and waits until it is gone.
    ///
    /// # Errors
    /// The server's, and `LIMIT`.
    pub async fn delete(&mut self, name: &str) -> anyhow::Result<()> {
        let request =
            api::DeleteMirrorRequest { name: name.to_owned(), drop_destination: true, ..Default::default() };
        self.mirrors.delete_mirror(request).await?;
        let deadline = Instant::now() + LIMIT;
        let get = api::GetMirrorRequest { name: name.to_owned() };
        while self.mirrors.get_mirror(get.clone()).await.is_ok() {
            ensure!(Instant::now() < deadline, "{name} is still there");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// A request for a mirror of tables of the schema `public`, with default settings.
pub fn asked(name: &str, tables: &[String]) -> api::Mirror {
    let table = |name: &String| api::Table { source: format!("public.{name}"), ..Default::default() };
    api::Mirror {
        name: name.to_owned(),
        source: SOURCE.to_owned(),
        destination: DESTINATION.to_owned(),
        tables: tables.iter().map(table).collect(),
        ..Default::default()
    }
}
