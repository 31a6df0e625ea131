//! What do the sources of certificates make of any bytes? For fuzzing, which stands outside of this crate.
//!
//! Each entry begins behind the signature that guards a parser, if one does, so that all of it is reached.

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use zeroize::Zeroizing;

use super::{bundle, staple, tailscale, vault::Kept};

/// The parsers of hostile bytes.
#[derive(Clone, Copy, Debug)]
pub struct CertProbe;

impl CertProbe {
    /// A bundle's document, read and written again.
    #[must_use]
    pub fn bundle(document: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        bundle::reread(document)
    }

    /// A certificate as the store keeps it, read and written again.
    #[must_use]
    pub fn kept(record: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        Kept::read(record).ok()?.write().ok()
    }

    /// What tailscaled gives for `name`: the dates of a pair that is taken.
    #[must_use]
    pub fn pair(body: &[u8], name: &str, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let loaded = tailscale::read(body, name, now, &default_provider()).ok()?;
        Some((loaded.validity.from, loaded.validity.until))
    }

    /// An OCSP answer: until when it would hold, and when it would be asked for again.
    #[must_use]
    pub fn ocsp(answer: &[u8], now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        staple::dates_unverified(answer, now)
    }
}
