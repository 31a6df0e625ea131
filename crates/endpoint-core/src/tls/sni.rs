//! Which certificate goes with the name that was asked for?
//!
//! rustls asks here after the choice has been made; both read the same table, in memory.

use std::sync::Arc;

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{certs::CertTable, facts::Reach};

use super::hello::{Alert, normalized};

/// Looks certificates up by SNI (RFC 6066 §3), those that connections of one reach may see.
#[derive(Debug)]
pub(crate) struct SniResolver(pub(crate) Arc<CertTable>, pub(crate) Reach);

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = match hello.server_name() {
            Some(name) => normalized(name.as_bytes()).ok()?,
            None => None,
        };
        certificate(&self.0, name.as_deref(), self.1).ok()
    }
}

/// Shows the certificate that answers a challenge, and no other.
#[derive(Debug)]
pub(crate) struct ChallengeResolver(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for ChallengeResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The certificate under a name, for a connection of that reach.
///
/// # Errors
/// [`Alert::UNRECOGNIZED_NAME`] if there is none, also where the name serves the raw key only
/// or the reach is not enough.
pub(crate) fn certificate(
    table: &CertTable,
    name: Option<&str>,
    reach: Reach,
) -> Result<Arc<CertifiedKey>, Alert> {
    let served = table.find(name);
    served.and_then(|served| served.certificate(reach)).ok_or(Alert::UNRECOGNIZED_NAME)
}
