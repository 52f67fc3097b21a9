//! End-to-end tests: the real binary, PostgreSQL, Temporal and ClickHouse, as a user runs them.
//!
//! All tests share one `millrace dev`; each has databases, peers and mirrors of its own, so they run
//! side by side. Tests that kill something of ours start servers and workers of their own on the
//! shared databases ([`support::cell`]). One file per behaviour; names say what a user would notice.
//!
//! The harness is `libtest-mimic` and not the standard one, because the shared stack must be stopped
//! when the last test is over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

mod support;

mod access;
mod api;
mod audit;
mod cancel;
mod chaos;
mod clients;
mod crash;
mod doctor;
mod drop;
mod failover;
mod faults;
mod fencing;
mod files;
mod inheritance;
mod kinds;
mod lag;
mod many;
mod modes;
mod names;
mod options;
mod outages;
mod owned;
mod partitions;
mod recopied;
mod refusals;
mod reshaped;
mod rest;
mod restored;
mod resync;
mod schema;
mod shared;
mod snapshot;
mod source;
mod status;
mod stream;
mod streams;
mod tables;
mod temporal;
mod terminated;
mod tls;
mod transactions;
mod types;
mod user;
mod verify;

use libtest_mimic::{Arguments, Trial};

/// Tests at once, on two cores: most of their time they wait for leases, retries and Temporal's timers.
const TEST_THREADS: usize = 3;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TEST_THREADS);
    let trials: Vec<Trial> = [
        // It needs the machine for itself, and here nothing runs yet.
        chaos::tests(),
        access::tests(),
        api::tests(),
        audit::tests(),
        cancel::tests(),
        clients::tests(),
        crash::tests(),
        doctor::tests(),
        drop::tests(),
        failover::tests(),
        faults::tests(),
        files::tests(),
        fencing::tests(),
        inheritance::tests(),
        kinds::tests(),
        lag::tests(),
        many::tests(),
        names::tests(),
        options::tests(),
        outages::tests(),
        owned::tests(),
        partitions::tests(),
        recopied::tests(),
        refusals::tests(),
        modes::tests(),
        rest::tests(),
        reshaped::tests(),
        restored::tests(),
        resync::tests(),
        schema::tests(),
        shared::tests(),
        snapshot::tests(),
        source::tests(),
        status::tests(),
        stream::tests(),
        streams::tests(),
        tables::tests(),
        temporal::tests(),
        terminated::tests(),
        tls::tests(),
        transactions::tests(),
        types::tests(),
        user::tests(),
        verify::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::stack::stop();
    conclusion.exit();
}
