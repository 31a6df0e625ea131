//! Coverage-guided run of `endpoint_tests::fuzz::kept_certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| endpoint_tests::fuzz::kept_certificate(bytes));
