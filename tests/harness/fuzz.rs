//! Which functions read hostile bytes, and what must hold for any bytes?
//!
//! The entry points of fuzzing, in one place: `fuzz/` calls them with coverage guidance,
//! `tests/fuzz_plain.rs` over the corpora and bounded random mutations. Each is more than "does not
//! panic": what is accepted must also read back as the same thing.

mod certs;
#[cfg(feature = "http3")]
mod meter;
#[cfg(not(feature = "http3"))]
#[path = "fuzz/meter_off.rs"]
mod meter;

use std::path::PathBuf;

pub use self::certs::{
    bundle_document, kept_certificate, ocsp_answer, order_history, renewal_window, tailscale_pair,
};

use endpoint_cli::control::protocol::{Answer, Request};
use endpoint_core::{
    identity::{Fingerprint, KeyText, PublicKey, spki_fingerprint},
    target::Target,
    tls::hello,
    trust::authorized,
};

/// A fuzz target: its name, which is also its corpus folder, what it does, and words that inputs
/// are made of.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// Name in `fuzz/fuzz_targets/` and `fuzz/corpus/`.
    pub name: &'static str,
    /// Runs one input; panics if a property does not hold.
    pub run: fn(&[u8]),
    /// Pieces that random bytes would hardly ever form.
    pub words: &'static [&'static [u8]],
}

/// All targets.
pub const TARGETS: [FuzzTarget; 13] = [
    FuzzTarget { name: "client_hello", run: client_hello, words: HELLO_WORDS },
    FuzzTarget { name: "spki", run: spki, words: SPKI_WORDS },
    FuzzTarget { name: "fingerprint_text", run: fingerprint_text, words: TEXT_WORDS },
    FuzzTarget { name: "authorized_peers", run: authorized_peers, words: FILE_WORDS },
    FuzzTarget { name: "peer_uri", run: peer_uri, words: URI_WORDS },
    FuzzTarget { name: "control", run: control, words: CONTROL_WORDS },
    FuzzTarget { name: "frame_meter", run: frame_meter, words: FRAME_WORDS },
    FuzzTarget { name: "bundle_document", run: bundle_document, words: certs::PEM_WORDS },
    FuzzTarget { name: "ocsp_answer", run: ocsp_answer, words: certs::DER_WORDS },
    FuzzTarget { name: "kept_certificate", run: kept_certificate, words: certs::RECORD_WORDS },
    FuzzTarget { name: "order_history", run: order_history, words: certs::RECORD_WORDS },
    FuzzTarget { name: "tailscale_pair", run: tailscale_pair, words: certs::PEM_WORDS },
    FuzzTarget { name: "renewal_window", run: renewal_window, words: certs::WINDOW_WORDS },
];

/// The checked-in inputs of a target.
#[must_use]
pub fn corpus(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(target)
}

/// A ClientHello, whole or not.
pub fn client_hello(bytes: &[u8]) {
    let whole = hello::whole_length(bytes);
    let Ok(parsed) = hello::parse(bytes) else { return };
    assert_eq!(whole, Ok(Some(bytes.len())), "a hello that parses is whole and has no more bytes");
    if let Some(name) = &parsed.server_name {
        assert!(!name.is_empty() && name.len() <= 253, "a host name has 1 to 253 bytes");
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "a host name is in lower case");
    }
    for protocol in parsed.protocols.iter().flat_map(hello::Protocols::iter) {
        assert!((1..=255).contains(&protocol.len()), "a protocol name has 1 to 255 bytes");
    }
    for cut in [0, 1, 4, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        if cut < bytes.len() {
            let cut = bytes.get(..cut).unwrap_or_default();
            assert!(hello::parse(cut).is_err(), "half a hello is none");
        }
    }
}

/// A SubjectPublicKeyInfo in DER.
pub fn spki(bytes: &[u8]) {
    let named = spki_fingerprint(bytes);
    if let Ok(fingerprint) = named {
        assert_eq!(fingerprint, Fingerprint::of_spki(bytes), "a name is the digest of all bytes");
    }
    if let Ok(key) = PublicKey::from_spki(bytes) {
        assert_eq!(key.to_spki().as_slice(), bytes, "a key has one encoding");
        assert_eq!(named.ok(), Some(key.fingerprint()), "a key has one name");
    }
}

/// A key as a person pastes it.
pub fn fingerprint_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(key) = KeyText::parse(text) else { return };
    let name = key.fingerprint();
    assert_eq!(
        KeyText::parse(&name.to_string()).map(|key| key.fingerprint()).ok(),
        Some(name),
        "a name that we print is one that we read"
    );
    assert_eq!(name.to_string().parse().ok(), Some(name));
    if let Some(public) = key.public_key() {
        assert_eq!(public.fingerprint(), name, "a key and its text have one name");
        for text in [public.to_pem(), public.to_ssh("x"), format!("ed25519:{}", public.to_hex())] {
            let read = KeyText::parse(&text).map(|key| key.fingerprint()).ok();
            assert_eq!(read, Some(name), "every form that we print names the same key: {text}");
        }
    }
}

