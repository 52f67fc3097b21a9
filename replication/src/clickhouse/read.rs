//! Reading whole tables, in the form that is written. I/O.

use std::time::Duration;

use millrace_terms::Result;

use super::{ANSWER_GRACE, Clickhouse, STATEMENT_SECONDS_MAX, error};

/// Rows of a block of an answer: it is held in memory as a whole.
const BLOCK_ROWS: &str = "8192";

impl Clickhouse {
    /// Runs a SELECT and hands on its answer in the `Native` format, in pieces of any size. `merged` says
    /// whether tables are read with FINAL.
    ///
    /// # Errors
    /// By the server's code, and whatever `each` returns.
    pub(crate) async fn read_native(
        &self,
        sql: &str,
        merged: bool,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let limit = Duration::from_secs(STATEMENT_SECONDS_MAX) + ANSWER_GRACE;
        let mut answer = self
            .client
            .query_raw(sql)
            .with_setting("final", if merged { "1" } else { "0" })
            .with_setting("do_not_merge_across_partitions_select_final", "0")
            .with_setting("max_block_size", BLOCK_ROWS)
            .with_setting("max_execution_time", STATEMENT_SECONDS_MAX.to_string())
            .fetch_bytes("Native")
            .map_err(|error| error::classify(&error))?;
        loop {
            let piece = tokio::time::timeout(limit, answer.next()).await;
            match piece.map_err(|_| error::silent(limit))?.map_err(|error| error::classify(&error))? {
                Some(piece) => each(&piece)?,
                None => return Ok(()),
            }
        }
    }
}
