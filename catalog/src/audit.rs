//! The audit log: every call that changed something, or would have, for people who ask who did it.

use jiff::Timestamp;
use millrace_terms::Result;
use serde_json::Value;
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::page::{Page, PageRequest};
use crate::sql::{self, Columns};
use crate::tokens::Role;

/// A call. Nothing of it is a secret: whoever writes it leaves those out.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Name of the caller's token.
    pub caller: String,
    /// The caller's role.
    pub role: Role,
    /// The method, such as `PauseMirror`.
    pub method: String,
    /// The object, such as `mirrors/shop`; empty for a method that has not one.
    pub subject: String,
    /// The request's id.
    pub request_id: String,
    /// `OK`, or the stable code of the error.
    pub code: String,
    /// The request.
    pub request: Value,
    /// The object before.
    pub before: Option<Value>,
    /// The object after.
    pub after: Option<Value>,
}

/// A call that was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Later ones have higher numbers.
    pub id: i64,
    /// When it was written down.
    pub at: Timestamp,
    /// The call.
    pub call: Call,
}

/// Which entries are asked for; empty texts for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this caller.
    pub caller: String,
    /// Those about this object.
    pub subject: String,
}

impl Catalog {
    /// Writes down a call.
    pub async fn add_audit_entry(&self, call: &Call) -> Result<()> {
        let Call { caller, role, method, subject, request_id, code, request, before, after } = call;
        sql::execute(
            &self.client().await?,
            "insert into audit (caller, role, method, subject, request_id, code, request, before, after)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &[caller, &role.as_str(), method, subject, request_id, code, request, before, after],
        )
        .await
        .map(drop)
    }

    /// The calls that were written down, newest first.
    pub async fn list_audit_entries(&self, filter: &Filter, request: &PageRequest) -> Result<Page<Entry>> {
        // A token that is not a number is somebody's invention: the list begins anew.
        let before = request.token.parse().unwrap_or(i64::MAX);
        let rows = sql::rows(
            &self.client().await?,
            "select id, at, caller, role, method, subject, request_id, code, request, before, after from audit
             where id < $1 and ($2 = '' or caller = $2) and ($3 = '' or subject = $3) order by id desc limit $4",
            &[&before, &filter.caller, &filter.subject, &i64::from(request.limit() + 1)],
        )
        .await?;
        let entries = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Page::new(entries, request, |entry| entry.id.to_string()))
    }
}

fn read(row: &Row) -> Result<Entry> {
    let columns = Columns(row);
    Ok(Entry {
        id: columns.get("id")?,
        at: columns.time("at")?,
        call: Call {
            caller: columns.text("caller")?,
            role: columns.word("role")?,
            method: columns.text("method")?,
            subject: columns.text("subject")?,
            request_id: columns.text("request_id")?,
            code: columns.text("code")?,
            request: columns.json_opt("request")?.unwrap_or_default(),
            before: columns.json_opt("before")?,
            after: columns.json_opt("after")?,
        },
    })
}
