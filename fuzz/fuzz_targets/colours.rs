#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ooblex::fuzz::colours(data));
