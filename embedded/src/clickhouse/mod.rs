//! ClickHouse: the engine as a library, behind a server of ours. Not built yet.
