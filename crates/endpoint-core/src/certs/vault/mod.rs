//! Which certificates and accounts are kept in the store?
//!
//! Writes them, the one before included, and holds what is read against everything that would else show up
//! as a failed handshake. Not here: sealing (`store`), when to renew (`acme`).
//!
//! Always true: nothing is loaded whose key does not match its leaf, that is cut, or that does not cover its
//! name; a certificate that replaces another keeps it as the previous one in the same write; a name
//! whose record cannot be trusted is an error or has its previous certificate, never nothing.

#[cfg(any(test, feature = "acme"))]
mod account;
mod choose;
mod examine;
mod issued;
#[cfg(any(test, feature = "acme"))]
mod keep;
mod kept;
#[cfg(any(test, feature = "acme"))]
mod marking;
pub(crate) mod marks;
pub(crate) mod mend;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

pub(crate) use self::kept::Kept;
pub use self::{
    choose::Condition,
    examine::{Ailing, Examined},
    kept::Origin,
};
use super::{
    files::{Loaded, covers},
    names, normalized_name,
    validity::{Validity, field},
};
use crate::store::{Change, Kind, Record, Store, StoreError};

/// The certificates and accounts in a store.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn Store>,
}

/// What an operator may know of a certificate that is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeptCertificate {
    /// The name that it is kept under.
    pub name: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Where it came from.
    pub origin: Origin,
    /// When it came.
    pub issued: Timestamp,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
    /// Why this is not the newest one, or cannot be served any more; `None`: it is in order.
    pub fault: Option<String>,
    /// How the newest one stands, whichever this is.
    pub condition: Condition,
}

/// A certificate that was loaded, and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) loaded: Loaded,
    pub(crate) info: KeptCertificate,
    /// Of the record `Kind::Certificate`; 0 if this is the previous one.
    pub(crate) generation: u64,
    /// From when until when the newest one is valid, if it could be read: renewal goes by that.
    pub(crate) newest: Option<Validity>,
    /// As it is kept, to keep it again if the disk loses it.
    #[allow(dead_code, reason = "without ACME nothing is kept again")]
    pub(crate) kept: Arc<Kept>,
}

