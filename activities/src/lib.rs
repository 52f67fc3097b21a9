//! The activities: what the workflows' steps do. Each fetches what it needs from the catalog, calls
//! the data plane, tells Temporal that it lives, and writes down what it did. Each may be run again
//! at any time, also while an older attempt still runs somewhere.
//!
//! The steps, one file each, in the order in which a mirror meets them:
//! - `check`: looks at a draft; the only step before a mirror exists.
//! - `record`: the mirror's phase into the catalog, what is due out of it; events.
//! - `prepare_source`, `prepare_destination`.
//! - `take_epoch`, `plan_partitions`, `copy_partitions`, `finish_copy`: a table's copy. `append`: that of an append-only one.
//! - `stream`: the changes.
//! - `resync`: tables into RESYNCING, planned anew where they do not fit any more.
//! - `edit`: tables that join and leave.
//! - `verify`: compares tables with their sources, and mends what differs.
//! - `drop_mirror`: removes what a mirror made.
//! - `housekeeping`: regular work for all mirrors.
//!
//! Around them:
//! - `environment`: what they share. `peers`: configurations as the data plane takes them.
//! - `publish`: the publication of a stream.
//! - `reshaped`: a copy whose table is another than was planned.
//! - `heirs`: tables that are one with those that inherit from them.
//! - `leaves`: which relations hold the rows of a table, compared with what was known.
//! - `apart`: physical deletes and alterations of a destination table, apart from each other.
//! - `slots`: replication slots, as the catalog keeps them.
//! - `children`: workflows of streams and copies that were ended by force.
//! - `alive`: heartbeats, cancellation. `failure`: errors as Temporal's failures.
//! - `metrics`: what this process did.
//!
//! I/O rim.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod alive;
mod apart;
mod append;
mod check;
mod children;
mod copy_partitions;
mod drop_mirror;
mod edit;
mod environment;
mod failure;
mod finish_copy;
mod heirs;
mod housekeeping;
mod leaves;
mod metrics;
mod peers;
mod plan_partitions;
mod prepare_destination;
mod prepare_source;
mod publish;
mod record;
mod recovery;
mod reshaped;
mod resync;
mod slots;
mod stream;
mod take_epoch;
mod verify;

use std::sync::{Arc, Mutex};

use millrace_catalog::Catalog;
/// Where peers may be: the rules of the data plane.
pub use millrace_replication::addresses;
use millrace_replication::addresses::AddressRules;
use prometheus_client::registry::Registry;
use temporalio_sdk::WorkerOptions;

use environment::Environment;

/// All activities of this process, over one catalog. Cheap to clone.
#[derive(Clone)]
pub struct Activities {
    environment: Arc<Environment>,
}

impl Activities {
    /// The activities of the process that Temporal knows as `worker`; they dial peers where `addresses` lets them,
    /// and their metrics go into `registry`.
    pub fn new(
        worker: String,
        catalog: Catalog,
        addresses: AddressRules,
        registry: &Mutex<Registry>,
    ) -> Self {
        Self { environment: Arc::new(Environment::new(worker, catalog, addresses, registry)) }
    }

    /// Registers what runs on the control queue.
    pub fn register_control(&self, options: &mut WorkerOptions) {
        let environment = || self.environment.clone();
        options
            .register_activities(record::Step(environment()))
            .register_activities(prepare_source::Step(environment()))
            .register_activities(prepare_destination::Step(environment()))
            .register_activities(take_epoch::Step(environment()))
            .register_activities(plan_partitions::Step(environment()))
            .register_activities(resync::Step(environment()))
            .register_activities(edit::Step(environment()))
            .register_activities(finish_copy::Step(environment()))
            .register_activities(verify::Step(environment()))
            .register_activities(drop_mirror::Step(environment()))
            .register_activities(check::Step(environment()))
            .register_activities(housekeeping::Step(environment()));
    }

    /// Registers what runs on the snapshot queue.
    pub fn register_snapshot(&self, options: &mut WorkerOptions) {
        options
            .register_activities(copy_partitions::Step(self.environment.clone()))
            .register_activities(verify::Compare(self.environment.clone()));
    }

    /// Registers what runs on the stream queue.
    pub fn register_stream(&self, options: &mut WorkerOptions) {
        options.register_activities(stream::Step(self.environment.clone()));
    }
}
