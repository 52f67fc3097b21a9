//! Two databases, one on either side.

use millrace_replication::clickhouse::Clickhouse;
use millrace_replication::postgres::Session;

use super::kinds::SETUP;
use crate::servers::{Source, destination};

pub struct Pair {
    pub source: Session,
    pub sink: Clickhouse,
}

impl Pair {
    pub async fn new() -> Self {
        let Source { sql: source, word, .. } = Source::new().await;
        source.batch_execute(SETUP).await.unwrap();
        Self { source, sink: destination(&word).await }
    }
}
