//! Peers: the databases that we connect to. Their description is stored sealed.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use millrace_terms::{Code, Error, Result};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::difference::{differences, summary, tell};
use crate::page::{Page, PageRequest};
use crate::sealing::Sealed;
use crate::spec::{PeerConfig, PeerSpec};
use crate::sql::{self, Columns};
use crate::{edits, errors};

/// What sealed descriptions are bound to, with the peer's name.
const SEALED_KIND: &str = "peer";

/// A stored peer, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is, secrets included: never given out as it is.
    pub spec: PeerSpec,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Another text after every change.
    pub etag: String,
    /// The request that created it or changed it last; empty for none.
    pub request_id: String,
}

/// Which peers are listed. `Default` is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFilter {
    /// Only PostgreSQL (`postgres`) or ClickHouse (`clickhouse`); empty for both.
    pub kind: &'static str,
    /// Only names that begin so.
    pub name_prefix: String,
}

/// How a create treats what is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// An object of the same name and content is as good as a new one.
    pub allow_existing: bool,
    /// Names the request: a repeat of the one that created the object is as good as the first, if it asks
    /// for the same. Empty for none.
    pub request_id: String,
}

/// What a create found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created<T> {
    /// It was created by this call.
    New(T),
    /// It was there already, and that is right.
    Existing(T),
}

impl<T> Created<T> {
    /// The object, created or found.
    pub fn into_inner(self) -> T {
        match self {
            Created::New(object) | Created::Existing(object) => object,
        }
    }
}

impl Catalog {
    /// Creates a peer.
    ///
    /// # Errors
    /// PEER_EXISTS with the differences (metadata `difference`) if another is there.
    pub async fn create_peer(&self, spec: &PeerSpec, options: &CreateOptions) -> Result<Created<Peer>> {
        let sealed = self.seal_peer(spec)?;
        let row = sql::row(
            &self.client().await?,
            "insert into peers (name, kind, sealed, key_id, request_id) values ($1, $2, $3, $4, $5)
             on conflict (name) do nothing returning created_at, updated_at, etag, request_id",
            &[&spec.name, &kind(&spec.config), &sealed.bytes, &sealed.key_id, &options.request_id],
        )
        .await?;
        if let Some(row) = row {
            return Ok(Created::New(stored(Columns(&row), spec.clone())?));
        }
        let client = self.client().await?;
        let row = sql::row(&client, PEER_BY_NAME, &[&spec.name]).await?;
        // Dropped between the two statements: the caller may as well ask again.
        let row = row
            .ok_or_else(|| Error::new(Code::EditConflict, format!("peer {} was just dropped", spec.name)))?;
        let existing = self.open_peer(&row)?;
        let same_request = !options.request_id.is_empty() && existing.request_id == options.request_id;
        let differences = differences(&existing.spec, spec)?;
        if differences.is_empty() && (options.allow_existing || same_request) {
            return Ok(Created::Existing(existing));
        }
        let how = if differences.is_empty() { "it is the same".into() } else { summary(&differences) };
        let error = Error::new(Code::PeerExists, format!("peer {} exists already: {how}", spec.name));
        Err(tell(error.with("peer", &spec.name), &differences))
    }

    /// A peer by its name.
    ///
    /// # Errors
    /// PEER_NOT_FOUND.
    pub async fn get_peer(&self, name: &str) -> Result<Peer> {
        let row = sql::row(&self.client().await?, PEER_BY_NAME, &[&name]).await?;
        self.open_peer(&row.ok_or_else(|| not_found(name))?)
    }

    /// Number of the peers. None of their secrets is opened for it.
    pub async fn count_peers(&self) -> Result<u64> {
        let row = sql::one(&self.client().await?, "select count(*) as peers from peers", &[]).await?;
        Columns(&row).count("peers")
    }

    /// Peers by name.
    pub async fn list_peers(&self, request: &PageRequest, filter: &PeerFilter) -> Result<Page<Peer>> {
        let rows = sql::rows(
            &self.client().await?,
            "select name, sealed, key_id, request_id, created_at, updated_at, etag from peers
             where name > $1 and ($3 = '' or kind = $3) and starts_with(name, $4) order by name limit $2",
            &[&request.token, &i64::from(request.limit() + 1), &filter.kind, &filter.name_prefix],
        )
        .await?;
        let peers = rows.iter().map(|row| self.open_peer(row)).collect::<Result<Vec<_>>>()?;
        Ok(Page::new(peers, request, |peer| peer.spec.name.clone()))
    }

