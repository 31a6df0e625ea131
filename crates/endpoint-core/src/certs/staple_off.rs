//! Does the certificate's authority say that it still stands? Nobody is asked in a build without an HTTP
//! client.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};

use crate::store::Store;

/// An answer that nobody gave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Staple {}

impl Staple {
    pub(crate) fn on(&self, _: &CertifiedKey) -> CertifiedKey {
        match *self {}
    }
}

/// Nobody is asked.
pub(crate) fn has_responder(_: &CertifiedKey) -> bool {
    false
}

/// No answer is read.
pub(super) fn dates_unverified(_: &[u8], _: Timestamp) -> Option<(Timestamp, Timestamp)> {
    None
}

/// Asks nobody.
#[derive(Debug)]
pub(crate) struct Stapler;

/// Nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stapled {
    pub(crate) staple: Option<Staple>,
    pub(crate) again: Option<Timestamp>,
    pub(crate) fault: Option<String>,
    pub(crate) revoked: bool,
}

impl Stapler {
    pub(crate) fn new(_: Option<Arc<dyn Store>>, _: Arc<CryptoProvider>) -> Result<Self, String> {
        Ok(Self)
    }

    pub(crate) async fn look(&self, _: &CertifiedKey, _: Timestamp) -> Stapled {
        Stapled::default()
    }
}
