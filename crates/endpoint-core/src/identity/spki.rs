//! Is this a key we let anybody use? Strict reading of `SubjectPublicKeyInfo`.
//!
//! Ground. Two shapes are allowed, each in exactly one encoding: Ed25519 (RFC 8410 §4) and, for
//! peers with certificates, ECDSA on P-256 (RFC 5480 §2). A key with two encodings would have two
//! fingerprints.
//!
//! Always true: a [`PublicKey`] is canonical (RFC 8032 §5.1.3), on the curve and not of small
//! order. With a small-order key anybody can sign.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use ed25519_dalek::VerifyingKey;

use super::Fingerprint;

/// An Ed25519 public key: 32 bytes that name a point, checked.
///
/// Text: `ed25519:` and 64 lower-case hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032 §5.1.5.
    ///
    /// # Errors
    /// [`KeyError`] if they are not canonical, not on the curve, or of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_canonical(bytes) {
            return Err(KeyError::NonCanonical);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotOnCurve)?;
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        Ok(Self(*bytes))
    }

    /// Takes the 44 bytes of a `SubjectPublicKeyInfo` (RFC 8410 §4), and no other encoding of it.
    ///
    /// # Errors
    /// [`KeyError`] if the bytes are anything else, or the key is refused by
    /// [`PublicKey::from_bytes`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let point = spki.strip_prefix(&ED25519_PREFIX).ok_or_else(|| not_allowed(spki))?;
        let point = point
            .try_into()
            .map_err(|_| KeyError::WrongLength { got: spki.len(), expected: 44 })?;
        Self::from_bytes(point)
    }

    /// Takes the public half of a key pair that was just derived from its seed.
    pub(super) const fn of_pair(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The DER of its `SubjectPublicKeyInfo` (RFC 8410 §4).
    #[must_use]
    pub fn to_spki(&self) -> [u8; 44] {
        let mut spki = [0; 44];
        let (prefix, point) = spki.split_at_mut(ED25519_PREFIX.len());
        prefix.copy_from_slice(&ED25519_PREFIX);
        point.copy_from_slice(&self.0);
        spki
    }

    /// The 32 bytes of RFC 8032 §5.1.5.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's one name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_spki(&self.to_spki())
    }

    /// The 32 bytes as 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// The 32 bytes in lower-case base32 without padding, 52 characters: what iroh calls the peer.
    #[must_use]
    pub fn peer_id(&self) -> String {
        data_encoding::BASE32_NOPAD.encode(&self.0).to_ascii_lowercase()
    }

    /// The line of an OpenSSH `.pub` file, without its line end (RFC 8709 §4).
    ///
    /// Control characters in `comment` become spaces, so that the result stays one line.
    #[must_use]
    pub fn to_ssh(&self, comment: &str) -> String {
        let blob = [SSH_PREFIX.as_slice(), &self.0].concat();
        let comment: String =
            comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line =
            format!("ssh-ed25519 {} {}", data_encoding::BASE64.encode(&blob), comment.trim());
        line.trim_end().to_owned()
    }

    /// The PEM text that `openssl pkey -pubout` prints (RFC 7468 §13).
    #[must_use]
    pub fn to_pem(&self) -> String {
        let body = data_encoding::BASE64.encode(&self.to_spki());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", self.to_hex())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Names the key in `spki` if it is of an allowed kind in its one allowed encoding: Ed25519 in 44
/// bytes, or P-256 with an uncompressed point in 91 bytes.
///
/// # Errors
/// [`KeyError`] for every other byte string.
pub fn spki_fingerprint(spki: &[u8]) -> Result<Fingerprint, KeyError> {
    if let Some(point) = spki.strip_prefix(&P256_PREFIX) {
        if point.len() != 65 {
            return Err(KeyError::WrongLength { got: spki.len(), expected: 91 });
        }
        if point.first() != Some(&0x04) {
            return Err(KeyError::NotAllowed);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| KeyError::NotOnCurve)?;
        return Ok(Fingerprint::of_spki(spki));
    }
    PublicKey::from_spki(spki).map(|key| key.fingerprint())
}

/// Names an Ed25519 key that [`PublicKey::from_spki`] took before: looks at its form again, not at the
/// point, which costs as much as a fifth of a signature.
pub(crate) fn name_again(spki: &[u8]) -> Result<Fingerprint, KeyError> {
    match spki.strip_prefix(&ED25519_PREFIX) {
        Some(point) if point.len() == 32 => Ok(Fingerprint::of_spki(spki)),
        _ => Err(KeyError::NotAllowed),
    }
}

/// Why bytes are not a key that may name a peer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The point has another, shorter encoding.
    #[error("the key is not in its canonical encoding (RFC 8032 §5.1.3)")]
    NonCanonical,
    /// The bytes are another kind of key, another encoding, or no key.
    #[error("not an Ed25519 or uncompressed P-256 key in plain DER; no other kind is allowed")]
    NotAllowed,
    /// The bytes name no point of the curve.
    #[error("the key is not a point of its curve")]
    NotOnCurve,
    /// Anybody can make signatures for this key.
    #[error("the key is of small order: anybody can sign for it")]
    SmallOrder,
    /// The beginning is right, the length is not.
    #[error("the key has {got} bytes of DER, expected {expected}")]
    WrongLength {
        /// Bytes found.
        got: usize,
        /// Bytes of this kind of key.
        expected: usize,
    },
}

