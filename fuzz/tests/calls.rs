//! What the fuzzer kept, and calls at random besides: without a fuzzer, under any sanitizer.
//!
//! `CROSSENT_FUZZ_CALLS` says how many of each target.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::Path;
use std::{env, fs};

type Target = fn(&[u8]) -> arbitrary::Result<()>;

/// Runs a call; where it panics, notes what with, but for the numbers, and with which bytes.
fn attempt(run: Target, bytes: &[u8], failures: &mut BTreeMap<String, (usize, String)>) {
    let Err(panic) = catch_unwind(|| run(bytes)) else { return };
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".into());
    let kind: String = text.split(['[', ':']).next().unwrap_or_default().into();
    failures.entry(kind).or_insert_with(|| (0, format!("{text}\n{bytes:?}"))).0 += 1;
}

fn all(target: &str, run: Target) {
    let mut failures = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    for entry in fs::read_dir(folder).expect("there is a corpus") {
        let bytes = fs::read(entry.expect("it can be listed").path()).expect("it can be read");
        attempt(run, &bytes, &mut failures);
    }
    let calls = env::var("CROSSENT_FUZZ_CALLS").map_or(1000, |n| n.parse().expect("a number"));
    let mut state = 1_u64;
    for _ in 0..calls {
        let bytes: Vec<u8> = (0..160)
            .map(|_| {
                // Marsaglia, "Xorshift RNGs", 2003.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        attempt(run, &bytes, &mut failures);
    }
    for (kind, (times, first)) in &failures {
        eprintln!("{kind}, {times} times; first:\n{first}\n");
    }
    assert!(failures.is_empty(), "{} kinds of failures", failures.len());
}

#[test]
fn classes() {
    all("classes", crossent_fuzz::classes::run);
}

#[test]
fn elements() {
    all("elements", crossent_fuzz::elements::run);
}
