//! API tokens: who may call the API, and as what. The catalog holds a hash of each; the token itself is shown
//! once, to whoever made it.
//!
//! `form`: the text form and the hash.

use std::fmt;
use std::str::FromStr;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use millrace_terms::{Code, Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::page::{Page, PageRequest};
use crate::sealing::SecretKeys;
use crate::sql::{self, Columns};
use crate::state::words;

mod form;

pub use form::Presented;

words! {
    /// What a caller may do. Each role may do all that the ones before it may.
    Role {
        /// Sees everything but secrets, and changes nothing.
        Viewer = "VIEWER",
        /// Makes, changes and drops peers and mirrors.
        Operator = "OPERATOR",
        /// Makes and revokes tokens, and reads the audit log.
        Admin = "ADMIN",
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The part of it by which it is found.
    pub id: String,
    /// What people call it, and what the audit log names.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// The name of the token that made it; empty for `millrace migrate`.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; none if never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; none if never.
    pub last_used_at: Option<Timestamp>,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What people call it.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// The name of the token that makes it.
    pub created_by: String,
    /// When it ends; none if never.
    pub expires_at: Option<Timestamp>,
}

/// How [`ensure_admin_token`] came by an admin token.
#[derive(Debug)]
pub enum AdminToken {
    /// There was none: this one was made, and is shown nowhere else.
    Made(SecretString),
    /// The one that was given is stored.
    Given,
    /// There was one.
    Kept,
}

/// Name of the token that `millrace migrate` makes or is given.
pub const FIRST_TOKEN: &str = "admin";

/// The use of a token is noted at most this often, in seconds: who looks for unused ones asks for days.
const USE_NOTED_SECONDS: f64 = 60.0;

const COLUMNS: &str = "id, name, role, created_by, created_at, expires_at, last_used_at";

impl Catalog {
    /// Makes a token. The secret text is given out here and never again.
    ///
    /// # Errors
    /// TOKEN_EXISTS if another has the name.
    pub async fn create_token(&self, new: &NewToken) -> Result<(Token, SecretString)> {
        let drawn = Presented::generate();
        let client = self.client().await?;
        match insert(&client, &drawn, new, "do nothing").await? {
            Some(token) => Ok((token, drawn.token())),
            None => {
                let message = format!("a token is called {} already", new.name);
                Err(Error::new(Code::TokenExists, message).with("token", &new.name))
            }
        }
    }

    /// The token of an id, with its hash, whether it has expired or not.
    pub async fn find_token(&self, id: &str) -> Result<Option<(Token, String)>> {
        let sql = format!("select {COLUMNS}, hash from api_tokens where id = $1");
        let row = sql::row(&self.client().await?, &sql, &[&id]).await?;
        row.map(|row| Ok((read(&row)?, Columns(&row).text("hash")?))).transpose()
    }

    /// The token of a name.
    ///
    /// # Errors
    /// TOKEN_NOT_FOUND.
    pub async fn get_token(&self, name: &str) -> Result<Token> {
        let sql = format!("select {COLUMNS} from api_tokens where name = $1");
        let row = sql::row(&self.client().await?, &sql, &[&name]).await?;
        read(&row.ok_or_else(|| not_found(name))?)
    }

    /// Notes that a token is in use.
    pub async fn note_token_use(&self, id: &str) -> Result<()> {
        let sql = "update api_tokens set last_used_at = now() where id = $1
            and (last_used_at is null or last_used_at < now() - make_interval(secs => $2))";
        sql::execute(&self.client().await?, sql, &[&id, &USE_NOTED_SECONDS]).await.map(drop)
    }

    /// Tokens by name, expired ones included.
    pub async fn list_tokens(&self, request: &PageRequest) -> Result<Page<Token>> {
        let sql = format!("select {COLUMNS} from api_tokens where name > $1 order by name limit $2");
        let limit = i64::from(request.limit() + 1);
        let rows = sql::rows(&self.client().await?, &sql, &[&request.token, &limit]).await?;
        let tokens = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Page::new(tokens, request, |token| token.name.clone()))
    }

    /// Deletes a token: nobody gets in with it any more.
    ///
    /// # Errors
    /// TOKEN_NOT_FOUND.
    pub async fn delete_token(&self, name: &str) -> Result<Token> {
        let sql = format!("delete from api_tokens where name = $1 returning {COLUMNS}");
        let row = sql::row(&self.client().await?, &sql, &[&name]).await?;
        read(&row.ok_or_else(|| not_found(name))?)
    }

    /// Whether anybody can get in: there is a token that has not expired.
    pub async fn has_tokens(&self) -> Result<bool> {
        let sql =
            "select exists (select from api_tokens where expires_at is null or expires_at > now()) as it";
        Columns(&sql::one(&self.client().await?, sql, &[]).await?).get("it")
    }
}

/// Sees that there is a token of the role admin that does not expire soon, so that an installation always has
/// one who can let others in. `given` is stored under [`FIRST_TOKEN`] and replaces the one of that name; without
/// it one is made if there is none.
///
/// # Errors
/// INVALID_ARGUMENT if the given text is no token.
pub async fn ensure_admin_token(url: &str, given: Option<&SecretString>) -> Result<AdminToken> {
    // No peer is opened here.
    let catalog = Catalog::connect(url, SecretKeys::default()).await?;
    let client = catalog.client().await?;
    let first = NewToken {
        name: FIRST_TOKEN.to_owned(),
        role: Role::Admin,
        created_by: String::new(),
        expires_at: None,
    };
    let (presented, outcome) = match given {
        Some(given) => {
            let presented = Presented::parse(given.expose_secret()).ok_or_else(malformed)?;
            let sql = "select hash from api_tokens where id = $1 and role = 'ADMIN'";
            let stored = sql::row(&client, sql, &[&presented.id]).await?;
            if let Some(row) = stored
                && presented.matches(&Columns(&row).text("hash")?)
            {
                return Ok(AdminToken::Given);
            }
            (presented, AdminToken::Given)
        }
        None if has_admin(&client).await? => return Ok(AdminToken::Kept),
        None => {
            let presented = Presented::generate();
            let token = presented.token();
            (presented, AdminToken::Made(token))
        }
    };
    let replace = "(name) do update set id = excluded.id, role = excluded.role, hash = excluded.hash,
        created_by = '', created_at = now(), expires_at = null, last_used_at = null";
    insert(&client, &presented, &first, replace).await?;
    Ok(outcome)
}

async fn has_admin(client: &impl GenericClient) -> Result<bool> {
    let sql = "select exists (select from api_tokens where role = 'ADMIN' and
        (expires_at is null or expires_at > now())) as it";
    Columns(&sql::one(client, sql, &[]).await?).get("it")
}

