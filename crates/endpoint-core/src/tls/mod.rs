//! Who is on the other side, and which protocol do we speak?
//!
//! Step 3 of 6. Takes an admitted arrival and shakes hands; gives the facts of the link: profile,
//! protocol, server name, and the key that the other side proved to hold. One port serves raw-key
//! peers, peers with certificates and browsers, because the rustls configuration is chosen per
//! ClientHello: `hello` reads it, `choose` picks, `session` (QUIC) and `tcp` wait for it.
//! Not here: whether the key may do anything (`trust`).
//!
//! Always true: a key is reported only if its CertificateVerify was checked; an error in the choice
//! ends the handshake and never falls to a default; no ticket carries an identity; peers get an
//! alert and no text.

pub mod hello;

pub(crate) mod choose;
pub(crate) mod client;
mod client_key;
mod raw_key;
mod server;
mod server_pin;
mod session;
mod sni;
#[cfg(feature = "tcp")]
pub(crate) mod tcp;

use std::{
    any::Any,
    sync::{Arc, LazyLock},
};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    quic::Suite,
};

use crate::{
    alpn::Alpn,
    facts::{PeerKey, Profile},
    transport::Retirements,
};

pub use self::client::{GivenRoots, Roots};
pub(crate) use self::{
    choose::{AlpnClass, Offer},
    client::{Dial, Expect, dial_config, shows_key},
    server::{Choice, TcpMinimum, TlsServer},
    server_pin::Verdict,
};

/// The one crypto provider of this crate: aws-lc-rs, X25519MLKEM768 preferred, and of the suites
/// AES-128 with SHA-256, which QUIC begins with anyway (RFC 9001 §5.2). AES-256 brings SHA-384, for
/// which processors have no instructions: a tenth of a handshake. A client that puts it first, gets it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        let first = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.suite();
        // Stable: the others keep their order.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// The suite of Initial packets, fixed by RFC 9001 §5.2.
fn initial_suite() -> Result<Suite, TlsSetupError> {
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .ok_or(TlsSetupError::NoInitialSuite)
}

/// What `Connection::handshake_data` gives on QUIC.
pub(crate) struct QuicHandshake {
    pub(crate) handshake: Handshake,
    /// What the peer retires from now on.
    pub(crate) retirements: Arc<Retirements>,
}

/// What a finished handshake established, apart from the peer's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Handshake {
    /// How hands were shaken.
    pub(crate) profile: Profile,
    /// The protocol negotiated.
    pub(crate) alpn: Alpn,
    /// The name asked for, normalised; `None` if none was.
    pub(crate) server_name: Option<String>,
}

/// The key that the other side of a finished handshake proved, out of what quinn calls its
/// identity. Whether it is raw is known from the profile.
///
/// # Errors
/// [`PeerKeyError`] if the identity is of another type or form than the profile promises: such a
/// connection must end, it is not anonymous.
pub(crate) fn peer_key(
    profile: Profile,
    identity: Option<Box<dyn Any>>,
) -> Result<PeerKey, PeerKeyError> {
    let Some(identity) = identity else { return Ok(PeerKey::None) };
    let chain =
        identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| PeerKeyError::Foreign)?;
    proven_key(profile, &chain)
}

/// The same for the chain itself; an empty one is no key.
fn proven_key(profile: Profile, chain: &[CertificateDer<'_>]) -> Result<PeerKey, PeerKeyError> {
    let Some(shown) = chain.first() else { return Ok(PeerKey::None) };
    let kind = profile.client.ok_or(PeerKeyError::Unasked)?;
    let fingerprint =
        client_key::fingerprint_again(kind, shown).map_err(|_| PeerKeyError::Malformed)?;
    Ok(PeerKey::Proven(kind, fingerprint))
}

/// Why the identity of a finished handshake cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PeerKeyError {
    /// quinn reports an identity of another type than rustls makes.
    #[error("the connection reports an identity of an unknown type")]
    Foreign,
    /// The key is not of the form that the verifier lets through.
    #[error("the connection reports a key that is not of its profile's form")]
    Malformed,
    /// A key was shown on a profile that asks for none.
    #[error("the connection reports a key although its profile asks for none")]
    Unasked,
}

/// Why TLS cannot be set up.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TlsSetupError {
    /// The provider lacks the suite that QUIC begins with.
    #[error("the crypto provider has no TLS13_AES_128_GCM_SHA256, which QUIC begins with")]
    NoInitialSuite,
    /// The protocol is negotiated by the endpoint itself, never for a handler.
    #[error("`{0}` cannot have a handler: the endpoint answers it itself")]
    NotOffered(Alpn),
    /// The platform's certificate authorities could not be read.
    #[error("the platform's certificate authorities cannot be used: {0}; give a file instead")]
    PlatformRoots(rustls::Error),
    /// rustls refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Rustls(rustls::Error),
    /// The roots given cannot verify anything.
    #[error("the given certificate authorities cannot be used: {0}")]
    Roots(String),
    /// A protocol is offered twice.
    #[error("`{0}` is offered twice; a protocol has one handler")]
    Twice(Alpn),
}

#[cfg(test)]
mod tests;
