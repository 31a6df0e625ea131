use rcgen::{CertificateParams, KeyPair};

use super::*;

const NOW: &str = "2026-11-22T12:00:00Z";

pub(super) fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

pub(super) fn signer() -> Identity {
    Identity::from_seed(&[7; 32])
}

/// A chain and its key of the year 2026, as PEM.
pub(super) fn issued(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub(super) fn signed(serial: u64, names: &[&str]) -> SignedBundle {
    let (chain, key) = issued(names);
    SignedBundle::sign(chain.as_bytes(), key.as_bytes(), serial, &signer(), at(NOW)).unwrap()
}

/// Signs any text at all as the signer would.
fn forced(document: &str) -> Result<SignedBundle, BundleError> {
    let signature = signer().sign(&message(document.as_bytes()));
    let signature = format!("{SIGNATURE}{}\n", data_encoding::HEXLOWER.encode(&signature));
    verify(document.as_bytes(), signature.as_bytes(), NOW)
}

fn verify(document: &[u8], signature: &[u8], now: &str) -> Result<SignedBundle, BundleError> {
    SignedBundle::verify(document, signature, &signer().public_key(), at(now))
}

fn text(bundle: &SignedBundle) -> String {
    String::from_utf8(bundle.document().to_vec()).unwrap()
}

#[test]
fn reads_back_what_it_signs() {
    let made = signed(7, &["B.example", "a.example", "*.a.example"]);
    let read = verify(made.document(), made.signature().as_bytes(), NOW).unwrap();
    assert_eq!(read.serial(), 7);
    assert_eq!(read.names(), ["*.a.example", "a.example", "b.example"]);
    assert_eq!(read.not_after(), at("2027-01-01T00:00:00Z"));
    assert_eq!(read.not_before(), at("2026-01-01T00:00:00Z"));
    assert_eq!(read.digest(), made.digest());
    assert!(read.covers("x.a.example") && !read.covers("c.example"));
    let start = "endpoint-bundle v1\nserial: 7\nnot-after: 2027-01-01T00:00:00Z\n\
                 names: *.a.example a.example b.example\n-----BEGIN CERTIFICATE-----\n";
    assert!(text(&made).starts_with(start), "{}", text(&made));
    assert!(SignedBundle::is_document(made.document()));
}

#[test]
fn is_the_same_bytes_for_the_same_content() {
    let (chain, key) = issued(&["a.example"]);
    let sign = |chain: &str, key: &str| {
        SignedBundle::sign(chain.as_bytes(), key.as_bytes(), 1, &signer(), at(NOW)).unwrap()
    };
    let one = sign(&chain, &key);
    let other = sign(&chain.replace('\n', "\r\n"), &format!("# a note\n{key}"));
    assert_eq!(one.document(), other.document());
    assert_eq!(one.signature(), other.signature());
}

#[test]
fn refuses_a_change_of_any_byte_of_either_file() {
    let made = signed(7, &["a.example"]);
    let (document, signature) = (made.document().to_vec(), made.signature().as_bytes().to_vec());
    for place in 0..document.len() {
        let mut changed = document.clone();
        changed[place] ^= 1;
        let error = verify(&changed, &signature, NOW).unwrap_err();
        assert!(matches!(error, BundleError::WrongSignature { .. }), "byte {place}: {error}");
    }
    for place in 0..signature.len() {
        for bit in [1, 0x20] {
            let mut changed = signature.clone();
            changed[place] ^= bit;
            assert!(verify(&document, &changed, NOW).is_err(), "byte {place} of the signature");
        }
    }
    for cut in [0, 1, document.len() / 2, document.len() - 1] {
        assert!(verify(&document[..cut], &signature, NOW).is_err());
    }
    for cut in 0..signature.len() {
        assert_eq!(
            verify(&document, &signature[..cut], NOW).unwrap_err(),
            BundleError::SignatureForm
        );
    }
    for more in ["\n", " ", "x"] {
        assert!(verify(&[&document, more.as_bytes()].concat(), &signature, NOW).is_err());
        assert!(verify(&document, &[&signature, more.as_bytes()].concat(), NOW).is_err());
    }
}

#[test]
fn refuses_another_signer_and_a_signature_made_for_another_purpose() {
    let made = signed(7, &["a.example"]);
    let other = Identity::from_seed(&[8; 32]);
    let error = SignedBundle::verify(
        made.document(),
        made.signature().as_bytes(),
        &other.public_key(),
        at(NOW),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&other.public_key().to_string()), "{error}");
    // The document alone, without the sentence and the lengths.
    let bare = data_encoding::HEXLOWER.encode(&signer().sign(made.document()));
    let error = verify(made.document(), format!("{SIGNATURE}{bare}\n").as_bytes(), NOW);
    assert!(matches!(error.unwrap_err(), BundleError::WrongSignature { .. }));
}

