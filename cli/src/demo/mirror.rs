//! The shop's mirror, made and followed through the API as any client would.
//!
//! I/O rim.

use std::time::Duration;

use anyhow::Context;
use millrace_proto::v1::{self as api, peer, table};
use millrace_terms::{Code, Error, Lsn};
use tokio::time::Instant;

use super::shop::{DATABASE, TABLES};
use super::sides::Sides;
use crate::client::{Client, LinkArguments};
use crate::dev::endpoints::Endpoints;

/// Name of the mirror.
pub const NAME: &str = "shop";
const SOURCE: &str = "shop-pg";
const DESTINATION: &str = "shop-ch";

/// Pause between two looks at the mirror.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for the stream to reach the source's end, once nothing is written any more.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);

/// The mirror, as a client of the API.
#[derive(Debug, Clone)]
pub struct Mirror {
    client: Client,
}

impl Mirror {
    /// Makes both peers and the mirror, or finds them as they were made before.
    ///
    /// # Errors
    /// The server's, such as a failed validation.
    pub async fn create(endpoints: &Endpoints, sides: &Sides) -> anyhow::Result<Self> {
        let mut client = Client::connect(&LinkArguments::open(&endpoints.grpc)).await?;
        for peer in [source(sides)?, destination(sides)] {
            let request =
                api::CreatePeerRequest { peer: Some(peer), allow_existing: true, ..Default::default() };
            client.peers.create_peer(request).await?;
        }
        let table = |name: &str| api::Table { source: format!("public.{name}"), ..Default::default() };
        let mirror = api::Mirror {
            name: NAME.to_owned(),
            source: SOURCE.to_owned(),
            destination: DESTINATION.to_owned(),
            tables: TABLES.iter().map(|t| table(t.name)).collect(),
            ..Default::default()
        };
        let request =
            api::CreateMirrorRequest { mirror: Some(mirror), allow_existing: true, ..Default::default() };
        client.mirrors.create_mirror(request).await?;
        Ok(Self { client })
    }

    /// The mirror as it is now.
    ///
    /// # Errors
    /// The server's, and that of a mirror or table that stopped.
    pub async fn get(&mut self) -> anyhow::Result<api::Mirror> {
        let request = api::GetMirrorRequest { name: NAME.to_owned() };
        let mirror = self.client.mirrors.get_mirror(request).await?.into_inner();
        let failed =
            mirror.error.iter().chain(mirror.tables.iter().filter_map(|table| table.error.as_ref())).next();
        if let Some(failure) = failed {
            let code = failure.code.parse().unwrap_or(Code::Internal);
            return Err(Error::new(code, failure.message.clone()).with_remedy(failure.remedy.clone()).into());
        }
        Ok(mirror)
    }

    /// Waits until everything up to `end` of the source's log is in ClickHouse.
    ///
    /// # Errors
    /// If it takes longer than three minutes.
    pub async fn catch_up(&mut self, end: Lsn) -> anyhow::Result<()> {
        let deadline = Instant::now() + CATCH_UP_LIMIT;
        loop {
            let mirror = self.get().await?;
            let reached = mirror.streams.iter().all(|s| s.position.parse::<Lsn>().is_ok_and(|at| at >= end));
            if reached && !mirror.streams.is_empty() && is_streaming(&mirror) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let at: Vec<_> =
                    mirror.streams.iter().map(|s| format!("{} {}", s.position, s.reason)).collect();
                anyhow::bail!(
                    "the stream did not reach {end} within {CATCH_UP_LIMIT:?}; it is at {}",
                    at.join(", ")
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Whether every table is copied and streams.
pub fn is_streaming(mirror: &api::Mirror) -> bool {
    mirror.tables.len() == TABLES.len() && mirror.tables.iter().all(|t| t.state() == table::State::Streaming)
}

fn source(sides: &Sides) -> anyhow::Result<api::Peer> {
    let config = &sides.source;
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => anyhow::bail!("the source has no TCP address"),
    };
    let password = config.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let postgres = api::PostgresConfig {
        host,
        port: config.get_ports().first().copied().context("the source's port")?.into(),
        user: config.get_user().context("the source's user")?.to_owned(),
        password,
        database: DATABASE.to_owned(),
        ..Default::default()
    };
    Ok(api::Peer {
        name: SOURCE.to_owned(),
        config: Some(peer::Config::Postgres(postgres)),
        ..Default::default()
    })
}

fn destination(sides: &Sides) -> api::Peer {
    let clickhouse = api::ClickhouseConfig {
        url: sides.clickhouse_url.clone(),
        user: sides.clickhouse_user.clone(),
        password: Some(sides.clickhouse_password.clone()),
        database: DATABASE.to_owned(),
        ..Default::default()
    };
    api::Peer {
        name: DESTINATION.to_owned(),
        config: Some(peer::Config::Clickhouse(clickhouse)),
        ..Default::default()
    }
}