impl Vault {
    /// What is kept in that store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The names that a certificate is kept under, in order.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn names(&self) -> Result<Vec<String>, VaultError> {
        let mut ids = self.store.list(Kind::Certificate).await?;
        // One whose newest was lost has the one before.
        ids.extend(self.store.list(Kind::Previous).await?);
        let names: std::collections::BTreeSet<String> =
            ids.into_iter().map(|(name, _)| name).collect();
        Ok(names.into_iter().collect())
    }

    /// What is known of the certificate that is kept under a name.
    ///
    /// # Errors
    /// As [`Self::export`].
    pub async fn info(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<KeptCertificate>, VaultError> {
        Ok(self.load(name, now, &default_provider()).await?.map(|held| held.info))
    }

    /// The chain that is kept under a name, leaf first, as PEM; not the key.
    ///
    /// # Errors
    /// [`VaultError`] if neither the record nor the previous one can be used.
    pub async fn export(&self, name: &str, now: Timestamp) -> Result<Option<String>, VaultError> {
        let Some(held) = self.load(name, now, &default_provider()).await? else { return Ok(None) };
        Ok(Some(held.loaded.certified.cert.iter().map(|cert| pem(cert)).collect()))
    }

    /// Keeps a chain and its key, both PEM, under every DNS name and address that the leaf is for, in one
    /// write. Gives these names.
    ///
    /// # Errors
    /// [`VaultError`] with what is wrong with them; nothing is kept then.
    pub async fn import(
        &self,
        cert: &[u8],
        key: &[u8],
        now: Timestamp,
    ) -> Result<Vec<String>, VaultError> {
        let unfit = |why: &str| VaultError::Unfit(why.to_owned());
        let chain =
            CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>().map_err(|why| {
                VaultError::Unfit(format!("the certificate cannot be read as PEM: {why}"))
            })?;
        let leaf = chain.first().ok_or_else(|| {
            unfit("there is no certificate; expected PEM with `-----BEGIN CERTIFICATE-----`, leaf first")
        })?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            unfit("there is no private key; expected PEM with `-----BEGIN PRIVATE KEY-----`, not encrypted")
        })?;
        let key = self::key_bytes(&key);
        let names = names::of(leaf);
        if names.is_empty() {
            return Err(unfit(
                "the certificate is for no DNS name and no address, so nothing could be served with it",
            ));
        }
        for name in &names {
            record_name(name)?;
        }
        let origin = Origin { source: "import".into(), ..Origin::default() };
        self.keep_under(&names, &chain, &key, &origin, now).await?;
        Ok(names)
    }

    async fn held(
        &self,
        kind: Kind,
        name: &str,
        provider: &CryptoProvider,
    ) -> Result<Option<Held>, VaultError> {
        let Some(record) = self.store.read(kind, name).await? else { return Ok(None) };
        let invalid = |why: String| VaultError::Invalid { kind, name: name.to_owned(), why };
        Held::read(name, &record, provider).map(Some).map_err(invalid)
    }

    async fn keep_under(
        &self,
        under: &[String],
        chain: &[CertificateDer<'static>],
        key: &[u8],
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let provider = default_provider();
        let names = chain.first().map(|leaf| names::of(leaf)).unwrap_or_default();
        let key = Zeroizing::new(key.to_vec());
        let kept = Kept { names, origin: origin.clone(), issued: now, chain: chain.to_vec(), key };
        let body = kept.write().map_err(|why| VaultError::Unfit(why.to_owned()))?;
        // Somebody else may write between our read and our write: then it is read again.
        let mut tries = 0;
        loop {
            let mut changes = Vec::with_capacity(2 * under.len());
            for name in under {
                let name = record_name(name)?;
                let loaded =
                    check(chain, &kept.key, &name, &provider).map_err(VaultError::Unfit)?;
                if now > loaded.validity.until {
                    let until = loaded.validity.until;
                    return Err(VaultError::Unfit(format!("the certificate ended on {until}")));
                }
                changes.extend(self.succeed(&name, body.clone(), &provider).await?);
            }
            match self.store.write(changes, now).await {
                Err(StoreError::Conflict { .. }) if tries < 8 => tries += 1,
                done => return Ok(done?),
            }
        }
    }

    /// The changes that put a record in the place of the one under a name, which becomes the previous one.
    async fn succeed(
        &self,
        name: &str,
        body: Zeroizing<Vec<u8>>,
        provider: &CryptoProvider,
    ) -> Result<Vec<Change>, VaultError> {
        let current = match self.store.read(Kind::Certificate, name).await {
            Err(StoreError::Damaged { .. }) => {
                // The previous one stays: it is the last that was good. This one is set aside by the store.
                return Ok(vec![Change::Replace(Kind::Certificate, name.to_owned(), None, body)]);
            }
            read => read?,
        };
        let Some(current) = current else {
            return Ok(vec![Change::Create(Kind::Certificate, name.to_owned(), body)]);
        };
        let generation = Some(current.generation);
        let good = *current.body != *body
            && Kept::read(&current.body)
                .is_ok_and(|kept| check(&kept.chain, &kept.key, name, provider).is_ok());
        let previous = Change::Replace(Kind::Previous, name.to_owned(), None, current.body.clone());
        if !good && *current.body != *body {
            let aside = "it cannot be served".to_owned();
            return Ok(vec![
                Change::SetAside(Kind::Certificate, name.to_owned(), generation, aside),
                Change::Create(Kind::Certificate, name.to_owned(), body),
            ]);
        }
        let newest = Change::Replace(Kind::Certificate, name.to_owned(), generation, body);
        Ok(good.then_some(previous).into_iter().chain([newest]).collect())
    }
}