#[test]
fn refuses_what_is_not_good_now() {
    let made = signed(7, &["a.example"]);
    let verify = |now| verify(made.document(), made.signature().as_bytes(), now).unwrap_err();
    assert!(matches!(verify("2027-01-01T00:00:01Z"), BundleError::Expired { .. }));
    assert!(matches!(verify("2025-12-31T23:59:59Z"), BundleError::NotYet { .. }));
    let (chain, key) = issued(&["a.example"]);
    let late = at("2027-01-02T00:00:00Z");
    let error = SignedBundle::sign(chain.as_bytes(), key.as_bytes(), 1, &signer(), late);
    assert!(matches!(error.unwrap_err(), BundleError::Expired { .. }));
}

#[test]
fn refuses_the_key_of_another_certificate() {
    let (chain, _) = issued(&["a.example"]);
    let (_, key) = issued(&["a.example"]);
    let error = SignedBundle::sign(chain.as_bytes(), key.as_bytes(), 1, &signer(), at(NOW));
    assert_eq!(error.unwrap_err(), BundleError::Mismatch);
    // The signer signs anything: whoever reads looks for himself.
    let (one, two) = (text(&signed(7, &["a.example"])), text(&signed(7, &["a.example"])));
    let key = "-----BEGIN PRIVATE KEY-----";
    let (head, tail) = (one.split_once(key).unwrap().0, two.split_once(key).unwrap().1);
    assert_eq!(forced(&format!("{head}{key}{tail}")).unwrap_err(), BundleError::Mismatch);
}

#[test]
fn refuses_a_signed_document_that_lies_or_is_written_otherwise() {
    use BundleError as E;
    let good = text(&signed(7, &["a.example"]));
    assert!(forced(&good).is_ok());
    let key = good.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let cert = good.find("-----BEGIN CERTIFICATE-----").unwrap();
    let twice = format!("{good}{}", &good[key..]);
    let no_cert = format!("{}{}", &good[..cert], &good[key..]);
    let swapped = format!("{}{}{}", &good[..cert], &good[key..], &good[cert..key]);
    type Case<'a> = (String, fn(&E) -> bool);
    let cases: [Case<'_>; 15] = [
        (good.replace("v1", "v2"), |e| matches!(e, E::Version { .. })),
        (good.replace("serial: 7", "serial: 07"), |e| matches!(e, E::Form { .. })),
        (good.replace("serial: 7", "serial: +7"), |e| matches!(e, E::Form { .. })),
        (good.replace("serial: 7", "serial: -7"), |e| matches!(e, E::Form { .. })),
        (good.replace("serial: 7", "serial: 18446744073709551616"), |e| {
            matches!(e, E::Form { .. })
        }),
        (good.replace("serial: 7\n", ""), |e| matches!(e, E::Form { .. })),
        (good.replace("2027-01-01", "2028-01-01"), |e| matches!(e, E::NotAfter { .. })),
        (good.replace("00:00:00Z", "00:00:00.000Z"), |e| matches!(e, E::Form { .. })),
        (good.replace("names: a.example", "names: b.example"), |e| matches!(e, E::Names { .. })),
        (good.replace('\n', "\r\n"), |e| matches!(e, E::Version { .. } | E::Form { .. })),
        (format!("{good}\n"), |e| matches!(e, E::Form { .. })),
        (twice, |e| matches!(e, E::Form { .. })),
        (swapped, |e| matches!(e, E::Form { .. })),
        (no_cert, |e| matches!(e, E::NoCertificate)),
        (good[..key].to_owned(), |e| matches!(e, E::NoKey)),
    ];
    for (document, expected) in &cases {
        let error = forced(document).unwrap_err();
        assert!(expected(&error), "{error:?} for\n{document}");
    }
}

#[test]
fn refuses_what_is_too_long_before_it_looks_at_it() {
    let long = vec![b'a'; MAX_BYTES + 1];
    assert_eq!(verify(&long, b"", NOW).unwrap_err(), BundleError::TooLong { got: MAX_BYTES + 1 });
    let (chain, key) = issued(&["a.example"]);
    let chain = chain.repeat(2000);
    let error = SignedBundle::sign(chain.as_bytes(), key.as_bytes(), 1, &signer(), at(NOW));
    assert!(matches!(error.unwrap_err(), BundleError::TooLong { .. }));
}

#[test]
fn says_what_is_wrong_with_what_is_to_be_signed() {
    let (chain, key) = issued(&["a.example"]);
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let sign = |chain: &str, key: &str| {
        let made = SignedBundle::sign(chain.as_bytes(), key.as_bytes(), 1, &signer(), at(NOW));
        made.unwrap_err()
    };
    assert_eq!(sign("", &key), BundleError::NoCertificate);
    assert_eq!(sign(&chain, &chain), BundleError::NoKey);
    assert_eq!(sign(&chain, sec1), BundleError::KeyForm);
    assert!(matches!(sign(&chain[..chain.len() / 2], &key), BundleError::Chain(_)));
    let (address, key) = issued(&["127.0.0.1"]);
    assert_eq!(sign(&address, &key), BundleError::NoNames);
}

#[test]
fn shows_no_key() {
    let made = signed(7, &["a.example"]);
    let shown = format!("{made:?} {made:#?}");
    assert!(!shown.contains("PRIVATE") && shown.contains("a.example"), "{shown}");
    assert!(shown.len() < 300, "{shown}");
}
