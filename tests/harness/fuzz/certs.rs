//! Bundles, OCSP answers, records of the store, what tailscaled gives, and windows of renewal.

use endpoint_core::{CertProbe, endpoint::AcmeProbe};
use jiff::Timestamp;

/// The name in the corpus of pairs.
const NAME: &str = "node.tail1.ts.net";

/// When the corpora were made, and their OCSP answers were good.
fn then() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().expect("a time")
}

/// A bundle's document behind its signature.
pub fn bundle_document(bytes: &[u8]) {
    if let Some(again) = CertProbe::bundle(bytes) {
        assert_eq!(again.as_slice(), bytes, "a bundle is written in one way");
    }
}

/// An OCSP answer behind its signature.
pub fn ocsp_answer(bytes: &[u8]) {
    if let Some((until, refresh)) = CertProbe::ocsp(bytes, then()) {
        assert!(then() < until, "an answer that is over is none");
        assert!(refresh < until, "it is asked for again before its end");
    }
}

/// What the store keeps of a certificate, behind its seal.
pub fn kept_certificate(bytes: &[u8]) {
    if let Some(again) = CertProbe::kept(bytes) {
        assert_eq!(CertProbe::kept(&again), Some(again.clone()), "what is written reads back");
    }
}

/// What the store keeps of the orders for a name, behind its seal.
pub fn order_history(bytes: &[u8]) {
    if let Some(again) = AcmeProbe::history(bytes) {
        assert_eq!(AcmeProbe::history(&again), Some(again.clone()), "what is written reads back");
    }
}

/// A key with its chain, as tailscaled gives it.
pub fn tailscale_pair(bytes: &[u8]) {
    if let Some((from, until)) = CertProbe::pair(bytes, NAME, then()) {
        assert!(from <= then() && then() <= until, "a pair that is taken is in date");
        assert!(
            CertProbe::pair(bytes, "other.ts.net", then()).is_none(),
            "it is for its name alone"
        );
    }
}

/// An authority's answer about renewal.
pub fn renewal_window(bytes: &[u8]) {
    if let Some((start, end)) = AcmeProbe::window(bytes) {
        assert!(start < end, "a window has a beginning and a later end");
    }
}

pub(super) const PEM_WORDS: &[&[u8]] = &[
    b"endpoint-bundle v1\n",
    b"serial: 1\n",
    b"serial: 18446744073709551615\n",
    b"not-after: 2099-01-01T00:00:00Z\n",
    b"names: a.example\n",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"-----BEGIN PRIVATE KEY-----\n",
    b"-----END PRIVATE KEY-----\n",
    b"-----BEGIN EC PRIVATE KEY-----\n",
    b"--\n--",
    b"\r\n",
    b"=",
];
pub(super) const DER_WORDS: &[&[u8]] = &[
    b"\x30\x80",
    b"\x30\x82\xff\xff",
    b"\x0a\x01\x00",
    b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01",
    b"\x18\x0f20261126120000Z",
    b"\x18\x0f99991231235959Z",
    b"\xa0\x11",
    b"\x80\x00",
    b"\xa1\x11\x18\x0f20260102030405Z",
    b"\x82\x00",
    b"\x03\x01\x00",
];
pub(super) const RECORD_WORDS: &[&[u8]] = &[
    b"crt1",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"{\"names\":[\"a.example\"],\"source\":\"acme\",\"issued\":0}",
    b"\"issued\":-9223372036854775808",
    b"\"issuer\":null",
    b"\"failed\":[1764158400000]",
    b"\"directories\":{\"https://ca.example/dir\":{}}",
    b"\"suggested\":{\"leaf\":\"\",\"window\":null,\"ask_at\":0}",
    b"1e999",
    b"[[[[",
];
pub(super) const WINDOW_WORDS: &[&[u8]] = &[
    b"{\"suggestedWindow\":",
    b"\"start\":\"2026-11-26T12:00:00Z\"",
    b"\"end\":\"2026-11-27T12:00:00Z\"",
    b"9999-12-31T23:59:59Z",
    b"-009999-01-01T00:00:00Z",
    b"+25:00",
    b"null",
];
