//! Does this answer prove that our certificate is good, now?
//!
//! Always true: an answer holds only under the issuer's own key, or under a key that the issuer certified
//! for signing OCSP answers (RFC 6960 §4.2.2.2); it is about the very certificate that was asked about.

use std::time::Duration;

use der::{Decode, Encode, Tag, Tagged, asn1::ObjectIdentifier};
use jiff::{SignedDuration, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{
    Staple, StapleError,
    asn1::{BasicResponse, CertId, CertStatus, OcspResponse, ResponseData, ResponseStatus, time},
};

/// Verifies an answer about the certificate that `about` names.
pub(super) fn verify(
    answer: &[u8],
    about: &CertId,
    issuer: &CertificateDer<'_>,
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<Staple, StapleError> {
    let basic = read(answer)?;
    check_signature(&basic, issuer, provider, now)?;
    let (until, refresh) = judge(&basic, |cert| cert.is(about), now)?;
    Ok(Staple { response: answer.to_vec(), until, refresh })
}

/// Until when an answer would hold and when it would be asked for again, if the signature were right and it
/// were about our certificate. For fuzzing alone: this way every parser is reached.
pub(super) fn dates_unverified(answer: &[u8], now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    judge(&read(answer).ok()?, |_| true, now).ok()
}

/// The signed answer, nothing of which is believed yet.
fn read(answer: &[u8]) -> Result<BasicResponse, StapleError> {
    let outer = OcspResponse::from_der(answer).map_err(|_| GARBLED)?;
    if outer.status != ResponseStatus::Successful {
        return Err(StapleError::NoAnswer(format!("{:?}", outer.status)));
    }
    let bytes = outer.bytes.filter(|bytes| bytes.kind == BASIC);
    let bytes = bytes.ok_or(StapleError::Garbled("it is no basic response"))?;
    let basic = BasicResponse::from_der(bytes.response.as_bytes()).map_err(|_| GARBLED)?;
    if basic.algorithm.tag() != Tag::Sequence {
        return Err(StapleError::Garbled("its algorithm is none"));
    }
    Ok(basic)
}

/// Until when an answer whose signature holds is good for our certificate, and when to ask again.
fn judge(
    basic: &BasicResponse,
    is_ours: impl Fn(&CertId) -> bool,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), StapleError> {
    let data: ResponseData = basic.tbs.decode_as().map_err(|_| GARBLED)?;
    if data.version.is_some_and(|version| version != 0) {
        return Err(StapleError::Garbled("it is of a later version"));
    }
    let single = data.responses.iter().find(|single| is_ours(&single.cert));
    let single = single.ok_or(StapleError::OtherCertificate)?;
    let extensions = data.extensions.iter().chain(&single.extensions).flatten();
    if extensions.clone().any(|extension| extension.critical) {
        return Err(StapleError::Garbled("it has a critical extension that is not known here"));
    }
    let from = time(single.this_update);
    let from = from.ok_or(StapleError::Garbled("its time cannot be read"))?;
    let until = single.next_update.and_then(time).ok_or(StapleError::NoEnd)?;
    // A responder's clock may be a little ahead of ours.
    if from.duration_since(now) > CLOCK_SLACK {
        return Err(StapleError::NotYet { from });
    }
    if now >= until || until <= from {
        return Err(StapleError::Stale { until });
    }
    match single.status().ok_or(StapleError::Garbled("its status cannot be read"))? {
        CertStatus::Good => {}
        CertStatus::Revoked(since) => return Err(StapleError::Revoked { since }),
        CertStatus::Unknown => return Err(StapleError::Unknown),
    }
    let half = until.duration_since(from) / 2;
    let refresh = from.checked_add(half).unwrap_or(until);
    Ok((until, refresh))
}

/// The issuer's own signature, or that of one of the certificates that came with the answer, if the issuer
/// made it a responder.
fn check_signature(
    basic: &BasicResponse,
    issuer: &CertificateDer<'_>,
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<(), StapleError> {
    if holds(basic, issuer, provider) {
        return Ok(());
    }
    for responder in basic.certs.iter().flatten().take(MAX_CERTIFICATES) {
        let Ok(responder) = responder.to_der() else { continue };
        let responder = CertificateDer::from(responder);
        if is_delegate(&responder, issuer, provider, now) && holds(basic, &responder, provider) {
            return Ok(());
        }
    }
    Err(StapleError::Signature)
}

/// Whether the signature over the answer is one of that certificate's key.
fn holds(basic: &BasicResponse, by: &CertificateDer<'_>, provider: &CryptoProvider) -> bool {
    let (Ok(signed), Ok(by), Some(signature)) =
        (basic.tbs.to_der(), EndEntityCert::try_from(by), basic.signature.as_bytes())
    else {
        return false;
    };
    let known = provider.signature_verification_algorithms.all;
    known
        .iter()
        .filter(|known| known.signature_alg_id().as_ref() == basic.algorithm.value())
        .any(|known| by.verify_signature(*known, &signed, signature).is_ok())
}

/// Whether the issuer itself certified that key for OCSP answers, and it is in date.
fn is_delegate(
    responder: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    provider: &CryptoProvider,
    now: Timestamp,
) -> bool {
    let (Ok(parsed), Ok(anchor)) =
        (EndEntityCert::try_from(responder), anchor_from_trusted_cert(issuer))
    else {
        return false;
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let known = provider.signature_verification_algorithms.all;
    let usage = KeyUsage::required(OCSP_SIGNING);
    parsed.verify_for_usage(known, &[anchor], &[], time, usage, None, None).is_ok()
}

const GARBLED: StapleError = StapleError::Garbled("it is not written as RFC 6960 says");
/// id-pkix-ocsp-basic (RFC 6960 §4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9, without tag and length.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// Of those that come with an answer; each costs a verification.
const MAX_CERTIFICATES: usize = 4;
const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(5);
