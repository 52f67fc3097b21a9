//! A writer: runs its transactions, one after the other, whatever happens to the source. I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::transactions::{End, Step, Transaction, Transactions};

/// Longest wait for one transaction: the source may be frozen.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(40);
/// Longest wait for a session.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Pause before the source is asked again.
const RETRY: Duration = Duration::from_millis(200);
/// Locks are held by transactions that are prepared or sleep; a writer has others to write.
const SESSION: &str = "set lock_timeout = '250ms'; set idle_in_transaction_session_timeout = '60s'";

/// What the writers have done.
#[derive(Debug, Default)]
pub struct Done {
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    pub prepared: AtomicU64,
    /// Those that failed, by SQLSTATE, or `lost` if the source was.
    pub failed: Mutex<BTreeMap<String, u64>>,
}

/// A session of its own. It ends when it is dropped.
pub async fn connect(config: &Config) -> Result<Client, String> {
    let connected = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls));
    let (client, connection) =
        connected.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(client)
}

/// Writes until told to stop.
pub async fn run(config: Config, seed: u64, writer: u32, stop: Arc<AtomicBool>, done: Arc<Done>) {
    let mut transactions = Transactions::new(seed, writer);
    let mut prepared = VecDeque::new();
    let mut session = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(client) = &session else {
            session = open(&config, &mut prepared).await;
            if session.is_none() {
                tokio::time::sleep(RETRY).await;
            }
            continue;
        };
        number += 1;
        let transaction = transactions.draw();
        let name = format!("chaos-{writer}-{number}");
        let ran =
            tokio::time::timeout(TRANSACTION_LIMIT, run_one(client, &transaction, &name, &mut prepared));
        let ran = ran.await;
        done.count(&transaction.end, ran.as_ref().ok());
        // What could not be ended now is ended by the next session.
        let is_over = ran.is_err() || !prepared.is_empty() || client.is_closed();
        if is_over || client.batch_execute("rollback").await.is_err() {
            session = None;
        }
        tokio::time::sleep(Duration::from_millis(transaction.pause)).await;
    }
}

/// A session; what an earlier one left prepared is ended first.
async fn open(config: &Config, prepared: &mut VecDeque<(String, bool)>) -> Option<Client> {
    let client = connect(config).await.ok()?;
    client.batch_execute(SESSION).await.ok()?;
    while let Some((name, commit)) = prepared.front() {
        // That it is unknown is fine: the source died before it was prepared, or after it was ended.
        let ended = tokio::time::timeout(CONNECT_LIMIT, client.batch_execute(&ending(name, *commit))).await;
        if ended.is_err() || client.is_closed() {
            return None;
        }
        prepared.pop_front();
    }
    Some(client)
}

fn ending(name: &str, commit: bool) -> String {
    let verb = if commit { "commit" } else { "rollback" };
    format!("{verb} prepared '{name}'")
}

impl Done {
    fn count(&self, end: &End, ran: Option<&Result<(), Error>>) {
        let counter = match end {
            End::Commit => &self.committed,
            End::Rollback => &self.rolled_back,
            End::Prepare { .. } => &self.prepared,
        };
        match ran {
            Some(Ok(())) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            failed => {
                let state = failed.and_then(|result| result.as_ref().err()?.code());
                let state = state.map_or("lost", |state| state.code()).to_owned();
                *self.failed.lock().unwrap().entry(state).or_default() += 1;
            }
        }
    }
}

async fn run_one(
    client: &Client,
    transaction: &Transaction,
    name: &str,
    prepared: &mut VecDeque<(String, bool)>,
) -> Result<(), Error> {
    client.batch_execute(transaction.begin).await?;
    for group in &transaction.groups {
        if !transaction.guarded {
            run_group(client, group).await?;
            continue;
        }
        client.batch_execute("savepoint guard").await?;
        if run_group(client, group).await.is_err() {
            client.batch_execute("rollback to guard").await?;
        }
    }
    match transaction.end {
        End::Commit => client.batch_execute("commit").await,
        End::Rollback => client.batch_execute("rollback").await,
        End::Prepare { commit, after } => {
            prepared.push_back((name.to_owned(), commit));
            client.batch_execute(&format!("prepare transaction '{name}'")).await?;
            tokio::time::sleep(Duration::from_millis(after)).await;
            client.batch_execute(&ending(name, commit)).await?;
            prepared.pop_back();
            Ok(())
        }
    }
}

async fn run_group(client: &Client, group: &[Step]) -> Result<(), Error> {
    for step in group {
        match step {
            Step::Sql(statement) => client.batch_execute(statement).await?,
            Step::Sleep(pause) => tokio::time::sleep(Duration::from_millis(*pause)).await,
            Step::Copy { statement, lines } => copy(client, statement, lines).await?,
        }
    }
    Ok(())
}

async fn copy(client: &Client, statement: &str, lines: &str) -> Result<(), Error> {
    let sink = client.copy_in(statement).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(lines.to_owned())).await?;
    sink.finish().await.map(drop)
}

/// Ends what is prepared, as if by a person who looked.
pub async fn end_prepared(client: &Client) -> Result<(), String> {
    let open = "select gid from pg_prepared_xacts where database = current_database()";
    for row in client.query(open, &[]).await.map_err(|error| error.to_string())? {
        let name: String = row.get(0);
        client.batch_execute(&ending(&name, true)).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
