//! Calls of the losses of elements: `make fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crossent_fuzz::elements::run(bytes);
});
