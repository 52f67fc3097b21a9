//! The fuzz targets without a fuzzer: seeded mutations of the committed corpus, in a few seconds.
//! Never a panic, and never more memory than the length of the input accounts for.
//!
//! `MILLRACE_FUZZ_SEED` and `MILLRACE_FUZZ_RUNS` choose what is tried and how much. `cargo fuzz run
//! TARGET`, on a nightly toolchain, looks deeper: it sees which branches an input takes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use millrace_replication::fuzz;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Inputs per target: seconds in a debug build.
const RUNS: u64 = 60_000;
/// Longest input: every loop is entered many times.
const INPUT_BYTES_MAX: usize = 2_000;
/// What was taken for valid is mutated further; so many of these are kept.
const POOL: usize = 2_000;
/// Memory that needs no reason: errors with their texts.
const BASE_BYTES: usize = 64 << 10;

/// Counts what this thread has allocated, and the most it had at once.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // While a thread ends its variables are gone; nothing is measured then.
    let _ended = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ended = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both exist while it is moved.
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_bytes_upset_the_decoder_of_the_replication_protocol() {
    // Of each byte at most: a column of a relation takes ten bytes and becomes a name and its place.
    mutate("pgoutput", fuzz::pgoutput, |input| 32 * input.len());
}

#[test]
fn no_bytes_upset_the_reader_of_binary_copies() {
    // What is pending is kept twice while it grows; the list of fields is the fuzzer's own.
    mutate("copy", fuzz::copy, |input| 16 * input.len() + 256 * size_of::<Option<&[u8]>>());
}

#[test]
fn no_bytes_upset_the_transcoders() {
    // The column, which grows by doubling, and the entry point's copies of it.
    mutate("transcode", fuzz::transcode, |input| 6 * fuzz::transcoded_bytes_max(input));
}

/// Tries the corpus and its mutations. `limit` is how much memory an input may take.
fn mutate(target: &str, entry: fn(&[u8]) -> bool, limit: fn(&[u8]) -> usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("MILLRACE_FUZZ_SEED").unwrap_or(1);
    let mut pool = corpus(target);
    let seeds = pool.len();
    let mut rng = StdRng::seed_from_u64(seed);
    for input in &pool {
        attempt(input, entry, limit);
    }
    for _ in 0..number("MILLRACE_FUZZ_RUNS").unwrap_or(RUNS) {
        let mut input = pool[rng.random_range(0..pool.len())].clone();
        for _ in 0..rng.random_range(1..5) {
            mutation(&mut input, &pool, &mut rng);
        }
        input.truncate(INPUT_BYTES_MAX);
        if attempt(&input, entry, limit) {
            match pool.len() - seeds {
                POOL => {
                    let at = rng.random_range(seeds..pool.len());
                    pool[at] = input;
                }
                _ => pool.push(input),
            }
        }
    }
    assert!(pool.len() > seeds, "no mutation was valid: {target} is not reached");
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

fn attempt(input: &[u8], entry: fn(&[u8]) -> bool, limit: fn(&[u8]) -> usize) -> bool {
    let before = NOW.get();
    PEAK.set(before);
    let Ok(valid) = catch_unwind(AssertUnwindSafe(|| entry(input))) else { panic!("input: {input:?}") };
    let taken = (PEAK.get() - before).cast_unsigned();
    let limit = limit(input) + BASE_BYTES;
    assert!(taken <= limit, "{taken} bytes of memory, {limit} allowed, for {input:?}");
    valid
}

/// Numbers at which lengths and counts go wrong.
const EDGES: [u32; 10] = [0, 1, 2, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

fn mutation(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let end = (at + rng.random_range(0..16)).min(input.len());
    match rng.random_range(0..9) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random(),
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 => {
            let copied = input[at..end].to_vec();
            drop(input.splice(at..at, copied));
        }
        5 => {
            let random: Vec<u8> = (0..rng.random_range(1..8)).map(|_| rng.random()).collect();
            drop(input.splice(at..at, random));
        }
        6 => {
            let edge = EDGES[rng.random_range(0..EDGES.len())].to_be_bytes();
            let edge = &edge[[0, 2, 3][rng.random_range(0..3)]..];
            let end = (at + edge.len()).min(input.len());
            drop(input.splice(at..end, edge.iter().copied()));
        }
        _ => {
            let other = &pool[rng.random_range(0..pool.len())];
            let from = rng.random_range(0..=other.len());
            drop(input.splice(at..end, other[from..].iter().copied()));
        }
    }
}
