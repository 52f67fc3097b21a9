//! The two databases as the demo's own sessions see them.
//!
//! I/O rim.

use anyhow::Context;
use clickhouse::Client as Clickhouse;
use tokio_postgres::{Client, NoTls};

use super::shop::DATABASE;
use crate::dev::endpoints::Endpoints;

/// Addresses and credentials of both sides.
#[derive(Debug, Clone)]
pub struct Sides {
    /// The source cluster; its `dbname` is the maintenance database.
    pub source: tokio_postgres::Config,
    /// ClickHouse's URL without credentials.
    pub clickhouse_url: String,
    /// ClickHouse's user.
    pub clickhouse_user: String,
    /// Its password.
    pub clickhouse_password: String,
}

impl Sides {
    /// Reads them off the endpoints.
    ///
    /// # Errors
    /// If a URL has another form than ours.
    pub fn new(endpoints: &Endpoints) -> anyhow::Result<Self> {
        let rest = endpoints.clickhouse.strip_prefix("http://").context("ClickHouse's URL")?;
        let (credentials, host) = rest.split_once('@').context("ClickHouse's URL")?;
        let (user, password) = credentials.split_once(':').context("ClickHouse's URL")?;
        Ok(Self {
            source: endpoints.source.parse().context("the source's URL")?,
            clickhouse_url: format!("http://{host}"),
            clickhouse_user: user.to_owned(),
            clickhouse_password: password.to_owned(),
        })
    }

    /// A session in the maintenance database.
    ///
    /// # Errors
    /// If the source cannot be reached.
    pub async fn admin(&self) -> anyhow::Result<Client> {
        connect(&self.source).await
    }

    /// A session in the shop's database.
    ///
    /// # Errors
    /// If the source cannot be reached.
    pub async fn shop(&self) -> anyhow::Result<Client> {
        self.database(DATABASE).await
    }

    /// A session in a database of that name.
    ///
    /// # Errors
    /// If the source cannot be reached.
    pub async fn database(&self, name: &str) -> anyhow::Result<Client> {
        let mut config = self.source.clone();
        config.dbname(name).application_name("millrace-demo").options("-c timezone=UTC");
        connect(&config).await
    }

    /// A client in the shop's database in ClickHouse, which reads with FINAL.
    pub fn clickhouse(&self) -> Clickhouse {
        Clickhouse::default()
            .with_url(&self.clickhouse_url)
            .with_user(&self.clickhouse_user)
            .with_password(&self.clickhouse_password)
            .with_database(DATABASE)
            .with_setting("final", "1")
            .with_setting("do_not_merge_across_partitions_select_final", "0")
    }
}

async fn connect(config: &tokio_postgres::Config) -> anyhow::Result<Client> {
    let (client, connection) = config.connect(NoTls).await.context("connecting to the source")?;
    // Its error is seen by the client's next call.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
