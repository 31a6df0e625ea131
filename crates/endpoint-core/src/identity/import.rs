//! Which private key does this file hold? PKCS#8 in PEM or DER.
//!
//! Always true: the key pair is derived from the 32-byte seed alone; a public half in the file is
//! compared and never used (a pair from two sources leaks the seed, RUSTSEC-2022-0093). Buffers are
//! wiped, errors never hold bytes of the file.

use zeroize::Zeroizing;

use super::{
    Identity,
    der::{self, Der},
    pem::{self, PemError},
};

/// Reads PKCS#8 version 1 (RFC 8410 §7) or 2 (RFC 5958), as PEM or DER.
pub(super) fn identity(bytes: &[u8]) -> Result<Identity, ImportKeyError> {
    if bytes.trim_ascii().is_empty() {
        return Err(ImportKeyError::Empty);
    }
    if bytes.first() == Some(&der::SEQUENCE) {
        return from_der(bytes);
    }
    let text = str::from_utf8(bytes).map_err(|_| ImportKeyError::Damaged)?;
    let block = pem::parse(text).map_err(|_| {
        if pem::BEGIN.starts_with(text.trim_ascii()) {
            ImportKeyError::HalfWritten
        } else {
            ImportKeyError::Damaged
        }
    })?;
    let known = match block.label {
        "PRIVATE KEY" => None,
        "ENCRYPTED PRIVATE KEY" => Some(ImportKeyError::Encrypted),
        "OPENSSH PRIVATE KEY" => Some(ImportKeyError::OpenSsh),
        "RSA PRIVATE KEY" => Some(ImportKeyError::KeyType { name: "RSA" }),
        "EC PRIVATE KEY" | "EC PARAMETERS" => Some(ImportKeyError::KeyType { name: "ECDSA" }),
        "DSA PRIVATE KEY" => Some(ImportKeyError::KeyType { name: "DSA" }),
        "PUBLIC KEY" => Some(ImportKeyError::NotPrivate { what: "public key" }),
        "CERTIFICATE" => Some(ImportKeyError::NotPrivate { what: "certificate" }),
        _ => Some(ImportKeyError::Damaged),
    };
    if let Some(refused) = known {
        return Err(refused);
    }
    let der = block.der.map_err(|why| match why {
        PemError::Cut => ImportKeyError::HalfWritten,
        PemError::TextAfter => ImportKeyError::TextAfter,
        PemError::Damaged | PemError::NotPem => ImportKeyError::Damaged,
    })?;
    from_der(&der)
}

fn from_der(bytes: &[u8]) -> Result<Identity, ImportKeyError> {
    if let Some(name) = der::key_type(bytes).filter(|name| *name != "Ed25519") {
        return Err(ImportKeyError::KeyType { name });
    }
    let (seed, public) = pkcs8(bytes).ok_or(ImportKeyError::Damaged)?;
    let identity = Identity::from_seed(seed);
    if public.is_some_and(|public| public != identity.public_key().as_bytes()) {
        return Err(ImportKeyError::PublicHalfDiffers);
    }
    Ok(identity)
}

/// The seed and, in version 2, the public half of an Ed25519 `OneAsymmetricKey`.
fn pkcs8(bytes: &[u8]) -> Option<(&[u8; 32], Option<&[u8]>)> {
    let mut outer = Der(bytes);
    let mut inside = Der(outer.take(der::SEQUENCE)?);
    let version = inside.take(der::INTEGER)?;
    let mut algorithm = Der(inside.take(der::SEQUENCE)?);
    let oid = algorithm.take(der::OBJECT_IDENTIFIER)?;
    let mut key = Der(inside.take(der::OCTET_STRING)?);
    let seed = key.take(der::OCTET_STRING)?.try_into().ok()?;
    let _attributes = inside.take(ATTRIBUTES);
    let public = match version {
        [0] => None,
        // `[1] IMPLICIT BIT STRING`, or explicit as early writers have it.
        [1] if inside.is_empty() => None,
        [1] => Some(match inside.take(PUBLIC_KEY) {
            Some(bits) => bits.strip_prefix(&[0])?,
            None => {
                let mut explicit = Der(inside.take(PUBLIC_KEY_EXPLICIT)?);
                let bits = explicit.take(BIT_STRING)?;
                explicit.is_empty().then_some(bits)?.strip_prefix(&[0])?
            }
        }),
        _ => return None,
    };
    let whole = outer.is_empty() && inside.is_empty() && algorithm.is_empty() && key.is_empty();
    (whole && oid == der::OID_ED25519).then_some((seed, public))
}

