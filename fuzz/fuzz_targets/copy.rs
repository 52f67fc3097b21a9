//! One binary COPY, in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    millrace_replication::fuzz::copy(input);
});
