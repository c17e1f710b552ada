#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "each binary runs one of the bodies")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::generation(data));
