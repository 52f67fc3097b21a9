//! What one test works with: a database on the source, a database in ClickHouse, and two peers that
//! name them. Names are the test's own, so tests run side by side.

use std::time::Duration;

use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use millrace_proto::v1::peer_service_client::PeerServiceClient;
use millrace_proto::v1::{self as api, mirror, peer, table};
use tokio_postgres::{Client, NoTls};
use tonic::transport::{Channel, Endpoint};

use super::clickhouse::Clickhouse;
use super::stack::{self, Endpoints};
use super::{equal, wait};

/// Longest wait for something that takes a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(240);

/// A test's own corner of the shared stack.
pub struct Bed {
    /// Prefix of everything named by this test.
    pub name: String,
    /// The server that the test talks to.
    pub api: Channel,
    /// A superuser's session in the test's database on the source.
    pub source: Client,
    /// The test's database in ClickHouse.
    pub clickhouse: Clickhouse,
    database: String,
    destination_database: String,
    stack: Endpoints,
}

impl Bed {
    /// Makes the databases and the peers `<name>-pg` and `<name>-ch`.
    pub async fn new(test: &'static str) -> Self {
        let stack = tokio::task::spawn_blocking(stack::endpoints).await.expect("the shared stack");
        Self::on(stack.clone(), test).await
    }

    /// The same on a stack of the test's own.
    pub async fn on(stack: Endpoints, test: &'static str) -> Self {
        let name = short_name(test);
        let database = name.replace('-', "_");
        let admin = connect(&stack.source, None).await;
        admin.batch_execute(&format!("create database {database}")).await.expect("a source database");
        let source = connect(&stack.source, Some(&database)).await;
        let clickhouse = Clickhouse::new(&stack.clickhouse, &database);
        let bed = Self {
            name,
            api: channel(&stack.grpc).await,
            source,
            clickhouse,
            destination_database: database.clone(),
            database,
            stack,
        };
        bed.create_peers(&bed.api).await;
        bed
    }

    /// Goes on with databases of these names, the one on the source made with `options`, and with
    /// peers of their own.
    pub async fn move_to(&mut self, source: &str, options: &str, destination: &str) {
        self.sql(&format!("create database \"{}\" {options}", source.replace('"', "\"\""))).await;
        self.name.push_str("-x");
        self.database = source.to_owned();
        self.destination_database = destination.to_owned();
        self.source = self.session().await;
        self.clickhouse = Clickhouse::new(&self.stack.clickhouse, destination);
        self.create_peers(&self.api).await;
    }

    /// Talks to another server than the shared one, which has a catalog of its own.
    pub async fn use_server(&mut self, grpc: &str) {
        self.api = channel(grpc).await;
        self.create_peers(&self.api).await;
    }

    async fn create_peers(&self, server: &Channel) {
        for peer in [self.source_peer(), self.destination_peer()] {
            let request = api::CreatePeerRequest { peer: Some(peer), ..Default::default() };
            PeerServiceClient::new(server.clone()).create_peer(request).await.expect("a peer");
        }
    }

