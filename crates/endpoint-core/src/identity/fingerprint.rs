//! What is a key called? SHA-256 of its `SubjectPublicKeyInfo`.
//!
//! Ground: the name and its one strict text. Not here: the lenient texts people paste
//! ([`KeyText`](super::KeyText)).

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::odd;

/// SHA-256 of a peer's `SubjectPublicKeyInfo`: the only name this crate gives a peer.
///
/// Shape: 32 bytes. Text: `sha256:` and 64 lower-case hex digits, 71 characters in all.
/// A key has one fingerprint, sent raw (RFC 7250 §3) or inside an X.509 certificate.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Names the key in `spki`, the DER of a `SubjectPublicKeyInfo` (44 bytes for Ed25519, RFC 8410 §4).
    ///
    /// Does not parse or verify: pass only bytes for which the handshake proved possession.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// Takes the digest itself.
    #[must_use]
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hex digits without the prefix, as they stand in `peer://…`.
    #[must_use]
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// The first 8 hex digits: enough for a log line, never for a decision.
    #[must_use]
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(self.0.get(..4).unwrap_or_default())
    }

    /// The text that `curl --pinnedpubkey` takes: `sha256//` and 44 characters of base64.
    #[must_use]
    pub fn curl_pin(&self) -> String {
        format!("sha256//{}", data_encoding::BASE64.encode(&self.0))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    /// Reads the one text that [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sha256:").ok_or(ParseFingerprintError::MissingPrefix)?;
        if let Some((place, character)) = odd::first(digits, |c| c.is_ascii_hexdigit()) {
            let position = place + "sha256:".len();
            return Err(ParseFingerprintError::InvalidCharacter { character, position });
        }
        if digits.contains(|c: char| c.is_ascii_uppercase()) {
            return Err(ParseFingerprintError::UpperCase);
        }
        let got = digits.len();
        data_encoding::HEXLOWER
            .decode(digits.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(ParseFingerprintError::WrongLength { got })
    }
}

/// Why a text is not a [`Fingerprint`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseFingerprintError {
    /// A character after the prefix is no hex digit.
    #[error("fingerprint has {character} at character {position}, expected a hex digit")]
    InvalidCharacter {
        /// The character's name, safe to print.
        character: String,
        /// Its place in the text, from 1, in characters.
        position: usize,
    },
    /// The text does not begin with `sha256:`.
    #[error("fingerprint lacks the `sha256:` prefix; `endpoint key show` prints the whole form")]
    MissingPrefix,
    /// The digits `A` to `F` are not in lower case.
    #[error("fingerprint has upper-case digits after `sha256:`; write them in lower case")]
    UpperCase,
    /// The digits after the prefix are not 64 in number.
    #[error("fingerprint has {got} digits after `sha256:`, expected 64; was it cut when copied?")]
    WrongLength {
        /// Digits found.
        got: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn refuses_every_other_text_and_says_why() {
        let table = [
            ("", "fingerprint lacks the `sha256:` prefix"),
            ("SHA256:aa", "lacks the `sha256:` prefix"),
            (" sha256:aa", "lacks the `sha256:` prefix"),
            ("sha256:", "has 0 digits after `sha256:`, expected 64"),
            (&A[..70], "has 63 digits after `sha256:`, expected 64; was it cut when copied?"),
            (&format!("{A}a"), "has 65 digits"),
            (&A.to_uppercase().replace("SHA", "sha"), "upper-case digits"),
            (&format!("{A} "), "has U+0020 (space) at character 72"),
            ("sha256:\u{200b}aa", "has U+200B (zero-width space) at character 8"),
        ];
        for (text, want) in table {
            let got = text.parse::<Fingerprint>().unwrap_err().to_string();
            assert!(got.contains(want), "{text:?}: {got}");
        }
    }

    #[test]
    fn serializes_as_its_text() {
        let fingerprint: Fingerprint = A.parse().unwrap();
        assert_eq!(serde_json::to_string(&fingerprint).unwrap(), format!("\"{A}\""));
        assert_eq!(format!("{fingerprint:?}"), A);
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(digest: [u8; 32]) {
            let fingerprint = Fingerprint::from_bytes(digest);
            prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>(), Ok(fingerprint));
        }

        #[test]
        fn accepts_no_text_but_its_own(text in "(sha256:)?[0-9a-fA-F]{60,66}|\\PC{0,80}") {
            if let Ok(fingerprint) = text.parse::<Fingerprint>() {
                prop_assert_eq!(fingerprint.to_string(), text);
            }
        }
    }
}
