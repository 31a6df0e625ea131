//! Do the parsers of hostile bytes hold for the corpora and for random mutations of them?
//!
//! The same entry points as `fuzz/`, run on stable with a bounded count: 2,000 inputs a target, with
//! `ENDPOINT_TEST_LONG=1` at least 200,000. `ENDPOINT_TEST_SEED=N` repeats a run.

use std::{
    fmt::Write as _,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use endpoint_cli::control::protocol::{Answer, Request};
use endpoint_core::{
    CertProbe,
    endpoint::AcmeProbe,
    identity::{KeyText, spki_fingerprint},
    target::Target,
    tls::hello,
    trust::authorized,
};
use endpoint_tests::fuzz::{FuzzTarget, TARGETS, corpus};
use jiff::Timestamp;

const REDUCED: usize = 2_000;
const LONG: usize = 200_000;
const MAX_INPUT_BYTES: usize = 8 * 1024;
const DEFAULT_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Numbers that differ from seed to seed and nothing more (Marsaglia's xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from.get(self.below(from.len())).copied().unwrap_or_default()
    }
}

/// Changes `input` in one to four places.
fn mutate(input: &mut Vec<u8>, random: &mut Random, words: &[&[u8]], others: &[Vec<u8>]) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(9) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => input.insert(at, random.next() as u8),
            4 if at < input.len() => {
                let end = (at + 1 + random.below(8)).min(input.len());
                input.drain(at..end);
            }
            5 => input.truncate(at),
            6 => {
                let word = random.pick(words).to_vec();
                input.splice(at..at, word);
            }
            7 => {
                let end = (at + random.below(64)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            8 => {
                if let Some(other) = others.get(random.below(others.len())) {
                    let from = random.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
            _ => {}
        }
    }
    input.truncate(MAX_INPUT_BYTES);
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let folder = corpus(target.name);
    let mut files: Vec<_> = fs::read_dir(&folder).expect("a corpus").flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let input = fs::read(file.path()).expect("an input");
        one(target, &input, &format!("{}", file.path().display()));
        seeds.push(input);
    }
    assert!(seeds.len() >= 4, "the corpus of {name} has {} inputs", seeds.len());

    let seed = std::env::var("ENDPOINT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.filter(|seed| *seed != 0).unwrap_or(DEFAULT_SEED);
    let count = endpoint_tests::count(REDUCED, LONG);
    let mut random = Random(seed);
    for round in 0..count {
        let mut input = seeds[random.below(seeds.len())].clone();
        mutate(&mut input, &mut random, target.words, &seeds);
        one(target, &input, &format!("round {round} of ENDPOINT_TEST_SEED={seed}"));
    }
    println!(
        "acceptance: fuzz {name}: {} corpus inputs, {count} mutations, 0 failures",
        seeds.len()
    );
}

/// Runs one input; a failure names where it came from and the input itself.
fn one(target: &FuzzTarget, input: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let hex = input.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        panic!("{} failed on {origin}: {hex}", target.name);
    }
}

#[test]
fn client_hello_holds() {
    run("client_hello");
}

#[test]
fn spki_holds() {
    run("spki");
}

#[test]
fn fingerprint_text_holds() {
    run("fingerprint_text");
}

#[test]
fn authorized_peers_holds() {
    run("authorized_peers");
}

#[test]
fn peer_uri_holds() {
    run("peer_uri");
}

#[test]
fn control_holds() {
    run("control");
}

#[test]
fn frame_meter_holds() {
    run("frame_meter");
}

#[test]
fn bundle_document_holds() {
    run("bundle_document");
}

#[test]
fn ocsp_answer_holds() {
    run("ocsp_answer");
}

#[test]
fn kept_certificate_holds() {
    run("kept_certificate");
}

#[test]
fn order_history_holds() {
    run("order_history");
}

#[test]
fn tailscale_pair_holds() {
    run("tailscale_pair");
}

#[test]
fn renewal_window_holds() {
    run("renewal_window");
}

/// Without this a parser that refuses everything would pass all of the above.
#[test]
fn the_good_inputs_of_the_corpora_are_accepted() {
    let read = |target: &str, name: &str| fs::read(corpus(target).join(name)).expect("an input");
    let text = |target: &str, name: &str| String::from_utf8(read(target, name)).expect("UTF-8");
    for name in ["openssl-h2", "gnutls-raw-keys-echo", "quic-peer-raw-both-post-quantum"] {
        assert!(hello::parse(&read("client_hello", name)).is_ok(), "{name}");
    }
    assert!(spki_fingerprint(&read("spki", "ed25519")).is_ok());
    for name in ["sha256", "bare-hex", "colons", "curl", "ed25519", "pem", "ssh-line"] {
        assert!(KeyText::parse(&text("fingerprint_text", name)).is_ok(), "{name}");
    }
    for name in ["one-key", "every-option", "every-key-form", "crlf", "no-newline-at-end"] {
        let parsed = authorized::parse(&read("authorized_peers", name));
        assert!(!parsed.grants.is_empty() && parsed.faults.is_empty(), "{name}: {parsed:?}");
    }
    for name in ["peer", "peer-v6", "sha256", "https", "name-and-pin", "host-port", "name"] {
        assert!(text("peer_uri", name).parse::<Target>().is_ok(), "{name}");
    }
    for name in ["status", "connections", "reload", "kick"] {
        assert!(Request::parse(&read("control", name)).is_ok(), "{name}");
    }
    let then: Timestamp = "2026-11-26T12:00:00Z".parse().expect("a time");
    for name in ["one", "chain"] {
        assert!(CertProbe::bundle(&read("bundle_document", name)).is_some(), "{name}");
        let pair = read("tailscale_pair", name);
        assert!(CertProbe::pair(&pair, "node.tail1.ts.net", then).is_some(), "{name}");
        assert!(CertProbe::kept(&read("kept_certificate", name)).is_some(), "{name}");
    }
    if cfg!(feature = "http3") {
        for name in ["good", "by-a-delegate"] {
            assert!(CertProbe::ocsp(&read("ocsp_answer", name), then).is_some(), "{name}");
        }
    }
    if cfg!(feature = "acme") {
        for name in ["whole", "empty"] {
            assert!(AcmeProbe::history(&read("order_history", name)).is_some(), "{name}");
        }
        assert!(AcmeProbe::window(&read("renewal_window", "whole")).is_some());
    }
    for name in ["item", "done", "error"] {
        assert!(Answer::parse(&read("control", name)).is_ok(), "{name}");
    }
}

#[test]
fn every_target_has_a_plain_test_and_a_guided_one() {
    let folder = corpus("..").join("fuzz_targets");
    let mut guided: Vec<String> = fs::read_dir(folder)
        .expect("fuzz targets")
        .flatten()
        .filter_map(|file| file.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    guided.sort();
    let mut known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    known.sort_unstable();
    assert_eq!(guided, known);
}
