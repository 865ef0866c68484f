#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| halton_meter::meter::fuzzing::connect(data));
