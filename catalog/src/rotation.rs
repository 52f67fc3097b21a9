//! Rotation of the secret keys: everything sealed is sealed anew under the current key, while the installation
//! runs. A row at a time, so that what was interrupted goes on where it was; the old key opens what is left.

use millrace_terms::{Code, Error, Result};

use crate::connection::Catalog;
use crate::sealing::Sealed;
use crate::sql::{self, Columns};

/// Everything that is sealed: the table, what its rows are bound to ([`crate::sealing`]), and the column, as
/// text, that names a row.
const SEALED: [(&str, &str, &str); 2] = [("peers", "peer", "name"), ("drafts", "draft", "id::text")];

/// Rows read at once: a few hundred KiB.
const CHUNK_ROWS: i64 = 100;

/// What a rotation did.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Rows that were sealed anew.
    pub sealed: u64,
    /// Why rows were left as they are: their key is not given, for one.
    pub failed: Vec<Error>,
}

/// How much is sealed with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub key_id: String,
    /// Peers and drafts that are sealed with it.
    pub objects: u64,
}

impl Catalog {
    /// Seals everything anew that is sealed under another key than the current one. Afterwards, if nothing
    /// failed and every process seals with the current key, the others may go.
    ///
    /// # Errors
    /// Those of the database; what is wrong with a row is in [`Rotation::failed`], and stops no other.
    pub async fn rotate_keys(&self) -> Result<Rotation> {
        let mut done = Rotation::default();
        for (table, kind, id) in SEALED {
            // Rows that somebody changed meanwhile are looked at again: they may bear the old key still.
            while self.pass(table, kind, id, &mut done).await? {}
        }
        Ok(done)
    }

    /// One pass over a table; whether rows were changed by somebody else meanwhile.
    async fn pass(&self, table: &str, kind: &str, id: &str, done: &mut Rotation) -> Result<bool> {
        let client = self.client().await?;
        let select = format!(
            "select {id} as id, sealed, key_id from {table} where key_id <> $1 and {id} > $2 order by 1 limit $3"
        );
        let update = format!(
            "update {table} set sealed = $2, key_id = $3 where {id} = $1 and sealed = $4 and key_id = $5"
        );
        done.failed.retain(|error| error.metadata().get("kind").is_none_or(|failed| failed != kind));
        let (mut after, mut is_raced) = (String::new(), false);
        loop {
            let rows = sql::rows(&client, &select, &[&self.keys.current_id(), &after, &CHUNK_ROWS]).await?;
            for row in &rows {
                let columns = Columns(row);
                after = columns.text("id")?;
                let old = Sealed { bytes: columns.get("sealed")?, key_id: columns.text("key_id")? };
                let new = match self.keys.open(kind, &after, &old) {
                    Ok(plain) => self.keys.seal(kind, &after, &plain)?,
                    Err(error) => {
                        done.failed.push(error.with("kind", kind));
                        continue;
                    }
                };
                let parameters: sql::Params<'_> = &[&after, &new.bytes, &new.key_id, &old.bytes, &old.key_id];
                match sql::execute(&client, &update, parameters).await? {
                    0 => is_raced = true,
                    _ => done.sealed += 1,
                }
            }
            if rows.len() < CHUNK_ROWS as usize {
                return Ok(is_raced);
            }
        }
    }

    /// How much is sealed with which key, the unused ones of [`crate::SecretKeys`] included.
    pub async fn key_uses(&self) -> Result<Vec<KeyUse>> {
        let sql = "select key_id, count(*) as objects
             from (select key_id from peers union all select key_id from drafts) sealed group by key_id";
        let rows = sql::rows(&self.client().await?, sql, &[]).await?;
        let mut uses: Vec<KeyUse> =
            self.keys.ids().map(|id| KeyUse { key_id: id.to_owned(), objects: 0 }).collect();
        for row in rows.iter().map(Columns) {
            let (key_id, objects) = (row.text("key_id")?, row.count("objects")?);
            match uses.iter_mut().find(|known| known.key_id == key_id) {
                Some(known) => known.objects = objects,
                None => uses.push(KeyUse { key_id, objects }),
            }
        }
        Ok(uses)
    }
}

impl Rotation {
    /// The rotation as one verdict.
    ///
    /// # Errors
    /// SECRET_KEY_MISSING if something could not be sealed anew; it says how much and why.
    pub fn into_result(self) -> Result<u64> {
        let Some(first) = self.failed.first() else { return Ok(self.sealed) };
        let message = format!(
            "{} sealed anew, {} not, the first because {}",
            self.sealed,
            self.failed.len(),
            first.message()
        );
        Err(Error::new(Code::SecretKeyMissing, message).with_remedy(first.remedy()))
    }
}
