//! Shared certificates: what is signed is taken, what was touched is not, and nothing is lost on the way.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use endpoint_core::Clock;
use endpoint_tests::machine::{Machine, Said};
use rcgen::{CertificateParams, KeyPair};

use crate::{chmod, machine};

/// A signer with a certificate of his own, good today.
struct Signer {
    machine: Machine,
    public: String,
}

impl Signer {
    fn new() -> Self {
        let machine = machine();
        let shown = machine.run(&["key", "new", "--json"]);
        let public = shown.objects()[0]["ed25519"].as_str().unwrap().to_owned();
        let signer = Self { machine, public };
        signer.issue("a.example");
        signer
    }

    fn issue(&self, name: &str) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = Clock::system().now().as_second();
        let year = 1970 + i32::try_from(now / 31_557_600).unwrap();
        params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
        params.not_after = rcgen::date_time_ymd(year + 2, 1, 1);
        let key = KeyPair::generate().unwrap();
        fs::write(self.file("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(self.file("key.pem"), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.machine.file(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    fn sign(&self, more: &[&str]) -> Said {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let (signer, out) = (self.path("identity.key"), self.path("site.bundle"));
        let words = ["bundle", "sign", "--cert", &cert, "--key", &key, "--signer", &signer];
        self.machine.run(&[&words[..], &["--out", &out], more].concat())
    }

    fn verify(&self, more: &[&str]) -> Said {
        let bundle = self.path("site.bundle");
        let words = ["bundle", "verify", &bundle, "--signer", &self.public];
        self.machine.run(&[&words[..], more].concat())
    }
}

#[track_caller]
fn refused(said: &Said, code: i32, says: &str) {
    assert_eq!(said.code(), code, "{said:?}");
    assert!(said.err.contains("error: ") && said.err.contains("hint: "), "{said:?}");
    assert!(said.err.contains(says), "{says}: {said:?}");
    assert!(!said.err.contains("PRIVATE KEY") && !said.err.contains("os error"), "{said:?}");
}

#[test]
fn what_is_signed_is_good_and_its_numbers_rise() {
    let signer = Signer::new();
    let said = signer.sign(&["--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
    let signed = said.objects()[0].clone();
    assert_eq!(signed["names"], serde_json::json!(["a.example"]));
    assert_eq!(signed["signer"], signer.public.as_str());
    let first = signed["serial"].as_u64().unwrap();
    assert!(first > 1_700_000_000);
    let mode = |name: &str| signer.file(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("site.bundle"), mode("site.bundle.sig")), (0o600, 0o644));

    let good = signer.verify(&["--json"]);
    assert_eq!(good.code(), 0, "{good:?}");
    assert_eq!(good.objects()[0]["serial"], first);
    assert!(good.objects()[0]["not_after"].as_str().unwrap().ends_with("-01-01T00:00:00Z"));
    let text = signer.verify(&[]);
    assert!(text.out.contains("names       a.example\n"), "{text:?}");
    assert!(!text.out.contains("PRIVATE"), "{text:?}");

    let again = signer.sign(&["--json"]);
    assert!(again.objects()[0]["serial"].as_u64().unwrap() > first);
    let higher = (first + 1000).to_string();
    assert_eq!(signer.sign(&["--serial", &higher]).code(), 0);
    refused(&signer.sign(&["--serial", &higher]), 2, "is not higher than");
    let one_more = signer.sign(&["--json"]);
    assert_eq!(one_more.objects()[0]["serial"], first + 1001);
    assert_eq!(signer.verify(&["--min-serial", &higher]).code(), 0);
    let much = (first + 2000).to_string();
    refused(&signer.verify(&["--min-serial", &much]), 1, "lower than");
}

#[test]
fn what_was_touched_or_comes_from_another_is_refused() {
    let signer = Signer::new();
    assert_eq!(signer.sign(&[]).code(), 0);
    let bundle = signer.file("site.bundle");
    let good = fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&bundle, &bad).unwrap();
    refused(&signer.verify(&[]), 1, "the signature does not hold under ed25519:");
    fs::write(&bundle, vec![b'a'; 1024 * 1024 + 1]).unwrap();
    refused(&signer.verify(&[]), 1, "more than 1048576 bytes");
    fs::write(&bundle, &good).unwrap();
    let other = Signer::new();
    let path = signer.path("site.bundle");
    let words = ["bundle", "verify", &path, "--signer", &other.public];
    refused(&signer.machine.run(&words), 1, "the signature does not hold");
    fs::write(signer.file("site.bundle.sig"), "x").unwrap();
    refused(&signer.verify(&[]), 1, "the signature is none of");
    fs::remove_file(signer.file("site.bundle.sig")).unwrap();
    refused(&signer.verify(&[]), 1, "there is no such file");
    let print = format!("sha256:{}", "0".repeat(64));
    let words = ["bundle", "verify", &path, "--signer", &print];
    refused(&signer.machine.run(&words), 2, "found only a fingerprint");
}

#[test]
fn nothing_is_signed_that_would_be_refused_and_nothing_else_is_overwritten() {
    let signer = Signer::new();
    let out = signer.file("site.bundle");
    fs::write(&out, "mine\n").unwrap();
    refused(&signer.sign(&[]), 2, "is no bundle");
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine\n");
    fs::remove_file(&out).unwrap();

    let key = fs::read(signer.file("key.pem")).unwrap();
    signer.issue("b.example");
    fs::write(signer.file("key.pem"), key).unwrap();
    refused(&signer.sign(&[]), 1, "does not belong to the first certificate");
    signer.issue("b.example");
    chmod(&signer.file("identity.key"), 0o644);
    refused(&signer.sign(&[]), 2, "has mode 0644");
    chmod(&signer.file("identity.key"), 0o600);
    fs::remove_file(signer.file("identity.key")).unwrap();
    refused(&signer.sign(&[]), 1, "there is no signer's key");
    assert!(!out.exists());
}