/// PKCS#8 version 1 in PEM (RFC 8410 §7, RFC 7468 §10), which OpenSSL 3.0 reads. It refuses version 2.
pub(super) fn to_pem(seed: &[u8; 32]) -> Zeroizing<String> {
    let mut der = Zeroizing::new([0; 48]);
    let (prefix, key) = der.split_at_mut(PKCS8_PREFIX.len());
    prefix.copy_from_slice(&PKCS8_PREFIX);
    key.copy_from_slice(seed);
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(160));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    data_encoding::BASE64.encode_append(der.as_slice(), &mut text);
    text.push_str("\n-----END PRIVATE KEY-----\n");
    text
}

/// Why a file holds no private key that this endpoint can use.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportKeyError {
    /// The bytes are no private key.
    #[error("not a PKCS#8 private key in PEM or DER, or damaged")]
    Damaged,
    /// There is nothing.
    #[error("the key file is empty")]
    Empty,
    /// The key is locked by a passphrase.
    #[error("the key is encrypted; `openssl pkey -in FILE -out NEW` writes it in the clear")]
    Encrypted,
    /// The end is missing.
    #[error("the key file ends too early: it was written only in part")]
    HalfWritten,
    /// The key is of another kind.
    #[error("{name} key: only Ed25519")]
    KeyType {
        /// The kind's name.
        name: &'static str,
    },
    /// The file is of another sort.
    #[error("this is a {what}, not a private key")]
    NotPrivate {
        /// What it is.
        what: &'static str,
    },
    /// The file is in OpenSSH's own format.
    #[error(
        "this is an OpenSSH private key; only PKCS#8 is read: `endpoint key new` makes a key of \
         its own, and keys should not serve two protocols"
    )]
    OpenSsh,
    /// The public half does not belong to the private one.
    #[error("the public half in the file is not that of the private key: do not use this file")]
    PublicHalfDiffers,
    /// Something follows the key.
    #[error("other text follows the key; the file must hold one key and nothing else")]
    TextAfter,
}

