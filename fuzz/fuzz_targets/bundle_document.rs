//! Coverage-guided run of `endpoint_tests::fuzz::bundle_document`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| endpoint_tests::fuzz::bundle_document(bytes));
