//! One value of any type, in either form.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    millrace_replication::fuzz::transcode(input);
});
