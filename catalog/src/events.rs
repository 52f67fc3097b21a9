//! Events: what happened to a mirror, for people. They outlive the mirror, so that one can read how
//! its drop went.

use std::fmt;
use std::str::FromStr;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use millrace_terms::{Error, EventCode, Result};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::page::{Page, PageRequest};
use crate::sql::{self, Columns};
use crate::state::words;

words! {
    /// How much an event matters.
    Severity {
        /// As it should be.
        Info = "INFO",
        /// It goes on, but somebody should look.
        Warning = "WARNING",
        /// Something stopped.
        Error = "ERROR",
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Later ones have higher numbers.
    pub id: i64,
    /// When it was written down.
    pub at: Timestamp,
    /// The table on the source; empty for the mirror as a whole.
    pub table: String,
    /// How much it matters.
    pub severity: Severity,
    /// The stable code of an error, or of what happened; empty if a release wrote it that had none.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What a person should do; empty if nothing.
    pub remedy: String,
}

/// An event to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    mirror: String,
    table: String,
    severity: Severity,
    code: &'static str,
    message: String,
    remedy: String,
}

impl NewEvent {
    /// An error of a mirror. If it names a table, the event is that table's.
    pub fn of_error(mirror: &str, severity: Severity, error: &Error) -> Self {
        Self {
            mirror: mirror.to_owned(),
            table: error.metadata().get("table").cloned().unwrap_or_default(),
            severity,
            code: error.code().as_str(),
            message: error.message().to_owned(),
            remedy: error.remedy().to_owned(),
        }
    }

    /// Something of a mirror that is as it should be.
    pub fn info(mirror: &str, code: EventCode, message: &str) -> Self {
        Self {
            mirror: mirror.to_owned(),
            table: String::new(),
            severity: Severity::Info,
            code: code.as_str(),
            message: message.to_owned(),
            remedy: String::new(),
        }
    }

    /// Names the table on the source.
    #[must_use]
    pub fn on_table(mut self, table: &impl ToString) -> Self {
        self.table = table.to_string();
        self
    }
}

/// Which events are listed. `Default` is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those of this table on the source; empty for all.
    pub table: String,
    /// Only those that matter so much or more.
    pub min_severity: Option<Severity>,
    /// Only those of this code; empty for all.
    pub code: String,
    /// Only those from then on.
    pub from: Option<Timestamp>,
    /// Only those before then.
    pub to: Option<Timestamp>,
}

impl EventFilter {
    /// The severities that it lets through.
    fn severities(&self) -> Vec<&'static str> {
        let all = [Severity::Info, Severity::Warning, Severity::Error];
        let least = self.min_severity.unwrap_or(Severity::Info);
        all.iter().skip_while(|severity| **severity != least).map(|severity| severity.as_str()).collect()
    }
}

impl Catalog {
    /// Writes down an event.
    pub async fn add_event(&self, event: &NewEvent) -> Result<()> {
        add(&self.client().await?, event).await
    }

    /// The events of a mirror, newest first. One that never was has none.
    pub async fn list_events(
        &self,
        mirror: &str,
        request: &PageRequest,
        filter: &EventFilter,
    ) -> Result<Page<Event>> {
        // A token that is not a number is somebody's invention: the list begins anew.
        let before = request.token.parse().unwrap_or(i64::MAX);
        let rows = sql::rows(
            &self.client().await?,
            "select id, at, source_table, severity, code, message, remedy from events
             where mirror = $1 and id < $2 and ($4 = '' or source_table = $4) and severity = any ($5)
                and ($6 = '' or code = $6) and ($7::timestamptz is null or at >= $7)
                and ($8::timestamptz is null or at < $8)
             order by id desc limit $3",
            &[
                &mirror,
                &before,
                &i64::from(request.limit() + 1),
                &filter.table,
                &filter.severities(),
                &filter.code,
                &filter.from,
                &filter.to,
            ],
        )
        .await?;
        let events = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Page::new(events, request, |event| event.id.to_string()))
    }
}

/// Writes down an event, in the caller's transaction if it has one.
pub(crate) async fn add(client: &impl GenericClient, event: &NewEvent) -> Result<()> {
    let NewEvent { mirror, table, severity, code, message, remedy } = event;
    sql::execute(
        client,
        "insert into events (mirror, source_table, severity, code, message, remedy)
         values ($1, $2, $3, $4, $5, $6)",
        &[mirror, table, &severity.as_str(), code, message, remedy],
    )
    .await
    .map(drop)
}

fn read(row: &Row) -> Result<Event> {
    let columns = Columns(row);
    Ok(Event {
        id: columns.get("id")?,
        at: columns.time("at")?,
        table: columns.text("source_table")?,
        severity: columns.word("severity")?,
        code: columns.text("code")?,
        message: columns.text("message")?,
        remedy: columns.text("remedy")?,
    })
}
