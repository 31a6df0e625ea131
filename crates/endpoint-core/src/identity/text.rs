//! Which key does this text name? Every form that people paste.
//!
//! Ground. Fingerprints: `sha256:HEX`, bare hex with or without `:` between pairs, curl's
//! `sha256//BASE64`. Keys: `ed25519:HEX`, a PEM public key, an `ssh-ed25519 AAAA… [comment]` line.
//!
//! Always true: bare hex is a fingerprint, never a key; OpenSSH's `SHA256:…` is refused, because it
//! is the hash of other bytes; errors never repeat more than a few characters of the text, because
//! people paste private keys by mistake.

use super::{
    Fingerprint, KeyError, PublicKey, odd, pem,
    spki::{SSH_PREFIX, spki_fingerprint},
};

/// A key as a person wrote it: its fingerprint, and the key itself if the text holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyText {
    fingerprint: Fingerprint,
    public_key: Option<PublicKey>,
    comment: String,
}

impl KeyText {
    /// Reads any of the forms; white space around the text is ignored.
    ///
    /// # Errors
    /// [`ParseKeyError`], which names the form that the text comes closest to.
    pub fn parse(text: &str) -> Result<Self, ParseKeyError> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return Err(ParseKeyError::Empty);
        }
        if text.starts_with("-----BEGIN ") {
            return from_pem(text);
        }
        if let Some(kind) = ssh_key_type(text) {
            return from_ssh(text, kind);
        }
        if let Some((position, character)) = odd::first(text, |c| c.is_ascii_graphic()) {
            return Err(ParseKeyError::InvalidCharacter { character, position });
        }
        if let Some(digits) = text.strip_prefix("sha256:") {
            let digest = strict_hex("sha256:", digits)?;
            return Ok(Self::named(Fingerprint::from_bytes(digest)));
        }
        if let Some(base64) = text.strip_prefix("sha256//") {
            return from_curl_pin(base64);
        }
        if let Some(digits) = text.strip_prefix("ed25519:") {
            let key = PublicKey::from_bytes(&strict_hex("ed25519:", digits)?)?;
            return Ok(Self::known(key, ""));
        }
        if text.starts_with("SHA256:") || text.starts_with("MD5:") {
            return Err(ParseKeyError::OpenSshHash);
        }
        from_bare_hex(text)
    }

    /// The name of the key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The key itself; `None` if the text holds only its hash, or a P-256 key.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        self.public_key
    }

    /// The comment of an `ssh-ed25519` line, else empty.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    fn named(fingerprint: Fingerprint) -> Self {
        Self { fingerprint, public_key: None, comment: String::new() }
    }

    fn known(key: PublicKey, comment: &str) -> Self {
        Self {
            fingerprint: key.fingerprint(),
            public_key: Some(key),
            comment: comment.trim().to_owned(),
        }
    }
}

impl std::str::FromStr for KeyText {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Why a text names no key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// An X.509 certificate was pasted.
    #[error(
        "this is a certificate; give its key: `openssl x509 -in FILE -noout -pubkey` prints it"
    )]
    Certificate,
    /// The text is PEM or base64 that was damaged or cut.
    #[error("the {form} text is damaged; was it cut when copied?")]
    Damaged {
        /// What the text began as.
        form: &'static str,
    },
    /// There is no text.
    #[error("expected a key, found nothing; `endpoint key show` prints this endpoint's own")]
    Empty,
    /// A character does not belong into the form.
    #[error("the key has {character} at character {position}; was it damaged when copied?")]
    InvalidCharacter {
        /// The character's name, safe to print.
        character: String,
        /// Its place in the text, from 1, in characters.
        position: usize,
    },
    /// The form is right, the key is not allowed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is of another kind.
    #[error("{name} key: only Ed25519")]
    KeyType {
        /// The kind's name.
        name: &'static str,
    },
    /// The text is OpenSSH's fingerprint.
    #[error(
        "OpenSSH's `SHA256:…` and `MD5:…` hash the SSH form of a key, not its \
         SubjectPublicKeyInfo, so no fingerprint follows from them; give the `ssh-ed25519 AAAA…` \
         line of the .pub file instead"
    )]
    OpenSshHash,
    /// A private key was pasted.
    #[error(
        "this is a PRIVATE key: keep it to yourself and make a new one if others saw it; \
         `openssl pkey -in FILE -pubout` prints the public key"
    )]
    PrivateKey,
    /// The text is in none of the forms.
    #[error(
        "`{start}` begins no key; expected `sha256:HEX`, 64 hex digits, `sha256//BASE64`, \
         `ed25519:HEX`, a PEM public key or an `ssh-ed25519 AAAA…` line"
    )]
    Unrecognised {
        /// The first characters of the text, safe to print.
        start: String,
    },
    /// The digits `A` to `F` are not in lower case.
    #[error("`{form}` is followed by upper-case digits; write them in lower case")]
    UpperCase {
        /// The prefix.
        form: &'static str,
    },
    /// The form is right, the number of characters is not.
    #[error("{form} has {got} characters, expected {expected}; was it cut when copied?")]
    WrongLength {
        /// What was counted.
        form: &'static str,
        /// Characters found.
        got: usize,
        /// Characters of a whole one.
        expected: usize,
    },
}

