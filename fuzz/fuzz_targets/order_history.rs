//! Coverage-guided run of `endpoint_tests::fuzz::order_history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| endpoint_tests::fuzz::order_history(bytes));
