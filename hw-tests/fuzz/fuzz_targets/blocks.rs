#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (gattway_fuzz::target("blocks").run)(input));
