//! Why there is nothing to staple.

use jiff::Timestamp;

/// Why there is no answer that can be stapled, although the certificate names a responder.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum StapleError {
    #[error("the certificate cannot be read for OCSP; it is served without an OCSP answer")]
    Certificate,
    #[error("the OCSP answer cannot be read: {0}; it is asked for again later")]
    Garbled(&'static str),
    #[error("the OCSP responder gave no answer ({0}); it is asked again later")]
    NoAnswer(String),
    #[error("the OCSP answer names no end, so it cannot be kept; it is asked for again later")]
    NoEnd,
    #[error(
        "the certificate names an OCSP responder, but the chain lacks its issuer's certificate; add it to \
         the chain"
    )]
    NoIssuer,
    #[error("the OCSP answer begins on {from}; is the clock of this machine right?")]
    NotYet { from: Timestamp },
    #[error("the OCSP answer is about another certificate; it is asked for again later")]
    OtherCertificate,
    #[error(
        "the authority revoked the certificate on {since}; it is of no use any more: find out why, and have \
         a new one issued with a new key"
    )]
    Revoked { since: Timestamp },
    #[error(
        "the OCSP answer is signed neither by the issuer nor by whom the issuer named; it is asked for \
         again later"
    )]
    Signature,
    #[error("the OCSP answer ended on {until}; it is asked for again later")]
    Stale { until: Timestamp },
    #[error("the OCSP responder does not know the certificate; it is asked again later")]
    Unknown,
    #[error("the OCSP responder cannot be asked: {0}; it is asked again later")]
    Unreachable(String),
}

impl StapleError {
    /// Whether the certificate must be replaced whatever its dates say.
    pub(crate) fn is_revoked(&self) -> bool {
        matches!(self, Self::Revoked { .. })
    }
}
