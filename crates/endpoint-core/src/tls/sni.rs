//! Which certificate goes with the name that was asked for?
//!
//! rustls asks here after the choice has been made; both read the same table, in memory.

use std::sync::Arc;

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::certs::{CertTable, Served};

use super::hello::{Alert, normalized};

/// Looks certificates up by SNI (RFC 6066 §3).
#[derive(Debug)]
pub(crate) struct SniResolver(pub(crate) Arc<CertTable>);

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = match hello.server_name() {
            Some(name) => normalized(name.as_bytes()).ok()?,
            None => None,
        };
        certificate(&self.0, name.as_deref()).ok()
    }
}

/// The certificate under a name.
///
/// # Errors
/// [`Alert::UNRECOGNIZED_NAME`] if there is none, also where the name serves the raw key only.
pub(crate) fn certificate(
    table: &CertTable,
    name: Option<&str>,
) -> Result<Arc<CertifiedKey>, Alert> {
    match table.find(name) {
        Some(Served::X509(certificate)) => Ok(certificate),
        Some(Served::RawKey) | None => Err(Alert::UNRECOGNIZED_NAME),
    }
}
