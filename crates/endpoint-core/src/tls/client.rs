//! How is a dial set up?
//!
//! From what the caller expects of the server comes one rustls configuration per dial: which kind of
//! key it must show, which names go on the wire, and whether our own key is shown.
//!
//! Always true: something is expected, or it is said aloud that nothing is (`Learn…`); our key is
//! never offered beside an HTTP protocol to a server that is known by name; no resumption, no early
//! data, TLS 1.3 only.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use quinn_proto::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig, NoKeyLog, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, pem::PemObject},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_platform_verifier::Verifier;

use crate::{
    alpn::Alpn,
    identity::{Fingerprint, Identity},
};

use super::{
    TlsSetupError, Verdict, initial_suite, provider, raw_key,
    server_pin::{Rule, ServerKey},
};

/// What the server of a dial must prove.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// The raw key of this name.
    Pin(Fingerprint),
    /// An X.509 certificate for a name.
    Name {
        /// The DNS name or IP address, as dialled.
        name: String,
        /// Whose certificates are trusted.
        roots: Roots,
        /// The certificate's key, too. With [`Roots::Platform`] the pin replaces the chain and its
        /// dates, so that a self-signed certificate will do; with [`Roots::Given`] both must hold.
        pin: Option<Fingerprint>,
    },
    /// Any raw key; `Verdict::proven` tells which. Trusts nobody: the caller must decide.
    Learn,
    /// Any X.509 certificate under this name; `Verdict::proven` tells its key. Trusts nobody.
    LearnX509 {
        /// The DNS name or IP address to ask for.
        name: String,
    },
}

impl Expect {
    /// Whether the server is known by a name, and shows a certificate for it.
    fn is_named(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::LearnX509 { .. })
    }
}

/// Whose certificates a dial trusts.
#[derive(Clone, Default)]
pub enum Roots {
    /// Those that the platform trusts.
    #[default]
    Platform,
    /// These only.
    Given(GivenRoots),
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("Platform"),
            Self::Given(roots) => write!(f, "Given({} certificates)", roots.0.len()),
        }
    }
}

/// Certificate authorities out of a PEM text.
#[derive(Clone)]
pub struct GivenRoots(Arc<RootCertStore>);

impl GivenRoots {
    /// Takes every certificate of `pem`.
    ///
    /// # Errors
    /// A sentence, if `pem` holds no certificate or one that does not parse.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("no certificate stands in the PEM text; expected at least one".into());
        }
        Ok(Self(Arc::new(roots)))
    }
}

impl fmt::Debug for GivenRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenRoots({} certificates)", self.0.len())
    }
}

/// One dial, set up.
#[derive(Debug)]
pub(crate) struct Dial {
    /// For TLS over TCP; [`Dial::quic`] for QUIC.
    pub(crate) config: ClientConfig,
    /// What the verifier sees; read it when the handshake has ended, well or badly.
    pub(crate) verdict: Arc<Verdict>,
    /// The name to connect under: on the wire only where a certificate is expected.
    pub(crate) server_name: String,
}

impl Dial {
    /// The configuration for quinn.
    ///
    /// # Errors
    /// [`TlsSetupError::NoInitialSuite`] if the provider cannot speak QUIC.
    pub(crate) fn quic(&self) -> Result<Arc<QuicClientConfig>, TlsSetupError> {
        QuicClientConfig::with_initial(Arc::new(self.config.clone()), initial_suite()?)
            .map(Arc::new)
            .map_err(|_| TlsSetupError::NoInitialSuite)
    }
}

/// Sets up a dial that offers `alpns`. `identity` is our key: it is shown raw to a server of a pinned
/// or learnt raw key, and to a named one only if no HTTP protocol is offered.
///
/// # Errors
/// [`TlsSetupError`] if the roots cannot be used.
pub(crate) fn dial_config(
    expect: &Expect,
    identity: Option<&Identity>,
    alpns: &[Alpn],
) -> Result<Dial, TlsSetupError> {
    let verdict = Arc::new(Verdict::default());
    let key = identity.filter(|_| shows_key(expect, alpns)).map(raw_key::certified);
    let own_key = OwnKey { key, verdict: Arc::clone(&verdict) };
    let server_key = ServerKey::new(rule(expect)?, Arc::clone(&verdict));

    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsSetupError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(server_key))
        .with_client_cert_resolver(Arc::new(own_key));
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = expect.is_named();
    config.key_log = Arc::new(NoKeyLog);

    let server_name = match expect {
        Expect::Pin(pin) => raw_server_name(*pin),
        Expect::Learn => "unknown.peer.invalid".to_owned(),
        Expect::Name { name, .. } | Expect::LearnX509 { name } => name.clone(),
    };
    Ok(Dial { config, verdict, server_name })
}

/// Whether a dial shows our key, if it is given one: always to a server of a raw key; to one known by
/// name only if no HTTP protocol is offered. It may be anybody's web server, which would end the
/// handshake over a raw client key, or show it to whoever asks for logs.
pub(crate) fn shows_key(expect: &Expect, alpns: &[Alpn]) -> bool {
    !expect.is_named() || !alpns.iter().any(Alpn::is_http)
}

fn rule(expect: &Expect) -> Result<Rule, TlsSetupError> {
    Ok(match expect {
        Expect::Pin(pin) => Rule::RawPin(*pin),
        Expect::Learn => Rule::RawLearn,
        Expect::LearnX509 { .. } => Rule::X509Learn,
        Expect::Name { roots: Roots::Platform, pin: Some(pin), .. } => Rule::NameAndPin(*pin, None),
        Expect::Name { roots: Roots::Platform, pin: None, .. } => Rule::Name(platform()?),
        Expect::Name { roots: Roots::Given(roots), pin, .. } => {
            let chain = WebPkiServerVerifier::builder_with_provider(roots.0.clone(), provider())
                .build()
                .map_err(|error| TlsSetupError::Roots(error.to_string()))?;
            match pin {
                Some(pin) => Rule::NameAndPin(*pin, Some(chain)),
                None => Rule::Name(chain),
            }
        }
    })
}

/// The platform's verifier, made once: on some platforms it reads a hundred files.
fn platform() -> Result<Arc<Verifier>, TlsSetupError> {
    static PLATFORM: OnceLock<Arc<Verifier>> = OnceLock::new();
    if let Some(verifier) = PLATFORM.get() {
        return Ok(Arc::clone(verifier));
    }
    let made = Verifier::new(provider()).map_err(TlsSetupError::PlatformRoots)?;
    Ok(Arc::clone(PLATFORM.get_or_init(|| Arc::new(made))))
}

/// A name that no other key has, for rustls, which keeps things by name. It never goes on the wire.
fn raw_server_name(pin: Fingerprint) -> String {
    let label = data_encoding::BASE32_DNSSEC.encode(pin.as_bytes());
    format!("{label}.peer.invalid")
}

/// Shows our key when it is asked for, and notes that it was.
#[derive(Debug)]
struct OwnKey {
    key: Option<Arc<CertifiedKey>>,
    verdict: Arc<Verdict>,
}

impl ResolvesClientCert for OwnKey {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.verdict.note_asked();
        self.key.clone()
    }

    fn only_raw_public_keys(&self) -> bool {
        self.key.is_some()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
