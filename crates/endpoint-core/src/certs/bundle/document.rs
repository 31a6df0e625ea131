//! What stands in a bundle, and in which bytes?
//!
//! ```text
//! endpoint-bundle v1
//! serial: 1764140000
//! not-after: 2027-01-01T00:00:00Z
//! names: *.a.example a.example
//! -----BEGIN CERTIFICATE-----   (the chain, leaf first)
//! -----BEGIN PRIVATE KEY-----   (one, PKCS#8)
//! ```
//!
//! Always true: the serial number, the chain and the key settle every byte.

use std::{fmt::Write, sync::Arc};

use jiff::Timestamp;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer,
    pem::{self, PemObject},
};
use webpki::EndEntityCert;
use zeroize::Zeroizing;

use super::{BundleError, MAX_BYTES};
use crate::certs::{files::Loaded, validity::Validity};

/// The content of a bundle.
pub(super) struct Content {
    pub(super) serial: u64,
    pub(super) names: Vec<String>,
    validity: Validity,
    chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    key: Zeroizing<Vec<u8>>,
}

impl Content {
    /// Reads a chain and a key as authorities and tools write them.
    pub(super) fn from_pem(serial: u64, chain: &[u8], key: &[u8]) -> Result<Self, BundleError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| BundleError::Chain(why.to_string()))?;
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(PrivateKeyDer::Pkcs8(key)) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            Ok(_) => return Err(BundleError::KeyForm),
            Err(pem::Error::NoItemsFound) => return Err(BundleError::NoKey),
            Err(why) => return Err(BundleError::Key(why.to_string())),
        };
        Self::new(serial, chain, key)
    }

    fn new(
        serial: u64,
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, BundleError> {
        let leaf = chain.first().ok_or(BundleError::NoCertificate)?;
        let damaged = |why: &dyn std::fmt::Display| BundleError::Chain(why.to_string());
        let parsed = EndEntityCert::try_from(leaf).map_err(|why| damaged(&why))?;
        let mut names: Vec<String> =
            parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(BundleError::NoNames);
        }
        let validity = Validity::of(leaf).ok_or_else(|| damaged(&"its dates cannot be read"))?;
        Ok(Self { serial, names, validity, chain, key })
    }

    /// The one text of this content.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        let room: usize = self.chain.iter().map(|certificate| certificate.len()).sum();
        let names: usize = self.names.iter().map(|name| name.len() + 1).sum();
        // Room for all of it at once: a text that grows leaves copies of the key behind.
        let room = (room + self.key.len()) * 3 / 2 + names + 1024 + 64 * self.chain.len();
        let mut text = Zeroizing::new(String::with_capacity(room));
        text.push_str(FIRST_LINE);
        // Writing to a string cannot fail.
        let _ = write!(
            *text,
            "serial: {}\nnot-after: {}\nnames: {}\n",
            self.serial,
            self.validity.until,
            self.names.join(" ")
        );
        for certificate in &self.chain {
            push_pem(&mut text, "CERTIFICATE", certificate);
        }
        push_pem(&mut text, "PRIVATE KEY", &self.key);
        if text.len() > MAX_BYTES {
            return Err(BundleError::TooLong { got: text.len() });
        }
        Ok(Zeroizing::new(std::mem::take(&mut *text).into_bytes()))
    }

    /// Reads a document whose signature holds.
    pub(super) fn decode(document: &[u8]) -> Result<Self, BundleError> {
        let form = |what: &'static str| BundleError::Form { what };
        let text = str::from_utf8(document).map_err(|_| form("it is no text"))?;
        let rest = text.strip_prefix(FIRST_LINE).ok_or_else(|| {
            let line = text.lines().next().unwrap_or_default();
            BundleError::Version { line: line.chars().take(64).collect() }
        })?;
        let (serial, rest) = field(rest, "serial: ").ok_or(form("its serial number is missing"))?;
        let serial: u64 = serial.parse().map_err(|_| form("its serial number is no number"))?;
        let (until, rest) = field(rest, "not-after: ").ok_or(form("its end is missing"))?;
        let until: Timestamp = until.parse().map_err(|_| form("its end is no time"))?;
        let (names, _) = field(rest, "names: ").ok_or(form("its names are missing"))?;
        let chain = CertificateDer::pem_slice_iter(document)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| BundleError::Chain(why.to_string()))?;
        let key = match PrivatePkcs8KeyDer::from_pem_slice(document) {
            Ok(key) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            Err(pem::Error::NoItemsFound) => return Err(BundleError::NoKey),
            Err(why) => return Err(BundleError::Key(why.to_string())),
        };
        let content = Self::new(serial, chain, key)?;
        if until != content.validity.until {
            let leaf = content.validity.until;
            return Err(BundleError::NotAfter { said: until, leaf });
        }
        if names != content.names.join(" ") {
            return Err(BundleError::Names { leaf: content.names.join(" ") });
        }
        if content.encode()?.as_slice() != document {
            return Err(form("it is not written in the one way that a bundle is written"));
        }
        Ok(content)
    }

    /// What is served: the key held against the leaf.
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Loaded, BundleError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.as_slice())).clone_key();
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|why| BundleError::Key(why.to_string()))?;
        // A key whose public half cannot be had cannot be held against the leaf.
        let _: SubjectPublicKeyInfoDer<'_> = key.public_key().ok_or(BundleError::Mismatch)?;
        let certified = CertifiedKey::new(self.chain.clone(), key);
        certified.keys_match().map_err(|why| match why {
            rustls::Error::InconsistentKeys(_) => BundleError::Mismatch,
            why => BundleError::Chain(why.to_string()),
        })?;
        Ok(Loaded { certified: Arc::new(certified), validity: self.validity })
    }
}

/// The number in a document.
pub(super) fn serial(document: &str) -> Option<u64> {
    field(document.strip_prefix(FIRST_LINE)?, "serial: ")?.0.parse().ok()
}

/// The rest of the line after `name`, and what follows the line.
fn field<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str)> {
    text.strip_prefix(name)?.split_once('\n')
}

fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    let body = Zeroizing::new(data_encoding::BASE64.encode(der));
    let mut body = body.as_str();
    let _ = writeln!(text, "-----BEGIN {label}-----");
    while !body.is_empty() {
        let (line, rest) = body.split_at(body.len().min(64));
        text.push_str(line);
        text.push('\n');
        body = rest;
    }
    let _ = writeln!(text, "-----END {label}-----");
}

pub(super) const FIRST_LINE: &str = "endpoint-bundle v1\n";
