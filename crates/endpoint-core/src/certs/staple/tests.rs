//! The responder is that of OpenSSL, which answers from the `index.txt` of a CA.

use std::{fs, path::Path, process::Command, sync::Arc};

use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SerialNumber,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::Clock;

/// A CA whose certificates and answers are made in a folder.
struct Ca {
    folder: tempfile::TempDir,
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn later(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![format!("{name}.example")]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params
}

/// The access description of an OCSP responder (RFC 5280 §4.2.2.1) in DER.
fn access(url: &str) -> CustomExtension {
    let wrap = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()], body].concat();
    let oid = wrap(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let entry = wrap(0x30, &[oid, wrap(0x86, url.as_bytes())].concat());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], wrap(0x30, &entry))
}

impl Ca {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        fs::write(folder.path().join("ca.key"), key.serialize_pem()).unwrap();
        fs::write(folder.path().join("index.txt"), "").unwrap();
        Self { folder, params: params.clone(), issuer: Issuer::new(params, key) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path().join("ca.pem")).unwrap()
    }

    /// A leaf with that serial number, and its state for the responder: `V`, or `R` and since when.
    fn issue(&self, serial: u8, url: Option<&str>, state: &str) -> CertifiedKey {
        let mut params = named("leaf");
        params.serial_number = Some(SerialNumber::from(vec![serial, 1]));
        params.custom_extensions = url.map(access).into_iter().collect();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let line = format!("{state}\t{serial:02X}01\tunknown\t/CN=leaf{serial}\n");
        let index = self.path().join("index.txt");
        let lines = fs::read_to_string(&index).unwrap() + &line;
        fs::write(index, lines).unwrap();
        let chain = vec![leaf.der().clone(), self.certificate()];
        CertifiedKey::from_der(chain, key.serialize_der().try_into().unwrap(), &default_provider())
            .unwrap()
    }

    /// Makes `NAME.pem` and `NAME.key`, a certificate for signing answers, or without that purpose.
    fn delegate(&self, name: &str, purposes: Vec<ExtendedKeyUsagePurpose>, end: i32) {
        let mut params = named(name);
        params.extended_key_usages = purposes;
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path().join(format!("{name}.pem")), made.pem()).unwrap();
        fs::write(self.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// What OpenSSL answers to that request, signed by `signer` (in the folder).
    fn answer(&self, request: &[u8], signer: &str, more: &[&str]) -> Vec<u8> {
        let answer = self.path().join("answer.der");
        let _ = fs::remove_file(&answer);
        fs::write(self.path().join("request.der"), request).unwrap();
        let (cert, key) = (format!("{signer}.pem"), format!("{signer}.key"));
        let output = Command::new("openssl")
            .args(["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", &cert])
            .args(["-rkey", &key, "-reqin", "request.der", "-respout", "answer.der"])
            .args(more)
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = output.stderr.escape_ascii();
        fs::read(&answer).unwrap_or_else(|_| panic!("openssl ocsp: {text}"))
    }
}

const GOOD: &str = "V\t991231235959Z\t";
const REVOKED: &str = "R\t991231235959Z\t260102030405Z,keyCompromise";
const URL: Option<&str> = Some("http://ocsp.example/");
const HOUR: &[&str] = &["-nmin", "60"];

fn question(certified: &CertifiedKey) -> Question {
    Question::about(certified).unwrap().unwrap()
}

fn verified(question: &Question, answer: &[u8], now: Timestamp) -> Result<Staple, StapleError> {
    question.verify(answer, &default_provider(), now)
}

#[test]
fn takes_the_answer_of_the_issuer_and_of_its_delegate() {
    let ca = Ca::new("ca");
    let leaf = ca.issue(5, URL, GOOD);
    ca.issue(6, URL, GOOD);
    ca.delegate("delegate", vec![ExtendedKeyUsagePurpose::OcspSigning], 2099);
    let question = question(&leaf);
    assert_eq!(question.responder, "http://ocsp.example/");
    for signer in ["ca", "delegate"] {
        let answer = ca.answer(&question.request().unwrap(), signer, HOUR);
        let staple = verified(&question, &answer, now()).unwrap();
        assert_eq!(staple.response, answer);
        let life = staple.until.duration_since(staple.refresh).as_secs();
        assert_eq!(life, 1800, "{signer}");
        assert!(staple.until > later(3500) && staple.until <= later(3600));
        assert_eq!(staple.on(&leaf).ocsp, Some(answer));
    }
}

#[test]
fn refuses_answers_that_others_signed() {
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let leaf = ca.issue(5, URL, GOOD);
    let question = question(&leaf);
    let request = question.request().unwrap();
    let any = ExtendedKeyUsagePurpose::OcspSigning;
    ca.delegate("server", vec![ExtendedKeyUsagePurpose::ServerAuth], 2099);
    ca.delegate("nothing", vec![], 2099);
    ca.delegate("ended", vec![any.clone()], 2025);
    other.delegate("foreign", vec![any], 2099);
    for file in ["foreign.pem", "foreign.key"] {
        fs::copy(other.path().join(file), ca.path().join(file)).unwrap();
    }
    fs::copy(other.path().join("ca.pem"), ca.path().join("other.pem")).unwrap();
    fs::copy(other.path().join("ca.key"), ca.path().join("other.key")).unwrap();
    for signer in ["server", "nothing", "ended", "foreign", "other"] {
        let answer = ca.answer(&request, signer, HOUR);
        let error = verified(&question, &answer, now()).unwrap_err();
        assert_eq!(error, StapleError::Signature, "{signer}");
    }
    // Its certificate left out: nobody can say whose signature it is.
    ca.delegate("delegate", vec![ExtendedKeyUsagePurpose::OcspSigning], 2099);
    let answer = ca.answer(&request, "delegate", &[HOUR, &["-resp_no_certs"]].concat());
    assert_eq!(verified(&question, &answer, now()).unwrap_err(), StapleError::Signature);
}

