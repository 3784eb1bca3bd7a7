//! Calls of the softmax family: `make fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crossent_fuzz::classes::run(bytes);
});
