//! Can what an authority has just issued be served?

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{Held, Kept, Origin, names};

impl Held {
    /// A certificate that stands in memory only, held against its key, its name and its end. Its generation
    /// is above all others.
    ///
    /// # Errors
    /// What is wrong with it.
    #[allow(dead_code, reason = "without ACME nothing is issued")]
    pub(crate) fn issued(
        name: &str,
        chain: &[CertificateDer<'static>],
        key: &Zeroizing<Vec<u8>>,
        origin: Origin,
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let names = chain.first().map(|leaf| names::of(leaf)).unwrap_or_default();
        let kept = Kept { names, origin, issued: now, chain: chain.to_vec(), key: key.clone() };
        let held = Self::of(name, kept, u64::MAX, provider)?;
        if now > held.loaded.validity.until {
            return Err(format!("the certificate ended on {}", held.loaded.validity.until));
        }
        Ok(held)
    }

    /// The digest of the leaf, which names it in other records.
    #[allow(dead_code, reason = "without ACME no other record names it")]
    pub(crate) fn leaf(&self) -> String {
        use sha2::{Digest, Sha256};
        let leaf = self.loaded.certified.cert.first();
        leaf.map_or_else(String::new, |leaf| data_encoding::HEXLOWER.encode(&Sha256::digest(leaf)))
    }
}
