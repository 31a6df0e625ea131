//! In which bytes are an OCSP request and its answer written (RFC 6960 §4)?
//!
//! What is signed is kept as it came: nothing is written again to be verified.

use der::{
    Choice, Decode, Encode, Enumerated, Sequence, SliceReader, Tag, TagNumber, Tagged,
    asn1::{Any, BitString, GeneralizedTime, Int, ObjectIdentifier, OctetString},
};
use jiff::Timestamp;
use x509_cert::{Certificate, ext::Extensions, spki::AlgorithmIdentifierOwned};

/// Which certificate is meant: hashes of its issuer's name and key, and its serial number.
#[derive(Clone, Debug, Sequence)]
pub(super) struct CertId {
    hash: AlgorithmIdentifierOwned,
    issuer_name: OctetString,
    issuer_key: OctetString,
    serial: Int,
}

impl CertId {
    pub(super) fn new(leaf: &Certificate, issuer: &Certificate) -> der::Result<Self> {
        let (leaf, issuer) = (leaf.tbs_certificate(), issuer.tbs_certificate());
        let key = issuer.subject_public_key_info().subject_public_key.raw_bytes();
        Ok(Self {
            hash: AlgorithmIdentifierOwned { oid: SHA_1, parameters: Some(Any::null()) },
            issuer_name: OctetString::new(sha1(&leaf.issuer().to_der()?))?,
            issuer_key: OctetString::new(sha1(key))?,
            serial: Int::new(leaf.serial_number().as_bytes())?,
        })
    }

    /// Whether both mean the same certificate. The parameters of SHA-1 may be absent or null.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.hash.oid == other.hash.oid
            && self.issuer_name == other.issuer_name
            && self.issuer_key == other.issuer_key
            && self.serial == other.serial
    }
}

/// SHA-1 names an issuer here; nothing is trusted for it.
fn sha1(bytes: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}

/// A request about one certificate.
#[derive(Sequence)]
pub(super) struct OcspRequest {
    pub(super) tbs: TbsRequest,
}

#[derive(Sequence)]
pub(super) struct TbsRequest {
    pub(super) list: Vec<Request>,
}

#[derive(Sequence)]
pub(super) struct Request {
    pub(super) cert: CertId,
}

/// The outermost layer of an answer.
#[derive(Sequence)]
pub(super) struct OcspResponse {
    pub(super) status: ResponseStatus,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    pub(super) bytes: Option<ResponseBytes>,
}

/// Whether the responder answers at all.
#[derive(Clone, Copy, Debug, Enumerated, Eq, PartialEq)]
#[asn1(type = "ENUMERATED")]
#[repr(u8)]
pub(super) enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
pub(super) struct ResponseBytes {
    pub(super) kind: ObjectIdentifier,
    pub(super) response: OctetString,
}

/// A signed answer; `tbs` as it came.
#[derive(Sequence)]
pub(super) struct BasicResponse {
    pub(super) tbs: Any,
    pub(super) algorithm: Any,
    pub(super) signature: BitString,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    pub(super) certs: Option<Vec<Any>>,
}

/// What was signed.
#[derive(Sequence)]
pub(super) struct ResponseData {
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    pub(super) version: Option<u8>,
    /// Not used: whose signature it is, the signature says.
    pub(super) responder: ResponderId,
    pub(super) produced: GeneralizedTime,
    pub(super) responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", optional = "true", tag_mode = "EXPLICIT")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Choice)]
pub(super) enum ResponderId {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    Name(Any),
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    Key(OctetString),
}

/// What is said of one certificate.
#[derive(Sequence)]
pub(super) struct SingleResponse {
    pub(super) cert: CertId,
    pub(super) status: Any,
    pub(super) this_update: GeneralizedTime,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    pub(super) next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", optional = "true", tag_mode = "EXPLICIT")]
    pub(super) extensions: Option<Extensions>,
}

/// The status of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CertStatus {
    Good,
    /// Since when.
    Revoked(Timestamp),
    Unknown,
}

impl SingleResponse {
    pub(super) fn status(&self) -> Option<CertStatus> {
        match self.status.tag() {
            Tag::ContextSpecific { number: TagNumber(0), .. } => Some(CertStatus::Good),
            Tag::ContextSpecific { number: TagNumber(1), .. } => {
                let mut reader = SliceReader::new(self.status.value()).ok()?;
                let since = GeneralizedTime::decode(&mut reader).ok()?;
                Some(CertStatus::Revoked(time(since)?))
            }
            Tag::ContextSpecific { number: TagNumber(2), .. } => Some(CertStatus::Unknown),
            _ => None,
        }
    }
}

pub(super) fn time(time: GeneralizedTime) -> Option<Timestamp> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
    Timestamp::from_second(seconds).ok()
}

/// id-sha1 (RFC 3279 §2.2.1).
const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
