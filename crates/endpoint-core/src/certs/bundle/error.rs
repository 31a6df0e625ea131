//! Why a bundle is refused.

use jiff::Timestamp;

/// Why a bundle cannot be signed or served.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The chain is no chain of certificates.
    #[error("the chain in the bundle cannot be read: {0}; give PEM, leaf first")]
    Chain(String),
    /// The certificate has ended.
    #[error("the certificate in the bundle ended on {until}; renew it and sign a new bundle")]
    Expired {
        /// When.
        until: Timestamp,
    },
    /// The document has not the form of a bundle.
    #[error("this is no bundle: {what}; `endpoint bundle sign` makes one")]
    Form {
        /// What is amiss.
        what: &'static str,
    },
    /// The key cannot be used.
    #[error(
        "the key in the bundle cannot be used: {0}; expected PKCS#8 with ECDSA, Ed25519 or RSA"
    )]
    Key(String),
    /// The key is not PKCS#8.
    #[error(
        "the key is not PKCS#8; `openssl pkcs8 -topk8 -nocrypt -in KEY -out NEWKEY` rewrites it"
    )]
    KeyForm,
    /// The key does not belong to the leaf.
    #[error(
        "the key does not belong to the first certificate; give the leaf first, and the key it was \
         issued for"
    )]
    Mismatch,
    /// The names in the document are not those of the certificate.
    #[error("the bundle lists other names than its certificate ({leaf}); sign a new one")]
    Names {
        /// The certificate's names.
        leaf: String,
    },
    /// There is no certificate.
    #[error("there is no certificate; expected PEM with `-----BEGIN CERTIFICATE-----`, leaf first")]
    NoCertificate,
    /// There is no key.
    #[error(
        "there is no private key; expected PEM with `-----BEGIN PRIVATE KEY-----`, not encrypted"
    )]
    NoKey,
    /// The certificate has no DNS name.
    #[error("the certificate has no DNS name; have it issued for the names to be served")]
    NoNames,
    /// The end in the document is not the certificate's.
    #[error("the bundle says that it ends on {said}, its certificate on {leaf}; sign a new one")]
    NotAfter {
        /// In the document.
        said: Timestamp,
        /// In the certificate.
        leaf: Timestamp,
    },
    /// The certificate is not good for a name that is to be served.
    #[error(
        "the certificate in the bundle is not good for `{name}`; it has {has}; remove the name from the site"
    )]
    NotCovered {
        /// That name.
        name: String,
        /// The names it has.
        has: String,
    },
    /// The certificate begins later.
    #[error("the certificate in the bundle begins on {from}; is the clock of this machine right?")]
    NotYet {
        /// When.
        from: Timestamp,
    },
    /// The bundle is older than one that was seen.
    #[error(
        "the bundle has serial number {got}, lower than {seen}, which was seen already: an old bundle was \
         put back; sign a new one with a higher number"
    )]
    RolledBack {
        /// Its number.
        got: u64,
        /// The highest one seen.
        seen: u64,
    },
    /// The number was seen with another content.
    #[error(
        "the bundle has serial number {serial}, which was seen already with another content; sign it with a \
         higher number"
    )]
    SameSerial {
        /// That number.
        serial: u64,
    },
    /// The signature has not the form of one.
    #[error(
        "the signature is none of `endpoint bundle sign`; give the file of the same name and `.sig`"
    )]
    SignatureForm,
    /// The document is too long.
    #[error(
        "the bundle has {got} bytes, expected at most 1048576; leave certificates out of the chain"
    )]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The document is of another version.
    #[error("the bundle begins with `{}`, expected `endpoint-bundle v1`; is it from a newer endpoint?", .line.escape_debug())]
    Version {
        /// Its first line.
        line: String,
    },
    /// The document is not what was signed, or was signed by somebody else.
    #[error(
        "the signature does not hold under {signer}: the bundle was changed, or somebody else signed it; \
         fetch both files again, or ask for the signer's key"
    )]
    WrongSignature {
        /// The key it was held against.
        signer: String,
    },
}
