//! The accepting side: one rustls configuration per carrier, profile and protocol.
//!
//! Always true: a configuration has one protocol, its own verifier and its own ticket store, so a
//! ticket resumes only where it came from (rustls compares the server name itself,
//! `server/hs.rs`, `can_resume`); profiles that ask for a key issue none and are TLS 1.3 only; early
//! data is off everywhere.

use std::{collections::HashMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::{
    NoKeyLog, ServerConfig, SupportedProtocolVersion,
    quic::Suite,
    server::{NoClientAuth, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::{
    alpn::Alpn,
    certs::{CertTable, challenges::Challenges},
    facts::{Carrier, KeyKind, Profile, Reach},
    identity::Identity,
    transport::RetirementRate,
};

use super::{
    Handshake, TlsSetupError,
    choose::{self, Offer},
    client_key::AnyClientKey,
    hello::{Alert, Hello},
    provider,
    raw_key::{self, RawKeyResolver},
    session::Choosing,
    sni::{self, ChallengeResolver, SniResolver},
};

/// The lowest TLS version taken over TCP from clients that show no key. QUIC is TLS 1.3 always.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum TcpMinimum {
    /// TLS 1.2 and up.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// How a handshake goes on: what it will establish, and the configuration for it.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) handshake: Handshake,
    pub(crate) config: Arc<ServerConfig>,
}

/// Shakes hands with everybody on one port.
pub(crate) struct TlsServer {
    raw_key: Arc<CertifiedKey>,
    certs: Arc<CertTable>,
    challenges: Arc<Challenges>,
    tcp_minimum: TcpMinimum,
    members: ArcSwap<Members>,
    initial: Suite,
    base: Arc<QuicServerConfig>,
}

impl TlsServer {
    /// Builds the configurations for `offers`, whose order is the server's preference.
    ///
    /// # Errors
    /// [`TlsSetupError`] if an offer stands there twice or may not be offered.
    pub(crate) fn new(
        identity: &Identity,
        certs: Arc<CertTable>,
        challenges: Arc<Challenges>,
        tcp_minimum: TcpMinimum,
        offers: &[Offer],
    ) -> Result<Arc<Self>, TlsSetupError> {
        let raw_key = raw_key::certified(identity);
        let initial = super::initial_suite()?;
        let blank = Profile { server: KeyKind::Raw, client: None };
        let blank = config(blank, None, &[&TLS13], Arc::new(RawKeyResolver(raw_key.clone())))?;
        let base = QuicServerConfig::with_initial(Arc::new(blank), initial)
            .map_err(|_| TlsSetupError::NoInitialSuite)?;
        let server = Self {
            raw_key,
            certs,
            challenges,
            tcp_minimum,
            members: ArcSwap::from_pointee(Members::default()),
            initial,
            base: Arc::new(base),
        };
        server.set_offers(offers)?;
        Ok(Arc::new(server))
    }

    /// Offers something else from the next handshake on. Tickets of what stays, stay good.
    ///
    /// # Errors
    /// [`TlsSetupError`] if an offer stands there twice or may not be offered; then nothing changes.
    pub(crate) fn set_offers(&self, offers: &[Offer]) -> Result<(), TlsSetupError> {
        let before = self.members.load();
        let mut members = Members { offers: offers.to_vec(), configs: HashMap::new() };
        for offer in offers {
            // Challenges have a profile of their own, without handlers (RFC 8737 §4).
            if offer.alpn == Alpn::ACME_TLS_1 {
                return Err(TlsSetupError::NotOffered(offer.alpn.clone()));
            }
            if offers.iter().filter(|other| other.alpn == offer.alpn).count() > 1 {
                return Err(TlsSetupError::Twice(offer.alpn.clone()));
            }
            let kept = before.offers.contains(offer);
            for profile in Profile::ALL {
                if !choose::may_negotiate(profile, offer) {
                    continue;
                }
                for carrier in [Carrier::Quic, Carrier::Tcp] {
                    if !offer.on(carrier) {
                        continue;
                    }
                    for reach in self.reaches(profile) {
                        let key = (carrier, profile, offer.alpn.clone(), *reach);
                        let made = match before.configs.get(&key).filter(|_| kept) {
                            Some(made) => Arc::clone(made),
                            None => Arc::new(self.config(carrier, profile, &offer.alpn, *reach)?),
                        };
                        members.configs.insert(key, made);
                    }
                }
            }
        }
        self.members.store(Arc::new(members));
        Ok(())
    }

    /// The configuration for quinn: it waits for the whole hello and then goes on as chosen, for
    /// connections of that reach, whose peers may retire connection ids at that rate.
    pub(crate) fn quic(
        self: &Arc<Self>,
        reach: Reach,
        retirements: RetirementRate,
    ) -> Arc<dyn quinn_proto::crypto::ServerConfig> {
        Arc::new(Choosing { server: Arc::clone(self), reach, retirements })
    }

    /// Where connections must come from to see something else there: their configurations are apart, and
    /// so are their tickets.
    fn reaches(&self, profile: Profile) -> &'static [Reach] {
        match profile.server == KeyKind::X509 && self.certs.has_loopback() {
            true => &[Reach::Everywhere, Reach::Loopback],
            false => &[Reach::Everywhere],
        }
    }

    /// Chooses how to go on with a hello. The one choice for QUIC and TCP.
    ///
    /// # Errors
    /// The alert to end the handshake with.
    pub(crate) fn choose(
        &self,
        hello: &Hello<'_>,
        carrier: Carrier,
        reach: Reach,
    ) -> Result<Choice, Alert> {
        if let Some(name) = choose::challenged(hello) {
            let answer = self.challenges.tls_alpn(name).ok_or(Alert::NO_APPLICATION_PROTOCOL)?;
            return challenge(name, answer, carrier);
        }
        let members = self.members.load();
        let (profile, offer) = choose::choose(&members.offers, hello, carrier)?;
        let reach = if self.reaches(profile).contains(&reach) { reach } else { Reach::Everywhere };
        if profile.server == KeyKind::X509 {
            sni::certificate(&self.certs, hello.server_name.as_deref(), reach)?;
        }
        let config = members
            .configs
            .get(&(carrier, profile, offer.alpn.clone(), reach))
            .map(Arc::clone)
            .ok_or(Alert::INTERNAL_ERROR)?;
        let handshake =
            Handshake { profile, alpn: offer.alpn.clone(), server_name: hello.server_name.clone() };
        Ok(Choice { handshake, config })
    }

    /// The answers to pending challenges.
    #[allow(dead_code, reason = "without TCP nobody waits for those of other processes")]
    pub(super) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Keys of Initial packets, and tags of Retry packets: the same whatever will be chosen.
    pub(super) fn base(&self) -> &QuicServerConfig {
        &self.base
    }

    /// The suite that protects Initial packets (RFC 9001 §5.2).
    pub(super) fn initial(&self) -> Suite {
        self.initial
    }

    fn config(
        &self,
        carrier: Carrier,
        profile: Profile,
        alpn: &Alpn,
        reach: Reach,
    ) -> Result<ServerConfig, TlsSetupError> {
        let resolver: Arc<dyn ResolvesServerCert> = match profile.server {
            KeyKind::Raw => Arc::new(RawKeyResolver(Arc::clone(&self.raw_key))),
            KeyKind::X509 => Arc::new(SniResolver(Arc::clone(&self.certs), reach)),
        };
        let both: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        let newest: &[&SupportedProtocolVersion] = &[&TLS13];
        let takes_tls12 = carrier == Carrier::Tcp
            && profile == Profile { server: KeyKind::X509, client: None }
            && self.tcp_minimum == TcpMinimum::Tls12;
        config(profile, Some(alpn), if takes_tls12 { both } else { newest }, resolver)
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("offers", &self.members.load().offers)
            .field("tcp_minimum", &self.tcp_minimum)
            .finish_non_exhaustive()
    }
}

/// What is offered, and a configuration for each way to shake hands on it.
#[derive(Default)]
struct Members {
    offers: Vec<Offer>,
    configs: HashMap<(Carrier, Profile, Alpn, Reach), Arc<ServerConfig>>,
}

/// How hands are shaken with an authority: its challenge's certificate, nothing asked, nothing to resume.
/// TLS 1.2 too over TCP, whatever the minimum is: authorities may speak it (RFC 8737 §3).
pub(super) fn challenge(
    name: &str,
    answer: Arc<CertifiedKey>,
    carrier: Carrier,
) -> Result<Choice, Alert> {
    let both: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let newest: &[&SupportedProtocolVersion] = &[&TLS13];
    let versions = if carrier == Carrier::Tcp { both } else { newest };
    let resolver = Arc::new(ChallengeResolver(answer));
    let alpn = Alpn::ACME_TLS_1;
    let mut config = config(choose::BROWSERS, Some(&alpn), versions, resolver)
        .map_err(|_| Alert::INTERNAL_ERROR)?;
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let server_name = Some(name.to_owned());
    let handshake = Handshake { profile: choose::BROWSERS, alpn, server_name };
    Ok(Choice { handshake, config: Arc::new(config) })
}

fn config(
    profile: Profile,
    alpn: Option<&Alpn>,
    versions: &[&'static SupportedProtocolVersion],
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsSetupError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsSetupError::Rustls)?;
    let mut config = match profile.client {
        None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
        Some(kind) => builder.with_client_cert_verifier(Arc::new(AnyClientKey::new(kind))),
    }
    .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.map(|alpn| alpn.as_bytes().to_vec()).into_iter().collect();
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog);
    if profile.asks() {
        // rustls copies the client's key from a ticket and asks no verifier: a revoked key would
        // resume.
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    } else {
        config.session_storage = ServerSessionMemoryCache::new(TICKETS);
    }
    Ok(config)
}

/// Sessions remembered per carrier, profile and protocol.
const TICKETS: usize = 1024;
