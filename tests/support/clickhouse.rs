//! ClickHouse as a test sees it: SQL in, tab-separated text out, by the official client.

use clickhouse::Client;

/// One database of the shared ClickHouse.
#[derive(Clone)]
pub struct Clickhouse {
    client: Client,
}

impl Clickhouse {
    /// `url` is `http://USER:PASSWORD@HOST:PORT`.
    pub fn new(url: &str, database: &str) -> Self {
        let (credentials, host) =
            url.strip_prefix("http://").and_then(|rest| rest.split_once('@')).expect("a URL with a user");
        let (user, password) = credentials.split_once(':').expect("a user with a password");
        let client = Client::default()
            .with_url(format!("http://{host}"))
            .with_user(user)
            .with_password(password)
            .with_database(database);
        Self { client }
    }

    /// Runs a statement and returns what it prints.
    pub async fn query(&self, sql: &str) -> Result<String, String> {
        // `?` is a placeholder of the client; it is written twice to stand for itself.
        let mut answer = self
            .client
            .query(&sql.replace('?', "??"))
            .fetch_bytes("TabSeparatedRaw")
            .map_err(|error| format!("{sql}: {error}"))?;
        let bytes = answer.collect().await.map_err(|error| format!("{sql}: {error}"))?;
        String::from_utf8(bytes.into()).map_err(|error| format!("{sql}: {error}"))
    }

    /// The rows of a query of one text column.
    pub async fn query_lines(&self, sql: &str) -> Result<Vec<String>, String> {
        let answer = self.query(&format!("select toJSONString(line) from ({sql})")).await?;
        answer
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}")))
            .collect()
    }
}
