//! Is the server that answers the one that was dialled?
//!
//! The dialling side's verifiers. What is expected is compared inside the handshake, in
//! `verify_server_cert`, before a byte of the application is sent; the signature of
//! CertificateVerify is always checked.
//!
//! Always true: a pin is compared with the whole SPKI's digest; a key stands in the [`Verdict`] as
//! proven only after its signature was checked.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::{facts::KeyKind, identity::Fingerprint};

use super::{
    client_key::{self, refuse_tls12, verify_signature},
    provider,
};

/// What the verifier of one dial saw, for the error that the caller reports.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    proven: OnceLock<(KeyKind, Fingerprint)>,
    mismatch: OnceLock<Mismatch>,
    chain: OnceLock<String>,
    asked: AtomicBool,
}

impl Verdict {
    /// The key that the server proved to hold. `None` until its signature was checked. Whether the
    /// rest of the handshake succeeded, only the connection knows.
    pub(crate) fn proven(&self) -> Option<(KeyKind, Fingerprint)> {
        self.proven.get().copied()
    }

    /// Another key than the pinned one was shown.
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        self.mismatch.get().copied()
    }

    /// Why the certificate was not accepted, as the verifier of its chain says.
    pub(crate) fn chain_error(&self) -> Option<&str> {
        self.chain.get().map(String::as_str)
    }

    /// Whether the server asked for a client key.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn note_asked(&self) {
        self.asked.store(true, Ordering::Release);
    }
}

/// A pin and what was shown instead. The key shown is claimed, not proven: the handshake ended
/// before its signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mismatch {
    pub(crate) expected: Fingerprint,
    pub(crate) shown: Fingerprint,
}

/// What the server must show.
pub(super) enum Rule {
    /// A raw key of this name.
    RawPin(Fingerprint),
    /// Any raw key: it is reported, and the caller decides.
    RawLearn,
    /// Any certificate: its key is reported, and the caller decides.
    X509Learn,
    /// A certificate that this verifier accepts for the name.
    Name(Arc<dyn ServerCertVerifier>),
    /// A certificate for the name, of the pinned key; and with roots, a chain to them.
    NameAndPin(Fingerprint, Option<Arc<WebPkiServerVerifier>>),
}

/// Judges the server of one dial.
pub(super) struct ServerKey {
    rule: Rule,
    verdict: Arc<Verdict>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerKey {
    pub(super) fn new(rule: Rule, verdict: Arc<Verdict>) -> Self {
        Self { rule, verdict, algorithms: provider().signature_verification_algorithms }
    }

    fn kind(&self) -> KeyKind {
        match self.rule {
            Rule::RawPin(_) | Rule::RawLearn => KeyKind::Raw,
            Rule::X509Learn | Rule::Name(_) | Rule::NameAndPin(..) => KeyKind::X509,
        }
    }

    /// The name of the key shown. A public name's certificate may have any algorithm, RSA too.
    fn shown(&self, end_entity: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
        match self.kind() {
            KeyKind::Raw => client_key::fingerprint(KeyKind::Raw, end_entity),
            KeyKind::X509 => {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                Ok(Fingerprint::of_spki(certificate.subject_public_key_info().as_ref()))
            }
        }
    }

    fn compare(&self, expected: Fingerprint, shown: Fingerprint) -> Result<(), Error> {
        if shown == expected {
            return Ok(());
        }
        let _ = self.verdict.mismatch.set(Mismatch { expected, shown });
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

impl ServerCertVerifier for ServerKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.kind() == KeyKind::Raw && !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let shown = self.shown(end_entity)?;
        let chain = |verifier: &dyn ServerCertVerifier| {
            verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(|_| ())
        };
        let judged = match &self.rule {
            Rule::RawLearn | Rule::X509Learn => Ok(()),
            Rule::RawPin(pin) => self.compare(*pin, shown),
            Rule::Name(verifier) => chain(verifier.as_ref()),
            Rule::NameAndPin(pin, roots) => self
                .compare(*pin, shown)
                .and_then(|()| {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
                })
                .and_then(|()| match roots {
                    Some(roots) => chain(roots.as_ref()),
                    None => Ok(()),
                }),
        };
        judged.inspect_err(|error| {
            if self.verdict.mismatch().is_none() {
                let _ = self.verdict.chain.set(error.to_string());
            }
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = self.supported_verify_schemes();
        let valid =
            verify_signature(self.kind(), message, cert, signed, &schemes, &self.algorithms)?;
        let _ = self.verdict.proven.set((self.kind(), self.shown(cert)?));
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self.kind() {
            KeyKind::Raw => vec![SignatureScheme::ED25519],
            KeyKind::X509 => self.algorithms.supported_schemes(),
        }
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.kind() == KeyKind::Raw
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self.rule {
            Rule::RawPin(_) => "RawPin",
            Rule::RawLearn => "RawLearn",
            Rule::X509Learn => "X509Learn",
            Rule::Name(_) => "Name",
            Rule::NameAndPin(..) => "NameAndPin",
        };
        f.debug_tuple("ServerKey").field(&rule).finish()
    }
}