    /// The peer of the test's database on the source.
    pub fn source_peer(&self) -> api::Peer {
        let url: tokio_postgres::Config = self.stack.source.parse().expect("a PostgreSQL URL");
        api::Peer {
            name: format!("{}-pg", self.name),
            config: Some(peer::Config::Postgres(api::PostgresConfig {
                host: host(&url),
                port: u32::from(url.get_ports()[0]),
                user: url.get_user().expect("a user").to_owned(),
                password: url.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
                database: self.database.clone(),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    /// The peer of the test's database in ClickHouse.
    pub fn destination_peer(&self) -> api::Peer {
        let rest = self.stack.clickhouse.strip_prefix("http://").expect("an http URL");
        let (credentials, host) = rest.split_once('@').expect("a user");
        let (user, password) = credentials.split_once(':').expect("a password");
        api::Peer {
            name: format!("{}-ch", self.name),
            config: Some(peer::Config::Clickhouse(api::ClickhouseConfig {
                url: format!("http://{host}"),
                user: user.to_owned(),
                password: Some(password.to_owned()),
                database: self.destination_database.clone(),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    /// Runs statements on the source.
    pub async fn sql(&self, sql: &str) {
        self.source.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Runs a statement in ClickHouse outside of the test's database, which may not exist yet.
    pub async fn clickhouse_admin(&self, sql: &str) {
        let admin = Clickhouse::new(&self.stack.clickhouse, "default");
        admin.query(sql).await.expect("a statement in ClickHouse");
    }

    /// Another session in the test's database on the source.
    pub async fn session(&self) -> Client {
        connect(&self.stack.source, Some(&self.database)).await
    }

    /// How to connect to the test's database on the source.
    pub fn source_config(&self) -> tokio_postgres::Config {
        let mut config: tokio_postgres::Config = self.stack.source.parse().expect("a PostgreSQL URL");
        config.dbname(&self.database);
        config
    }

    /// The mirror service.
    pub fn mirrors(&self) -> MirrorServiceClient<Channel> {
        MirrorServiceClient::new(self.api.clone())
    }

    /// The peer service.
    pub fn peers(&self) -> PeerServiceClient<Channel> {
        PeerServiceClient::new(self.api.clone())
    }

    /// A request for a mirror of these tables, named after the test.
    pub fn mirror(&self, tables: &[&str]) -> api::Mirror {
        api::Mirror {
            name: self.name.clone(),
            source: format!("{}-pg", self.name),
            destination: format!("{}-ch", self.name),
            tables: tables
                .iter()
                .map(|t| api::Table { source: (*t).to_owned(), ..Default::default() })
                .collect(),
            ..Default::default()
        }
    }

    /// Creates a mirror.
    pub async fn create(&self, mirror: api::Mirror) -> Result<api::Mirror, tonic::Status> {
        let request = api::CreateMirrorRequest { mirror: Some(mirror), ..Default::default() };
        self.mirrors().create_mirror(request).await.map(tonic::Response::into_inner)
    }

    /// Creates a mirror of these tables and waits until all of them stream.
    pub async fn mirror_streaming(&self, tables: &[&str]) -> api::Mirror {
        self.create(self.mirror(tables)).await.expect("a mirror");
        self.wait_state(mirror::State::Running).await
    }

    /// The mirror as it is now.
    pub async fn get(&self) -> Result<api::Mirror, tonic::Status> {
        let request = api::GetMirrorRequest { name: self.name.clone() };
        self.mirrors().get_mirror(request).await.map(tonic::Response::into_inner)
    }

    /// Waits until the mirror has the state.
    pub async fn wait_state(&self, state: mirror::State) -> api::Mirror {
        self.wait_for(&format!("mirror {state:?}"), |mirror| mirror.state() == state).await
    }

    /// Waits until a table has the state.
    pub async fn wait_table(&self, source: &str, state: table::State) -> api::Mirror {
        self.wait_for(&format!("{source} {state:?}"), |mirror| {
            mirror.tables.iter().any(|table| table.source == source && table.state() == state)
        })
        .await
    }

    /// Waits until the mirror is as asked for.
    pub async fn wait_for(&self, what: &str, is_so: impl Fn(&api::Mirror) -> bool) -> api::Mirror {
        wait::until(what, SOON, || async {
            match self.get().await {
                Ok(mirror) if is_so(&mirror) => Ok(mirror),
                Ok(mirror) => Err(format!("{mirror:?}")),
                Err(status) => Err(status.to_string()),
            }
        })
        .await
    }

    /// Waits until a query in ClickHouse, of one column `line`, gives these rows.
    pub async fn wait_lines(&self, sql: &str, expected: &[impl AsRef<str>]) {
        wait::until(sql, SOON, || async {
            let seen = self.clickhouse.query_lines(sql).await?;
            let is_so = seen.iter().map(String::as_str).eq(expected.iter().map(AsRef::as_ref));
            if is_so { Ok(()) } else { Err(seen.join("\n")) }
        })
        .await;
    }

    /// Waits until the destination table is exactly the source table; returns the number of rows.
    pub async fn wait_equal(&self, table: &str, destination: &str) -> u64 {
        wait::until(&format!("{table} equal"), SOON, || {
            equal::compare(&self.source, &self.clickhouse, table, destination)
        })
        .await
    }
}

/// A session, its connection driven in the background.
pub async fn connect(url: &str, database: Option<&str>) -> Client {
    let mut config: tokio_postgres::Config = url.parse().expect("a PostgreSQL URL");
    if let Some(database) = database {
        config.dbname(database);
    }
    let (client, connection) = config.connect(NoTls).await.expect("a session");
    tokio::spawn(connection);
    client
}

async fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).expect("a URL").connect().await.expect("a server")
}

fn host(config: &tokio_postgres::Config) -> String {
    match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
        other => panic!("not a TCP host: {other:?}"),
    }
}

/// `stream::keeps_toast` as a mirror's name: `keeps-toast`, at most 30 characters.
fn short_name(test: &str) -> String {
    let last = test.rsplit("::").next().unwrap_or(test).replace('_', "-");
    last.chars().take(30).collect::<String>().trim_end_matches('-').to_owned()
}
