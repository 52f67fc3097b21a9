//! The sessions that a mirror has on its source. I/O.

use std::time::Duration;

use millrace_terms::Result;
use tokio::time::Instant;

use super::{Session, cut, from_sql};

/// How long ended sessions may take to go; what they were doing is rolled back meanwhile.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Time between two looks whether they have gone.
const END_POLL: Duration = Duration::from_millis(50);

/// Ends every other session whose name is `application`, or begins with it and a `/`. A session whose
/// client has gone goes on with its statement until it sends something, and would make a publication
/// or a slot when nobody expects it any more. Those that do not go in time are left.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn end_sessions(session: &Session, application: &str) -> Result<()> {
    let sql = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
                where pid <> pg_catalog.pg_backend_pid() and usename = current_user
                  and (application_name = $1 or pg_catalog.starts_with(application_name, $2))";
    let (name, prefix) = (cut(application), format!("{application}/"));
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let ended = session.query(sql, &[&name, &cut(&prefix)]).await;
        let ended = ended.map_err(|error| from_sql("ending sessions of the mirror", &error))?;
        if ended.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(END_POLL).await;
    }
}