fn not_allowed(spki: &[u8]) -> KeyError {
    if !spki.is_empty() && ED25519_PREFIX.starts_with(spki) {
        return KeyError::WrongLength { got: spki.len(), expected: 44 };
    }
    KeyError::NotAllowed
}

/// Whether y, the low 255 bits in little-endian order, is below p = 2^255 - 19.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    high & 0x7f != 0x7f || middle.iter().any(|b| *b != 0xff) || *low < 0xed
}

/// `SEQUENCE { SEQUENCE { 1.3.101.112 }, BIT STRING }` up to the point (RFC 8410 §4).
const ED25519_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }` up to the point (RFC 5480 §2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// `string "ssh-ed25519"` and the length of the key, up to the key itself (RFC 8709 §4).
pub(super) const SSH_PREFIX: [u8; 19] = *b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of the seed 00 01 … 1f, as OpenSSL 3.0 derives it.
    pub(in crate::identity) const HEX: &str =
        "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
    /// `openssl pkey -pubout -outform DER | sha256sum` of the same.
    pub(in crate::identity) const FINGERPRINT: &str =
        "sha256:a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5";
    /// A P-256 key made by `openssl ecparam -name prime256v1 -genkey`.
    pub(in crate::identity) const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200\
        048e71f87e55589ce61098b11b4b5c4ef6fc36a832c2f37992cd939edec8201ec0\
        75f1e560face8419106fb70a65c89b3353a3057015cf48781012eedc2a084b0f";

    pub(in crate::identity) fn unhex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    pub(in crate::identity) fn key() -> PublicKey {
        PublicKey::from_bytes(&unhex(HEX).try_into().unwrap()).unwrap()
    }

    #[test]
    fn writes_every_form_as_openssl_and_openssh_do() {
        let key = key();
        assert_eq!(key.fingerprint().to_string(), FINGERPRINT);
        assert_eq!(
            key.fingerprint().curl_pin(),
            "sha256//oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8XkaU="
        );
        assert_eq!(key.to_string(), format!("ed25519:{HEX}"));
        assert_eq!(
            key.to_pem(),
            "-----BEGIN PUBLIC KEY-----\n\
             MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n\
             -----END PUBLIC KEY-----\n"
        );
        assert_eq!(
            key.to_ssh("a\nb"),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 a b"
        );
        assert_eq!(key.to_ssh("").split(' ').count(), 2);
        assert_eq!(key.peer_id(), "aoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a");
    }

    /// The eight points of small order, and the encodings of them and of others that are not
    /// canonical (from the tables of "Taming the many EdDSAs", Chalkias et al., 2020).
    #[test]
    fn refuses_small_order_and_non_canonical_keys() {
        use KeyError::{NonCanonical, SmallOrder};
        let table = [
            ("0100000000000000000000000000000000000000000000000000000000000000", SmallOrder),
            ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", SmallOrder),
            ("0000000000000000000000000000000000000000000000000000000000000000", SmallOrder),
            ("0000000000000000000000000000000000000000000000000000000000000080", SmallOrder),
            ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", SmallOrder),
            ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", SmallOrder),
            ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", SmallOrder),
            ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", SmallOrder),
            ("0100000000000000000000000000000000000000000000000000000000000080", SmallOrder),
            ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", SmallOrder),
            ("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", NonCanonical),
            ("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", NonCanonical),
            ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", NonCanonical),
            ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", NonCanonical),
            ("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", NonCanonical),
            ("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", NonCanonical),
        ];
        for (hex, want) in table {
            let bytes: [u8; 32] = unhex(hex).try_into().unwrap();
            // The sign bit of x = 0 makes an encoding non-canonical too: refused either way.
            assert!(
                matches!(PublicKey::from_bytes(&bytes), Err(e) if e == want || e == KeyError::NotOnCurve),
                "{hex}"
            );
            let spki = [ED25519_PREFIX.as_slice(), &bytes].concat();
            assert!(spki_fingerprint(&spki).is_err(), "{hex}");
        }
    }

    #[test]
    fn refuses_what_is_no_point() {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::NotOnCurve));
    }

    #[test]
    fn names_a_p256_key_in_its_one_encoding_only() {
        let spki = unhex(P256);
        assert_eq!(spki_fingerprint(&spki), Ok(Fingerprint::of_spki(&spki)));
        // Compressed: the same key under a second name.
        let mut compressed = unhex("3039301306072a8648ce3d020106082a8648ce3d030107032200");
        compressed.push(0x03);
        compressed.extend(&spki[27..59]);
        assert_eq!(spki_fingerprint(&compressed), Err(KeyError::NotAllowed));
        // Hybrid: allowed by X9.62 alone.
        let mut hybrid = spki.clone();
        hybrid[26] = 0x07;
        assert_eq!(spki_fingerprint(&hybrid), Err(KeyError::NotAllowed));
        let mut off_curve = spki;
        off_curve[90] ^= 1;
        assert_eq!(spki_fingerprint(&off_curve), Err(KeyError::NotOnCurve));
    }

    #[test]
    fn refuses_every_changed_header_byte_and_every_other_length() {
        for spki in [key().to_spki().to_vec(), unhex(P256)] {
            let header = spki.len() - if spki.len() == 44 { 32 } else { 64 };
            for at in 0..header {
                for bit in 0..8 {
                    let mut changed = spki.clone();
                    changed[at] ^= 1 << bit;
                    assert!(spki_fingerprint(&changed).is_err(), "byte {at}, bit {bit}");
                }
            }
            for length in 0..spki.len() {
                assert!(spki_fingerprint(&spki[..length]).is_err(), "{length} bytes");
            }
            assert!(spki_fingerprint(&[spki.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn says_how_long_a_cut_key_is() {
        let spki = key().to_spki();
        assert_eq!(
            PublicKey::from_spki(&spki[..40]).unwrap_err().to_string(),
            "the key has 40 bytes of DER, expected 44"
        );
    }

    proptest! {
        #[test]
        fn names_no_byte_string_but_the_two_shapes(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(spki_fingerprint(&bytes).is_err());
        }

        #[test]
        fn reads_back_the_encoding_it_writes(seed: [u8; 32]) {
            let key = super::super::Identity::from_seed(&seed).public_key();
            prop_assert_eq!(PublicKey::from_spki(&key.to_spki()), Ok(key));
            prop_assert_eq!(spki_fingerprint(&key.to_spki()), Ok(key.fingerprint()));
        }
    }
}