/// `PrivateKeyInfo` of version 0 (that is, 1) for Ed25519 up to the seed (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const BIT_STRING: u8 = 0x03;
const ATTRIBUTES: u8 = 0xa0;
const PUBLIC_KEY: u8 = 0x81;
const PUBLIC_KEY_EXPLICIT: u8 = 0xa1;

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::prelude::*;

    use super::{super::spki::tests::FINGERPRINT, *};

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
        -----END PRIVATE KEY-----\n";

    fn seed() -> [u8; 32] {
        std::array::from_fn(|i| u8::try_from(i).unwrap())
    }

    fn version_2(explicit: bool, public: &[u8]) -> Vec<u8> {
        let tail: &[u8] = if explicit { &[0xa1, 0x23, 0x03, 0x21, 0] } else { &[0x81, 0x21, 0] };
        let mut der = PKCS8_PREFIX.to_vec();
        der[1] = u8::try_from(0x2e + tail.len() + public.len()).unwrap();
        der[4] = 1;
        [der.as_slice(), &seed(), tail, public].concat()
    }

    #[test]
    fn writes_what_openssl_writes() {
        assert_eq!(to_pem(&seed()).as_str(), PEM);
    }

    #[test]
    fn reads_version_1_and_2_in_pem_and_der() {
        let public = *Identity::from_seed(&seed()).public_key().as_bytes();
        let v1 = [PKCS8_PREFIX.as_slice(), &seed()].concat();
        let mut attributes = v1.clone();
        attributes[1] += 2;
        attributes.extend([0xa0, 0]);
        for file in [
            PEM.as_bytes().to_vec(),
            PEM.replace('\n', "\r\n").into_bytes(),
            v1,
            attributes,
            version_2(false, &public),
            version_2(true, &public),
        ] {
            let identity = identity(&file).unwrap_or_else(|e| panic!("{file:02x?}: {e}"));
            assert_eq!(identity.fingerprint().to_string(), FINGERPRINT);
        }
    }

    #[test]
    fn refuses_every_other_file_and_says_why() {
        use ImportKeyError as E;
        let differs = version_2(false, &[7; 32]);
        // `PrivateKeyInfo { 0, { rsaEncryption, NULL }, "" }`
        let rsa =
            b"\x30\x14\x02\x01\0\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\0\x04\0";
        let ec = "-----BEGIN PRIVATE KEY-----\n\
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg45hVZZSod1YHieRV\n\
            xJWynEkcPiXLM/LL3xiPZXcCcIahRANCAAQ8BcJWu3OZZsdV7UJBDQ0NaOT9DMFu\n\
            Ad5IfpgA95XxB+1Qg41Smj+f+3pL0pGzCLv2JIt7F1l9R28Jus0HEjia\n\
            -----END PRIVATE KEY-----\n";
        let x25519 = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VuBCIEIJCoTEVGrhqYAFT7LHvc6yHu7En7AKhKiBjbDq2Hro53\n\
            -----END PRIVATE KEY-----\n";
        let table: Vec<(Vec<u8>, E, &str)> = vec![
            (b"".to_vec(), E::Empty, "the key file is empty"),
            (b" \n".to_vec(), E::Empty, "the key file is empty"),
            (vec![0; 48], E::Damaged, "not a PKCS#8 private key"),
            (vec![0xff; 48], E::Damaged, "not a PKCS#8 private key"),
            (b"hello".to_vec(), E::Damaged, "not a PKCS#8 private key"),
            (PEM[..40].into(), E::HalfWritten, "written only in part"),
            (PEM[..10].into(), E::HalfWritten, "written only in part"),
            (PEM[..100].into(), E::HalfWritten, "written only in part"),
            (PEM[..PEM.len() - 3].into(), E::HalfWritten, "written only in part"),
            (PEM.replace("MC4", "M*4").into(), E::Damaged, "or damaged"),
            (PEM.replace("MC4C", "MC8C").into(), E::Damaged, "or damaged"),
            ([PEM, PEM].concat().into(), E::TextAfter, "other text follows the key"),
            (differs, E::PublicHalfDiffers, "do not use this file"),
            (rsa.to_vec(), E::KeyType { name: "RSA" }, "RSA key: only Ed25519"),
            (ec.into(), E::KeyType { name: "ECDSA" }, "ECDSA key: only Ed25519"),
            (x25519.into(), E::KeyType { name: "X25519" }, "X25519 key: only Ed25519"),
            (
                PEM.replace("PRIVATE", "RSA PRIVATE").into(),
                E::KeyType { name: "RSA" },
                "RSA key: only Ed25519",
            ),
            (
                PEM.replace("PRIVATE", "EC PRIVATE").into(),
                E::KeyType { name: "ECDSA" },
                "ECDSA key",
            ),
            (
                PEM.replace("PRIVATE", "OPENSSH PRIVATE").into(),
                E::OpenSsh,
                "an OpenSSH private key",
            ),
            (PEM.replace("PRIVATE", "ENCRYPTED PRIVATE").into(), E::Encrypted, "openssl pkey -in"),
            (
                PEM.replace("PRIVATE", "PUBLIC").into(),
                E::NotPrivate { what: "public key" },
                "this is a public key",
            ),
            (
                PEM.replace("PRIVATE KEY", "CERTIFICATE").into(),
                E::NotPrivate { what: "certificate" },
                "this is a certificate",
            ),
        ];
        for (file, want, text) in table {
            let got = identity(&file).unwrap_err();
            assert_eq!(got, want, "{}", file.escape_ascii());
            assert!(got.to_string().contains(text), "{got}");
        }
    }

    #[test]
    fn refuses_every_cut_and_every_longer_der() {
        let public = *Identity::from_seed(&seed()).public_key().as_bytes();
        let v1 = [PKCS8_PREFIX.as_slice(), &seed()].concat();
        for der in [v1, version_2(false, &public), version_2(true, &public)] {
            for length in 1..der.len() {
                assert!(identity(&der[..length]).is_err(), "{length} bytes");
            }
            assert!(
                identity(&der.iter().copied().chain(iter::once(0)).collect::<Vec<_>>()).is_err()
            );
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(seed: [u8; 32]) {
            let identity = identity(to_pem(&seed).as_bytes()).unwrap();
            prop_assert_eq!(identity.fingerprint(), Identity::from_seed(&seed).fingerprint());
        }

        #[test]
        fn answers_any_bytes_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = identity(&bytes);
            let _ = identity(&[&PKCS8_PREFIX, bytes.as_slice()].concat());
        }
    }
}
