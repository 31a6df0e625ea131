//! Does the certificate's authority say that it still stands, and may we say so for it?
//!
//! OCSP (RFC 6960): where the leaf names a responder, its answer is fetched, verified and sent along in the
//! handshake. Most public authorities ended OCSP in 2025; a leaf that names none is no fault.
//!
//! Always true: nothing is stapled that was not verified for this very leaf; a revocation is never stapled
//! and always told.

mod asn1;
mod error;
mod keep;
mod verify;

use der::{Decode, Encode, asn1::ObjectIdentifier};
use jiff::Timestamp;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;
use tracing::debug;
use x509_cert::{
    Certificate,
    ext::pkix::{AuthorityInfoAccessSyntax, name::GeneralName},
};

use self::asn1::{CertId, OcspRequest, Request, TbsRequest};
pub(crate) use self::{
    error::StapleError,
    keep::{Stapled, Stapler},
};
use super::ask::Web;

/// An answer that was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Staple {
    /// The answer in DER: what goes into [`CertifiedKey::ocsp`].
    pub(crate) response: Vec<u8>,
    /// Not to be shown from then on.
    pub(crate) until: Timestamp,
    /// When to ask again: at half of its life.
    pub(crate) refresh: Timestamp,
}

impl Staple {
    /// The certificate with this answer.
    pub(crate) fn on(&self, certified: &CertifiedKey) -> CertifiedKey {
        CertifiedKey { ocsp: Some(self.response.clone()), ..certified.clone() }
    }
}

/// Whether there is a responder to ask about the certificate.
pub(crate) fn has_responder(certified: &CertifiedKey) -> bool {
    let leaf = certified.cert.first().and_then(|leaf| Certificate::from_der(leaf).ok());
    leaf.is_some_and(|leaf| matches!(responder(&leaf), Ok(Some(_))))
}

/// For fuzzing: see `verify`.
pub(super) fn dates_unverified(answer: &[u8], now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    verify::dates_unverified(answer, now)
}

/// What is asked about a certificate, and of whom.
struct Question {
    responder: String,
    about: CertId,
    issuer: CertificateDer<'static>,
}

impl Question {
    /// `None`: the leaf names no responder.
    fn about(certified: &CertifiedKey) -> Result<Option<Self>, StapleError> {
        let garbled = |_| StapleError::Certificate;
        let leaf = certified.cert.first().ok_or(StapleError::Certificate)?;
        let leaf = Certificate::from_der(leaf).map_err(garbled)?;
        let Some(responder) = responder(&leaf)? else {
            debug!("OCSP is not offered by the CA");
            return Ok(None);
        };
        let issuer = certified.cert.get(1).ok_or(StapleError::NoIssuer)?;
        let parsed = Certificate::from_der(issuer).map_err(garbled)?;
        if parsed.tbs_certificate().subject() != leaf.tbs_certificate().issuer() {
            return Err(StapleError::NoIssuer);
        }
        let about = CertId::new(&leaf, &parsed).map_err(garbled)?;
        Ok(Some(Self { responder, about, issuer: issuer.clone() }))
    }

    fn request(&self) -> Result<Vec<u8>, StapleError> {
        let list = vec![Request { cert: self.about.clone() }];
        OcspRequest { tbs: TbsRequest { list } }.to_der().map_err(|_| StapleError::Certificate)
    }

    async fn ask(
        &self,
        web: &Web,
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<Staple, StapleError> {
        let kinds = ("application/ocsp-request", "application/ocsp-response");
        let answer = web.post(&self.responder, kinds, self.request()?).await;
        let answer = answer.map_err(StapleError::Unreachable)?;
        if answer.status() != 200 {
            let responder = self.responder.escape_debug();
            let why = format!("{responder} answered with status {}", answer.status());
            return Err(StapleError::Unreachable(why));
        }
        self.verify(answer.body(), provider, now)
    }

    fn verify(
        &self,
        answer: &[u8],
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<Staple, StapleError> {
        verify::verify(answer, &self.about, &self.issuer, provider, now)
    }
}

/// The first `http` URL under which the leaf names an OCSP responder.
fn responder(leaf: &Certificate) -> Result<Option<String>, StapleError> {
    let access = leaf.tbs_certificate().get_extension::<AuthorityInfoAccessSyntax>();
    let Some((_, access)) = access.map_err(|_| StapleError::Certificate)? else { return Ok(None) };
    let url = access.0.iter().find_map(|entry| match &entry.access_location {
        GeneralName::UniformResourceIdentifier(url) if entry.access_method == OCSP => {
            let url = url.as_str();
            url.starts_with("http://").then(|| url.to_owned())
        }
        _ => None,
    });
    Ok(url)
}

/// id-ad-ocsp (RFC 5280 §4.2.2.1).
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

#[cfg(test)]
mod tests;