    /// Replaces the description of a peer. `etag`: only if it is still that one; empty for any. `request_id`
    /// names the request; empty for none. The streams of its mirrors are fenced: their next attempts connect
    /// as it says now.
    ///
    /// # Errors
    /// PEER_NOT_FOUND, EDIT_CONFLICT; PEER_IN_USE with the names of the mirrors if it names another
    /// database while there are any: their tables would be somewhere else.
    pub async fn update_peer(&self, spec: &PeerSpec, etag: &str, request_id: &str) -> Result<Peer> {
        let sealed = self.seal_peer(spec)?;
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // Locked, so that the foreign key of a mirror that is being created waits for us, or we for it.
        let locked = format!("{PEER_BY_NAME} for update");
        let row = sql::row(&transaction, &locked, &[&spec.name]).await?;
        let before = self.open_peer(&row.ok_or_else(|| not_found(&spec.name))?)?;
        require_etag(&spec.name, &before.etag, etag)?;
        let users = users(&transaction, &spec.name).await?;
        if place(&before.spec.config) != place(&spec.config) && !users.is_empty() {
            return Err(moved(&before.spec, users.join(", ")));
        }
        let row = sql::one(
            &transaction,
            "update peers set sealed = $2, key_id = $3, kind = $4, request_id = $5, updated_at = now(),
                etag = gen_random_uuid()::text
             where name = $1 returning created_at, updated_at, etag, request_id",
            &[&spec.name, &sealed.bytes, &sealed.key_id, &kind(&spec.config), &request_id],
        )
        .await?;
        for mirror in users.iter().filter(|_| before.spec != *spec) {
            edits::fence(&transaction, mirror, None).await?;
        }
        transaction.commit().await.map_err(errors::database)?;
        stored(Columns(&row), spec.clone())
    }

    /// Deletes a peer. `etag`: only if it is still that one; empty for any.
    ///
    /// # Errors
    /// PEER_NOT_FOUND, EDIT_CONFLICT, PEER_IN_USE with the names of the mirrors.
    pub async fn delete_peer(&self, name: &str, etag: &str) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // Locked as above. It is not opened: a peer whose key is lost can be deleted.
        let row =
            sql::row(&transaction, "select etag from peers where name = $1 for update", &[&name]).await?;
        require_etag(name, &Columns(&row.ok_or_else(|| not_found(name))?).text("etag")?, etag)?;
        let users = users(&transaction, name).await?;
        if !users.is_empty() {
            let mirrors = users.join(", ");
            let error = Error::new(Code::PeerInUse, format!("peer {name} is used by {mirrors}"));
            return Err(error.with("peer", name).with("mirrors", mirrors));
        }
        sql::execute(&transaction, "delete from peers where name = $1", &[&name]).await?;
        transaction.commit().await.map_err(errors::database)
    }

    fn seal_peer(&self, spec: &PeerSpec) -> Result<Sealed> {
        let plain = serde_json::to_vec(&spec.config).map_err(|error| errors::internal(error.to_string()))?;
        self.keys.seal(SEALED_KIND, &spec.name, &plain)
    }

    fn open_peer(&self, row: &Row) -> Result<Peer> {
        let columns = Columns(row);
        let name = columns.text("name")?;
        let sealed = Sealed { bytes: columns.get("sealed")?, key_id: columns.text("key_id")? };
        let plain = self.keys.open(SEALED_KIND, &name, &sealed)?;
        // The parser's words could quote a secret.
        let config = serde_json::from_slice(&plain).map_err(|_| {
            Error::new(
                Code::CatalogVersion,
                format!("the description of peer {name} is not known to this release"),
            )
        })?;
        stored(columns, PeerSpec { name, config })
    }
}

const PEER_BY_NAME: &str =
    "select name, sealed, key_id, request_id, created_at, updated_at, etag from peers where name = $1";

fn require_etag(name: &str, found: &str, etag: &str) -> Result<()> {
    if etag.is_empty() || etag == found {
        return Ok(());
    }
    Err(Error::new(Code::EditConflict, format!("peer {name} was changed meanwhile")).with("peer", name))
}

/// What tells the databases of one server apart, and servers of different kinds.
fn place(config: &PeerConfig) -> (&'static str, &str, &str) {
    match config {
        PeerConfig::Postgres(postgres) => (kind(config), &postgres.database, ""),
        PeerConfig::Clickhouse(clickhouse) => (kind(config), &clickhouse.database, &clickhouse.cluster),
    }
}

fn stored(columns: Columns<'_>, spec: PeerSpec) -> Result<Peer> {
    Ok(Peer {
        spec,
        request_id: columns.text("request_id")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        etag: columns.text("etag")?,
    })
}

fn kind(config: &PeerConfig) -> &'static str {
    match config {
        PeerConfig::Postgres(_) => "postgres",
        PeerConfig::Clickhouse(_) => "clickhouse",
    }
}

/// Names of the mirrors that use a peer.
async fn users(client: &impl GenericClient, peer: &str) -> Result<Vec<String>> {
    let sql = "select name from mirrors where source = $1 or destination = $1 order by name";
    let rows = sql::rows(client, sql, &[&peer]).await?;
    rows.iter().map(|row| Columns(row).text("name")).collect()
}

/// The error for a peer that cannot lead to another database, because these mirrors use it.
pub fn moved(stored: &PeerSpec, mirrors: String) -> Error {
    let (name, database) = (&stored.name, stored.config.database());
    let message = format!("peer {name} cannot lead to another database than {database}: {mirrors} use it");
    Error::new(Code::PeerInUse, message).with("peer", name).with("mirrors", mirrors).with_remedy(
        "Create another peer, and the mirrors anew on it: what they made is in the database of this one.",
    )
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::new(Code::PeerNotFound, format!("no peer is called {name}")).with("peer", name)
}