/// The whole text of an `authorized_peers` file.
pub fn authorized_peers(bytes: &[u8]) {
    let parsed = authorized::parse(bytes);
    let lines = bytes.split(|b| *b == b'\n').count();
    assert!(parsed.grants.len() + parsed.faults.len() <= lines, "a line is a key or a fault");
    for grant in parsed.grants.iter() {
        let faulty = parsed.faults.iter().any(|fault| fault.line == grant.line());
        assert!(!faulty, "a line with a fault admits nobody");
    }
    for fault in &parsed.faults {
        assert!((1..=lines).contains(&fault.line), "a fault names a line of the file");
        assert!(!fault.message.is_empty());
        assert!(!fault.message.contains(['\u{1b}', '\n', '\r']), "a fault is one harmless line");
    }
    // What admits somebody must do so whatever stands after it.
    let mut longer = bytes.to_vec();
    longer.extend_from_slice(b"\n# more\n");
    assert_eq!(authorized::parse(&longer).grants.len(), parsed.grants.len());
}

/// A peer as given on a command line.
pub fn peer_uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(target) = text.parse::<Target>() else { return };
    let again = target.to_string();
    match again.parse::<Target>() {
        Ok(read) => assert_eq!(read.to_string(), again, "a target that we print reads back"),
        Err(error) => panic!("`{again}`, printed for `{text}`, does not read back: {error}"),
    }
}

/// A line of the control protocol, either way.
pub fn control(bytes: &[u8]) {
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(Request::parse(&request.to_line()), Ok(request), "a request reads back");
    }
    if let Ok(answer) = Answer::parse(bytes) {
        let line = answer.to_line();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "an answer is one line");
        assert!(Answer::parse(&line).is_ok(), "an answer reads back");
    }
}

/// A stream of HTTP/3 or QPACK: its kind, the lengths of two pieces, its bytes.
pub fn frame_meter(bytes: &[u8]) {
    meter::frame_meter(bytes);
}

const HELLO_WORDS: &[&[u8]] = &[
    b"\x01\x00",
    b"\x03\x03",
    b"\x00\x00",
    b"\x00\x10",
    b"\x00\x13\x00\x02\x01\x02",
    b"\x00\x14\x00\x02\x01\x02",
    b"\x00\x2b\x00\x03\x02\x03\x04",
    b"\x02h3",
    b"\x06echo/1",
    b"\x0aacme-tls/1",
    b"localhost",
    b"\xff\xff",
];
const SPKI_WORDS: &[&[u8]] = &[
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
    b"\x05\x00",
    b"\x30\x81",
    b"\x30\x80",
    b"\x30\x82\x00",
];
const TEXT_WORDS: &[&[u8]] = &[
    b"sha256:",
    b"SHA256:",
    b"sha256//",
    b"ed25519:",
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
    b"-----BEGIN PUBLIC KEY-----\n",
    b"-----END PUBLIC KEY-----\n",
    b":",
    b" ",
    b"\xe2\x80\x8b",
    b"\xef\xbb\xbf",
];
const FILE_WORDS: &[&[u8]] = &[
    b"alpn=\"echo/1\" ",
    b"from=\"192.0.2.0/24,::1/128\" ",
    b"expires=\"2030-01-01\" ",
    b"scope=\"lab\" ",
    b"max-connections=2 ",
    b"tenant=x ",
    b"name=\"n\",",
    b"sha256:0000000000000000000000000000000000000000000000000000000000000001",
    b"\n",
    b"\r\n",
    b"#",
    b"\"",
    b"\\\"",
    b"\x1b[2J",
    b"\xff",
];
const URI_WORDS: &[&[u8]] = &[
    b"peer://",
    b"https://",
    b"sha256:",
    b"#sha256:",
    b"@",
    b"[::1]",
    b":4433",
    b":65536",
    b"node.example",
    b"0000000000000000000000000000000000000000000000000000000000000001",
    b"%00",
    b"/",
];
const CONTROL_WORDS: &[&[u8]] = &[
    b"{\"request\":\"status\"}",
    b"\"kick\"",
    b"\"key\":",
    b"\"sha256:0000000000000000000000000000000000000000000000000000000000000001\"",
    b"{\"answer\":\"item\",\"item\":",
    b"{\"answer\":\"done\"}",
    b"{\"answer\":\"error\",\"message\":\"",
    b"\\u0000",
    b"[[[[",
    b"}",
    b"1e999",
];
const FRAME_WORDS: &[&[u8]] = &[
    b"\x01\x04\x00\x00\xd1\xc1",
    b"\x01\x05\x00\x00\xd1\xd1\xc1",
    b"\x01\x0c\x00\x00\x27\x00:method\x01G",
    b"\x00\x01x",
    b"\x00\x00",
    b"\x04\x00",
    b"\x04\x04\x01\x00\x07\x00",
    b"\x07\x01\x00",
    b"\x0d\x01\x04",
    b"\x03\x01\x00",
    b"\x21\x00",
    b"\xc0\x00\x01\x00\x00\x00\x00\x00",
    b"\x80\x01\x00\x00",
    b"\x40\x41",
    b"\xff\xff",
];