#[test]
fn refuses_a_change_of_any_byte() {
    let ca = Ca::new("ca");
    let question = question(&ca.issue(5, URL, GOOD));
    let answer = ca.answer(&question.request().unwrap(), "ca", HOUR);
    let now = now();
    let good = verified(&question, &answer, now).unwrap();
    let no_certs =
        ca.answer(&question.request().unwrap(), "ca", &[HOUR, &["-resp_no_certs"]].concat());
    for place in 0..no_certs.len() {
        let mut changed = no_certs.clone();
        changed[place] ^= 1;
        let result = verified(&question, &changed, now);
        assert!(result.is_err(), "byte {place} of {}", no_certs.len());
    }
    for cut in 0..answer.len() {
        assert!(verified(&question, &answer[..cut], now).is_err());
    }
    assert!(verified(&question, &[&answer[..], b"x"].concat(), now).is_err());
    assert_eq!(verified(&question, &answer, now).unwrap(), good);
}

#[test]
fn refuses_an_answer_about_another_certificate() {
    let ca = Ca::new("ca");
    let (leaf, other) = (ca.issue(5, URL, GOOD), ca.issue(6, URL, GOOD));
    let answer = ca.answer(&question(&other).request().unwrap(), "ca", HOUR);
    let error = verified(&question(&leaf), &answer, now()).unwrap_err();
    assert_eq!(error, StapleError::OtherCertificate);
    // The same serial number under a CA of the same name: another key, so another certificate.
    let twin = Ca::new("ca");
    let leaf = twin.issue(6, URL, GOOD);
    let error = verified(&question(&leaf), &answer, now()).unwrap_err();
    assert_eq!(error, StapleError::Signature);
}

#[test]
fn takes_an_answer_only_in_its_time() {
    let ca = Ca::new("ca");
    let question = question(&ca.issue(5, URL, GOOD));
    let request = question.request().unwrap();
    let answer = ca.answer(&request, "ca", HOUR);
    let at = |seconds| verified(&question, &answer, later(seconds));
    assert!(at(0).is_ok() && at(3500).is_ok() && at(-200).is_ok());
    assert!(matches!(at(3601).unwrap_err(), StapleError::Stale { .. }));
    assert!(matches!(at(-400).unwrap_err(), StapleError::NotYet { .. }));
    let endless = ca.answer(&request, "ca", &[]);
    assert_eq!(verified(&question, &endless, now()).unwrap_err(), StapleError::NoEnd);
}

#[test]
fn tells_a_revoked_one_from_an_unknown_one_and_from_no_answer() {
    let ca = Ca::new("ca");
    let revoked = question(&ca.issue(5, URL, REVOKED));
    let answer = ca.answer(&revoked.request().unwrap(), "ca", HOUR);
    let error = verified(&revoked, &answer, now()).unwrap_err();
    assert!(error.is_revoked());
    assert!(error.to_string().contains("2026-01-02T03:04:05Z"), "{error}");

    let unknown = question(&ca.issue(7, URL, GOOD));
    fs::write(ca.path().join("index.txt"), "").unwrap();
    let answer = ca.answer(&unknown.request().unwrap(), "ca", HOUR);
    assert_eq!(verified(&unknown, &answer, now()).unwrap_err(), StapleError::Unknown);
    for status in [1, 2, 3, 5, 6] {
        let error = verified(&unknown, &[0x30, 3, 0x0a, 1, status], now()).unwrap_err();
        assert!(matches!(error, StapleError::NoAnswer(_)), "{error}");
    }
    for bytes in [&[0x30, 3, 0x0a, 1, 0][..], &[0x30, 3, 0x0a, 1, 9], &[], b"<html>"] {
        let error = verified(&unknown, bytes, now()).unwrap_err();
        assert!(matches!(error, StapleError::Garbled(_)), "{error}");
    }
}

#[test]
fn asks_nobody_where_the_leaf_names_no_responder_it_can_ask() {
    let ca = Ca::new("ca");
    for url in [None, Some("https://ocsp.example/"), Some("ldap://ocsp.example/")] {
        let leaf = ca.issue(5, url, GOOD);
        assert!(Question::about(&leaf).unwrap().is_none(), "{url:?}");
    }
    let mut leaf = ca.issue(5, URL, GOOD);
    leaf.cert.truncate(1);
    assert_eq!(Question::about(&leaf).err(), Some(StapleError::NoIssuer));
    leaf.cert.push(Ca::new("other").certificate());
    assert_eq!(Question::about(&leaf).err(), Some(StapleError::NoIssuer));
    assert_eq!(ca.params.is_ca, IsCa::Ca(BasicConstraints::Unconstrained));
}

#[path = "keep_tests.rs"]
mod keep;
