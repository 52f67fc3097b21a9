//! Drafts: what is looked at before it is stored, and the answers of the workers that looked. The
//! specification is sealed; only the draft's id travels through Temporal.

use millrace_terms::check::Check;
use millrace_terms::{Code, Error, Result, TableName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::connection::Catalog;
use crate::errors;
use crate::sealing::Sealed;
use crate::slots::SlotLook;
use crate::spec::{MirrorSpec, PeerSpec};
use crate::sql::{self, Columns};

/// What sealed drafts are bound to, with the draft's id.
const SEALED_KIND: &str = "draft";

/// What is to be looked at. Peers are whole, because they need not be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draft {
    /// A peer as such.
    Peer(PeerSpec),
    /// The tables of a source.
    Tables(PeerSpec),
    /// What mirrors that are gone left behind on a source: it is removed.
    Orphans {
        /// The source.
        source: Box<PeerSpec>,
        /// Whether it is only named.
        only_look: bool,
    },
    /// Both peers and every table of a mirror.
    Mirror {
        /// The mirror: patterns replaced, destinations named.
        mirror: Box<MirrorSpec>,
        /// Its source.
        source: Box<PeerSpec>,
        /// Its destination.
        destination: Box<PeerSpec>,
        /// For tables that join a mirror that is there: the destination tables that it wrote before, which may
        /// hold rows. None for a new mirror.
        #[serde(default)]
        former: Option<Vec<String>>,
    },
    /// A mirror that is stored, by its name: as it is now.
    Stored(String),
    /// A replication slot of a source.
    Slot {
        /// The source.
        source: Box<PeerSpec>,
        /// Name of the slot.
        slot: String,
    },
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Every check, also after one that failed.
    pub checks: Vec<Check>,
    /// The tables: those of the mirror that exist, or all of the source.
    pub tables: Vec<CheckedTable>,
    /// The replication slot that was looked at, if it is there.
    #[serde(default)]
    pub slot: Option<SlotLook>,
}

/// A table that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckedTable {
    /// Its name on the source.
    pub source: TableName,
    /// Its OID.
    pub oid: u32,
    /// Rows, estimated.
    pub rows_estimated: u64,
    /// Heap bytes.
    pub bytes: u64,
    /// Its plan, JSON that the data plane understands; none in a listing.
    pub plan: Option<Value>,
    /// Columns of its key; empty if it has none.
    pub key: Vec<String>,
    /// Its columns, in order.
    pub columns: Vec<CheckedColumn>,
}

/// A column of a [`CheckedTable`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedColumn {
    /// Its name.
    pub name: String,
    /// Its type, as PostgreSQL writes it.
    pub kind: String,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

impl Catalog {
    /// Stores a draft, sealed, for [`crate::retention`]'s time at most.
    pub async fn create_draft(&self, draft: &Draft) -> Result<Uuid> {
        let id = Uuid::new_v4();
        let plain = serde_json::to_vec(draft).map_err(|error| errors::internal(error.to_string()))?;
        let sealed = self.keys.seal(SEALED_KIND, &id.to_string(), &plain)?;
        sql::execute(
            &self.client().await?,
            "insert into drafts (id, sealed, key_id) values ($1, $2, $3)",
            &[&id, &sealed.bytes, &sealed.key_id],
        )
        .await?;
        Ok(id)
    }

    /// Opens a draft, to look at what it holds.
    ///
    /// # Errors
    /// CANCELLED if nobody waits for the answer any more.
    pub async fn open_draft(&self, id: Uuid) -> Result<Draft> {
        let sql = "select sealed, key_id from drafts where id = $1";
        let row = sql::row(&self.client().await?, sql, &[&id]).await?.ok_or_else(|| gone(id))?;
        let columns = Columns(&row);
        let sealed = Sealed { bytes: columns.get("sealed")?, key_id: columns.text("key_id")? };
        let plain = self.keys.open(SEALED_KIND, &id.to_string(), &sealed)?;
        // The parser's words could quote a secret.
        serde_json::from_slice(&plain)
            .map_err(|_| Error::new(Code::CatalogVersion, format!("draft {id} is not known to this release")))
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// CANCELLED if nobody waits for the answer any more.
    pub async fn write_draft_result(&self, id: Uuid, report: &CheckReport) -> Result<()> {
        let sql = "update drafts set result = $2 where id = $1";
        match sql::execute(&self.client().await?, sql, &[&id, &sql::json(report)]).await? {
            0 => Err(gone(id)),
            _ => Ok(()),
        }
    }

    /// The answer, if it is there.
    pub async fn draft_result(&self, id: Uuid) -> Result<Option<CheckReport>> {
        let sql = "select result from drafts where id = $1";
        match sql::row(&self.client().await?, sql, &[&id]).await? {
            Some(row) => Columns(&row).json_opt("result"),
            None => Ok(None),
        }
    }

    /// Deletes a draft. One that is not there is no error.
    pub async fn delete_draft(&self, id: Uuid) -> Result<()> {
        sql::execute(&self.client().await?, "delete from drafts where id = $1", &[&id]).await.map(drop)
    }
}

fn gone(id: Uuid) -> Error {
    Error::new(Code::Cancelled, format!("draft {id} is gone"))
}