/// The kind of SSH key that the first word of `text` names, if it names one.
pub(crate) fn ssh_key_type(text: &str) -> Option<&'static str> {
    Some(match text.split([' ', '\t']).next()? {
        "ssh-ed25519" => "Ed25519",
        "ssh-rsa" | "rsa-sha2-256" | "rsa-sha2-512" => "RSA",
        "ssh-dss" => "DSA",
        word if word.contains("-cert-v0") => "OpenSSH certificate",
        word if word.starts_with("sk-") => "FIDO security",
        word if word.starts_with("ecdsa-sha2-") => "ECDSA",
        word if word.starts_with("ssh-") => "unknown SSH",
        _ => return None,
    })
}

fn from_ssh(text: &str, kind: &'static str) -> Result<KeyText, ParseKeyError> {
    const FORM: &str = "the base64 of the ssh-ed25519 key";
    if kind != "Ed25519" {
        return Err(ParseKeyError::KeyType { name: kind });
    }
    let rest = text.strip_prefix("ssh-ed25519").unwrap_or_default().trim_start_matches([' ', '\t']);
    let (base64, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let legal = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    if let Some((place, character)) = odd::first(base64, legal) {
        let before = text.chars().count() - rest.chars().count();
        return Err(ParseKeyError::InvalidCharacter { character, position: before + place });
    }
    if base64.len() != 68 {
        return Err(ParseKeyError::WrongLength { form: FORM, got: base64.len(), expected: 68 });
    }
    let damaged = ParseKeyError::Damaged { form: "ssh-ed25519" };
    let blob = data_encoding::BASE64.decode(base64.as_bytes()).map_err(|_| damaged.clone())?;
    let point = blob.strip_prefix(&SSH_PREFIX).and_then(|point| point.try_into().ok());
    Ok(KeyText::known(PublicKey::from_bytes(point.ok_or(damaged)?)?, comment))
}

fn from_pem(text: &str) -> Result<KeyText, ParseKeyError> {
    const DAMAGED: ParseKeyError = ParseKeyError::Damaged { form: "PEM" };
    let block = pem::parse(text).map_err(|_| DAMAGED)?;
    match block.label {
        "PUBLIC KEY" => {}
        "CERTIFICATE" => return Err(ParseKeyError::Certificate),
        "RSA PUBLIC KEY" => return Err(ParseKeyError::KeyType { name: "RSA" }),
        label if label.ends_with("PRIVATE KEY") => return Err(ParseKeyError::PrivateKey),
        _ => return Err(ParseKeyError::Unrecognised { start: "-----BEGIN".to_owned() }),
    }
    let der = block.der.map_err(|_| DAMAGED)?;
    if super::der::key_type(&der).is_some_and(|name| name == "RSA") {
        return Err(ParseKeyError::KeyType { name: "RSA" });
    }
    Ok(match PublicKey::from_spki(&der) {
        Ok(key) => KeyText::known(key, ""),
        Err(KeyError::NotAllowed) => KeyText::named(spki_fingerprint(&der)?),
        Err(refused) => return Err(refused.into()),
    })
}

fn from_curl_pin(base64: &str) -> Result<KeyText, ParseKeyError> {
    if let Some((place, character)) =
        odd::first(base64, |c| c.is_ascii_alphanumeric() || "+/=".contains(c))
    {
        let position = place + "sha256//".len();
        return Err(ParseKeyError::InvalidCharacter { character, position });
    }
    if base64.len() != 44 {
        let form = "the base64 after `sha256//`";
        return Err(ParseKeyError::WrongLength { form, got: base64.len(), expected: 44 });
    }
    data_encoding::BASE64
        .decode(base64.as_bytes())
        .ok()
        .and_then(|digest| digest.try_into().ok())
        .map(|digest| KeyText::named(Fingerprint::from_bytes(digest)))
        .ok_or(ParseKeyError::Damaged { form: "sha256//" })
}

/// 64 digits, or 32 pairs with `:` between them; upper case is allowed here, as tools print it.
fn from_bare_hex(text: &str) -> Result<KeyText, ParseKeyError> {
    let digits = text.replace(':', "");
    let wrong = digits.chars().filter(|c| !c.is_ascii_hexdigit()).count();
    let in_pairs = !text.contains(':') || text.split(':').all(|pair| pair.len() == 2);
    if wrong > 0 && (in_pairs && digits.len() >= 60 && wrong <= 4) {
        let legal = |c: char| c.is_ascii_hexdigit() || c == ':';
        if let Some((position, character)) = odd::first(text, legal) {
            return Err(ParseKeyError::InvalidCharacter { character, position });
        }
    }
    if wrong > 0 || !in_pairs || digits.len() < 8 {
        let start: String = text.chars().take(12).collect();
        return Err(ParseKeyError::Unrecognised { start: start.escape_default().to_string() });
    }
    let got = digits.len();
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .ok()
        .and_then(|digest| digest.try_into().ok())
        .map(|digest| KeyText::named(Fingerprint::from_bytes(digest)))
        .ok_or(ParseKeyError::WrongLength { form: "the hex fingerprint", got, expected: 64 })
}

fn strict_hex(prefix: &'static str, digits: &str) -> Result<[u8; 32], ParseKeyError> {
    if let Some((place, character)) = odd::first(digits, |c| c.is_ascii_hexdigit()) {
        return Err(ParseKeyError::InvalidCharacter { character, position: prefix.len() + place });
    }
    let form = match prefix {
        "sha256:" => "the hex after `sha256:`",
        _ => "the hex after `ed25519:`",
    };
    if digits.len() != 64 {
        return Err(ParseKeyError::WrongLength { form, got: digits.len(), expected: 64 });
    }
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes());
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ParseKeyError::UpperCase { form: prefix })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::spki::tests::{FINGERPRINT, HEX, P256, key, unhex},
        *,
    };

    const SSH: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";

    fn colons(hex: &str) -> String {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| str::from_utf8(pair).unwrap())
            .collect::<Vec<_>>()
            .join(":")
    }

    #[test]
    fn reads_every_form_of_one_key_as_one_fingerprint() {
        let key = key();
        let bare = &FINGERPRINT[7..];
        let forms = [
            (FINGERPRINT.to_owned(), false),
            (format!("  {FINGERPRINT}\r\n"), false),
            (bare.to_owned(), false),
            (bare.to_uppercase(), false),
            (colons(bare), false),
            (colons(&bare.to_uppercase()), false),
            (key.fingerprint().curl_pin(), false),
            (key.to_string(), true),
            (format!("ed25519:{HEX}"), true),
            (key.to_pem(), true),
            (key.to_pem().replace('\n', "\r\n"), true),
            (SSH.to_owned(), true),
            (key.to_ssh("bob@example with spaces"), true),
            (format!("{SSH}\tбоб"), true),
        ];
        for (text, whole) in forms {
            let got = KeyText::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(got.fingerprint().to_string(), FINGERPRINT, "{text}");
            assert_eq!(got.public_key(), whole.then_some(key), "{text}");
        }
        assert_eq!(KeyText::parse(&key.to_ssh("bob at home")).unwrap().comment(), "bob at home");
    }

    /// The line that `ssh-keygen -t ed25519 -C bob@example` (OpenSSH 9.2) wrote.
    #[test]
    fn reads_a_line_that_ssh_keygen_wrote() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILgxIcgJuKCzL8YQynYeBuCdmuXp4ZaSApBjR8p7ujgD bob@example\n";
        let got = KeyText::parse(line).unwrap();
        let key = got.public_key().unwrap();
        assert_eq!(
            key.to_hex(),
            "b83121c809b8a0b32fc610ca761e06e09d9ae5e9e1969202906347ca7bba3803"
        );
        assert_eq!(key.to_ssh(got.comment()), line.trim_end());
    }

    #[test]
    fn names_a_p256_key_from_pem_by_its_fingerprint_alone() {
        let spki = unhex(P256);
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            data_encoding::BASE64.encode(&spki)
        );
        let got = KeyText::parse(&pem).unwrap();
        assert_eq!((got.fingerprint(), got.public_key()), (Fingerprint::of_spki(&spki), None));
    }

    #[test]
    fn refuses_every_other_text_and_says_why() {
        let bare = &FINGERPRINT[7..];
        let small = "0100000000000000000000000000000000000000000000000000000000000000";
        let small_ssh = data_encoding::BASE64
            .encode(&[SSH_PREFIX.as_slice(), unhex(small).as_slice()].concat());
        let pem = key().to_pem();
        let table = [
            (String::new(), "expected a key, found nothing"),
            (" \n".into(), "expected a key, found nothing"),
            (
                "SHA256:oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8XkaU".into(),
                "hash the SSH form of a key, not its SubjectPublicKeyInfo",
            ),
            ("MD5:aa:bb".into(), "give the `ssh-ed25519 AAAA…` line"),
            (FINGERPRINT[..60].into(), "the hex after `sha256:` has 53 characters, expected 64"),
            (format!("{FINGERPRINT}0"), "the hex after `sha256:` has 65 characters"),
            (format!("sha256:{}", bare.to_uppercase()), "`sha256:` is followed by upper-case"),
            (bare[..63].into(), "the hex fingerprint has 63 characters, expected 64"),
            (format!("{bare}ab"), "the hex fingerprint has 66 characters"),
            (colons(&bare[..62]), "the hex fingerprint has 62 characters"),
            (format!("{}o", &bare[..63]), "has `o` at character 64"),
            (colons(bare).replacen(':', "", 1), "begins no key"),
            (format!("\u{feff}{FINGERPRINT}"), "has U+FEFF (byte-order mark) at character 1"),
            (FINGERPRINT.replacen(':', ":\u{200b}", 1), "U+200B (zero-width space) at character 8"),
            (FINGERPRINT.replacen(':', ": ", 1), "has U+0020 (space) at character 8"),
            (FINGERPRINT.replacen('a', "а", 2), "has `а` U+0430 at character 3"),
            (format!("sha256:{}g", &bare[..63]), "has `g` at character 71"),
            (
                "sha256//oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8XkaU".into(),
                "has 43 characters, expected 44",
            ),
            (
                "sha256//oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8Xka_=".into(),
                "has `_` at character 51",
            ),
            (
                "sha256//oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8XkaV=".into(),
                "the sha256// text is damaged",
            ),
            ("ed25519:1f00".into(), "the hex after `ed25519:` has 4 characters, expected 64"),
            (format!("ed25519:{}", HEX.to_uppercase()), "`ed25519:` is followed by upper-case"),
            (format!("ed25519:{small}"), "small order"),
            (format!("ed25519:{}", "f".repeat(64)), "canonical"),
            (format!("ssh-ed25519 {small_ssh}"), "small order"),
            ("ssh-ed25519".into(), "has 0 characters, expected 68"),
            (SSH[..70].into(), "the base64 of the ssh-ed25519 key has 58 characters, expected 68"),
            (SSH.replace('+', "*"), "has `*` at character"),
            (SSH.replace("C3Nz", "C3NA"), "the ssh-ed25519 text is damaged"),
            ("ssh-rsa AAAAB3NzaC1yc2E r".into(), "RSA key: only Ed25519"),
            ("ssh-dss AAAA".into(), "DSA key: only Ed25519"),
            ("ecdsa-sha2-nistp256 AAAA".into(), "ECDSA key: only Ed25519"),
            ("sk-ssh-ed25519@openssh.com AAAA".into(), "FIDO security key: only Ed25519"),
            ("ssh-ed25519-cert-v01@openssh.com AAAA".into(), "OpenSSH certificate key: only"),
            ("ssh-xmss@openssh.com AAAA".into(), "unknown SSH key: only Ed25519"),
            ("-----BEGIN PRIVATE KEY-----\nMC4".into(), "this is a PRIVATE key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nMC4".into(), "this is a PRIVATE key"),
            ("-----BEGIN CERTIFICATE-----\nMC4".into(), "this is a certificate"),
            ("-----BEGIN RSA PUBLIC KEY-----\nMC4".into(), "RSA key: only Ed25519"),
            ("-----BEGIN PGP MESSAGE-----\nMC4".into(), "begins no key"),
            (pem[..60].into(), "the PEM text is damaged"),
            (pem.replace("MCow", "MCox"), "no other kind is allowed"),
            (key().peer_id(), "begins no key"),
            ("bob".into(), "`bob` begins no key"),
            ("https://example.com/".into(), "`https://exam` begins no key"),
        ];
        for (text, want) in table {
            let got = KeyText::parse(&text).unwrap_err().to_string();
            assert!(got.contains(want), "{text:?}: {got}");
        }
    }

    #[test]
    fn never_repeats_a_pasted_secret() {
        let secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ";
        let got = KeyText::parse(secret).unwrap_err().to_string();
        assert!(!got.contains("QQQ"), "{got}");
    }

    proptest! {
        #[test]
        fn reads_back_every_form_of_any_key(seed: [u8; 32], comment in "[a-z@. ]{0,20}") {
            let key = super::super::Identity::from_seed(&seed).public_key();
            let named = [
                key.fingerprint().to_string(),
                key.fingerprint().hex(),
                colons(&key.fingerprint().hex()),
                key.fingerprint().curl_pin(),
            ];
            for text in named {
                prop_assert_eq!(KeyText::parse(&text).unwrap().fingerprint(), key.fingerprint());
            }
            for text in [key.to_string(), key.to_ssh(&comment), key.to_pem()] {
                prop_assert_eq!(KeyText::parse(&text).unwrap().public_key(), Some(key));
            }
        }

        #[test]
        fn answers_any_text_without_a_panic(text in "\\PC{0,200}|(sha256[:/]/?|ssh-|ed25519:|-----BEGIN )[ -~]{0,90}") {
            let _ = KeyText::parse(&text);
        }
    }
}
