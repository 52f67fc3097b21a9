//! One message of the replication protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    millrace_replication::fuzz::pgoutput(input);
});
