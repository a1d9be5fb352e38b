#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onair::fuzz::recorder(data));
