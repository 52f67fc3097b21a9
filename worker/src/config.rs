//! Settings of a worker. Pure: no I/O.

use std::net::SocketAddr;

use secrecy::SecretString;

/// Settings of a worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of the catalog.
    pub catalog_url: SecretString,
    /// Keys that open the peers' secrets: `id:base64(32 bytes)[,...]`.
    pub secret_keys: SecretString,
    /// URL of Temporal's frontend.
    pub temporal_address: String,
    /// Temporal namespace; it must exist.
    pub temporal_namespace: String,
    /// What the task queues' names begin with.
    pub queue_prefix: String,
    /// The queues it polls.
    pub queues: Vec<Queue>,
    /// Networks that peers may be in; empty for all but those that hold no database.
    pub peer_allow: Vec<String>,
    /// Networks that peers may not be in.
    pub peer_deny: Vec<String>,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub metrics_listen: SocketAddr,
}

/// A task queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Workflows, checks, and everything short.
    Control,
    /// Copies of tables.
    Snapshot,
    /// Streams.
    Stream,
}