impl Held {
    /// What stands in a record; else what is wrong with it.
    fn read(name: &str, record: &Record, provider: &CryptoProvider) -> Result<Self, String> {
        let kept = Kept::read(&record.body).map_err(str::to_owned)?;
        Self::of(name, kept, record.generation, provider)
    }

    fn of(
        name: &str,
        kept: Kept,
        generation: u64,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let loaded = check(&kept.chain, &kept.key, name, provider)?;
        let info = KeptCertificate {
            name: name.to_owned(),
            names: kept.names.clone(),
            origin: kept.origin.clone(),
            issued: kept.issued,
            not_before: loaded.validity.from,
            not_after: loaded.validity.until,
            fault: None,
            condition: Condition::Whole,
        };
        let newest = Some(loaded.validity);
        Ok(Self { loaded, info, generation, newest, kept: Arc::new(kept) })
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault").field(&self.store.place()).finish()
    }
}

/// The id of a name: an address as it is written shortest, a DNS name in lower case and without its last dot.
fn record_name(name: &str) -> Result<String, VaultError> {
    if let Ok(address) = name.parse::<std::net::IpAddr>() {
        return Ok(address.to_string());
    }
    normalized_name(name).map_err(|_| {
        let shown: String = name.chars().take(64).collect();
        VaultError::Unfit(format!("`{}` is no DNS name and no address", shown.escape_debug()))
    })
}

/// Holds a chain against its key and its name, whatever its dates are.
fn check(
    chain: &[CertificateDer<'static>],
    key: &Zeroizing<Vec<u8>>,
    name: &str,
    provider: &CryptoProvider,
) -> Result<Loaded, String> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
        return Err(format!(
            "the chain has {} certificates in {bytes} bytes, expected at most {MAX_CHAIN} in {MAX_CHAIN_BYTES}",
            chain.len()
        ));
    }
    for certificate in chain {
        let whole = field(certificate, SEQUENCE).is_some_and(|(_, rest)| rest.is_empty());
        if !whole || Validity::of(certificate).is_none() {
            return Err("a certificate of the chain is cut or has bytes left over".into());
        }
    }
    let key = PrivateKeyDer::try_from(key.as_slice())
        .map_err(|_| "the key is neither PKCS#8, SEC 1 nor PKCS#1".to_owned())?;
    let key = provider
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|why| format!("the key cannot be used: {why}"))?;
    let certified = CertifiedKey::new(chain.to_vec(), key);
    certified.keys_match().map_err(|why| match why {
        rustls::Error::InconsistentKeys(_) => {
            "the key does not belong to the first certificate; give the leaf first, and the key it was issued for"
                .to_owned()
        }
        why => why.to_string(),
    })?;
    let leaf = certified.end_entity_cert().map_err(|why| why.to_string())?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|why| why.to_string())?;
    if !covers(&parsed, name) {
        return Err(format!("the certificate is not valid for `{name}`"));
    }
    let validity = Validity::of(leaf).ok_or("its dates cannot be read")?;
    Ok(Loaded { certified: Arc::new(certified), validity })
}

/// The DER of a key, whichever form it has; all of them are read again.
fn key_bytes(key: &PrivateKeyDer<'_>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(key.secret_der().to_vec())
}

pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = data_encoding::BASE64.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// Why a certificate or an account is not kept or not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// What stands in the record is whole but cannot be served.
    #[error(
        "the {kind} record of `{name}` cannot be used: {why}; have it issued anew with `endpoint cert renew {name}`"
    )]
    Invalid {
        /// Its kind.
        kind: Kind,
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Neither the newest nor the previous certificate of a name can be used.
    #[error("no certificate that is kept for `{name}` can be used: {why}")]
    Lost {
        /// The name.
        name: String,
        /// What is wrong with the newest.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was given cannot be kept.
    #[error("{0}")]
    Unfit(String),
}

const SEQUENCE: u8 = 0x30;
/// Certificates in a chain; clients follow no longer ones.
const MAX_CHAIN: usize = 10;
/// Bytes of a chain: every handshake carries them, and clients stop reading.
const MAX_CHAIN_BYTES: usize = 32 * 1024;