async fn insert(
    client: &impl GenericClient,
    presented: &Presented,
    new: &NewToken,
    on_conflict: &str,
) -> Result<Option<Token>> {
    let sql = format!(
        "insert into api_tokens (id, name, role, hash, created_by, expires_at) values ($1, $2, $3, $4, $5, $6)
         on conflict {on_conflict} returning {COLUMNS}"
    );
    let NewToken { name, role, created_by, expires_at } = new;
    let hash = presented.hash()?;
    let row =
        sql::row(client, &sql, &[&presented.id, name, &role.as_str(), &hash, created_by, expires_at]).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<Token> {
    let columns = Columns(row);
    Ok(Token {
        id: columns.text("id")?,
        name: columns.text("name")?,
        role: columns.word("role")?,
        created_by: columns.text("created_by")?,
        created_at: columns.time("created_at")?,
        expires_at: columns.time_opt("expires_at")?,
        last_used_at: columns.time_opt("last_used_at")?,
    })
}

fn not_found(name: &str) -> Error {
    Error::new(Code::TokenNotFound, format!("no token is called {name}")).with("token", name)
}

fn malformed() -> Error {
    Error::new(Code::InvalidArgument, "the admin token is not of the form of a token").with_remedy(
        "Give MILLRACE_ADMIN_TOKEN as mlr_<12 hexadecimal digits>_<64 hexadecimal digits>; \
         echo \"mlr_$(openssl rand -hex 6)_$(openssl rand -hex 32)\" makes one.",
    )
}
