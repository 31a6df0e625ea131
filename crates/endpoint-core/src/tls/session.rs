//! How does quinn wait for the hello?
//!
//! quinn wants its TLS configuration before the first byte; this one hands out sessions that collect
//! CRYPTO bytes until the ClientHello is whole, choose, and are from then on the chosen session. A
//! post-quantum hello spans two packets, so waiting is the normal path.
//!
//! Legal because quinn asks a session for transport parameters only after it has written keys, and
//! gives CRYPTO bytes in order (quinn-proto, `connection/mod.rs`).
//!
//! Always true: before the choice a session answers nothing and holds at most one hello; a failed
//! choice is final; peers get an error code and no text.

use std::{any::Any, sync::Arc};

use quinn_proto::{
    ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        self, ExportKeyingMaterialError, KeyPair, Keys, PacketKey, Session, UnsupportedVersion,
        rustls::{HandshakeData, QuicServerConfig},
    },
    transport_parameters::TransportParameters,
};
use rustls::quic::{Suite, Version};
use tracing::debug;

use crate::{
    facts::{Carrier, Reach},
    transport::{RetirementRate, Retirements, counting, varint},
};

use super::{
    Choice, Handshake, QuicHandshake, TlsServer,
    hello::{self, Alert},
};

/// quinn's side of [`TlsServer`].
pub(super) struct Choosing {
    pub(super) server: Arc<TlsServer>,
    pub(super) reach: Reach,
    pub(super) retirements: RetirementRate,
}

impl crypto::ServerConfig for Choosing {
    fn initial_keys(
        &self,
        version: u32,
        destination: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.server.base().initial_keys(version, destination)
    }

    fn retry_tag(&self, version: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.server.base().retry_tag(version, original, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        parameters: &TransportParameters,
    ) -> Box<dyn Session> {
        Box::new(Waiting {
            initial: self.server.initial(),
            version,
            retirements: Retirements::new(self.retirements),
            keys_given: 0,
            state: State::Collecting(Box::new(Collecting {
                server: Arc::clone(&self.server),
                reach: self.reach,
                parameters: *parameters,
                bytes: Vec::new(),
            })),
        })
    }
}

/// A session that first waits for its hello.
struct Waiting {
    initial: Suite,
    version: u32,
    retirements: Arc<Retirements>,
    /// Those of the Handshake level come first, those of 1-RTT second.
    keys_given: u8,
    state: State,
}

enum State {
    /// The hello is not whole yet.
    Collecting(Box<Collecting>),
    /// Everything goes to the chosen session.
    Chosen { session: Box<dyn Session>, handshake: Handshake },
    /// The choice failed; quinn ends the connection.
    Failed,
}

/// What is kept until the choice, and dropped after it.
struct Collecting {
    server: Arc<TlsServer>,
    reach: Reach,
    parameters: TransportParameters,
    bytes: Vec<u8>,
}

impl Waiting {
    fn chosen(&self) -> Option<&dyn Session> {
        match &self.state {
            State::Chosen { session, .. } => Some(session.as_ref()),
            State::Collecting(_) | State::Failed => None,
        }
    }

    /// Collects; once the hello is whole, chooses and replays it.
    fn collect(&mut self, more: &[u8]) -> Result<bool, TransportError> {
        let State::Collecting(collecting) = &mut self.state else {
            return Err(refusal(Alert::INTERNAL_ERROR, "the choice has failed already"));
        };
        let Collecting { server, reach, parameters, bytes } = collecting.as_mut();
        bytes.extend_from_slice(more);
        match hello::whole_length(bytes) {
            Err(alert) => return Err(refusal(alert, "no hello, or one too large")),
            Ok(Some(length)) if bytes.len() >= length => {}
            Ok(_) => return Ok(false),
        }
        let hello = hello::parse(bytes).map_err(|alert| refusal(alert, "malformed hello"))?;
        let Choice { handshake, config } = server
            .choose(&hello, Carrier::Quic, *reach)
            .map_err(|alert| refusal(alert, "no profile for the hello"))?;
        if handshake.profile.asks() {
            *parameters = without_bidi_credit(parameters)?;
        }
        let config = QuicServerConfig::with_initial(config, self.initial)
            .map_err(|_| refusal(Alert::INTERNAL_ERROR, "no initial suite"))?;
        let mut session =
            crypto::ServerConfig::start_session(Arc::new(config), self.version, parameters);
        let ready = session.read_handshake(bytes).map_err(without_text)?;
        self.state = State::Chosen { session, handshake };
        Ok(ready)
    }
}

impl Session for Waiting {
    fn initial_keys(&self, destination: &ConnectionId, side: Side) -> Keys {
        if let Some(session) = self.chosen() {
            return session.initial_keys(destination, side);
        }
        let version = match self.version {
            0xff00_001d..=0xff00_0020 => Version::V1Draft,
            _ => Version::V1,
        };
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        let keys = self.initial.keys(destination, side, version);
        Keys {
            header: KeyPair {
                local: Box::new(keys.local.header),
                remote: Box::new(keys.remote.header),
            },
            packet: KeyPair {
                local: Box::new(keys.local.packet),
                remote: Box::new(keys.remote.packet),
            },
        }
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        match &self.state {
            State::Chosen { session, handshake } => {
                session.handshake_data()?;
                let retirements = Arc::clone(&self.retirements);
                Some(Box::new(QuicHandshake { handshake: handshake.clone(), retirements }))
            }
            State::Collecting(_) | State::Failed => None,
        }
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.chosen()?.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn PacketKey>)> {
        self.chosen()?.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.chosen()?.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.chosen().is_none_or(Session::is_handshaking)
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let ready = match &mut self.state {
            State::Chosen { session, .. } => session.read_handshake(bytes).map_err(without_text)?,
            State::Collecting(_) | State::Failed => match self.collect(bytes) {
                Ok(ready) => ready,
                Err(error) => {
                    self.state = State::Failed;
                    return Err(error);
                }
            },
        };
        self.agree()?;
        Ok(ready)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        match self.chosen() {
            Some(session) => session.transport_parameters().map_err(without_text),
            None => Ok(None),
        }
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        let mut keys = match &mut self.state {
            State::Chosen { session, .. } => session.write_handshake(bytes)?,
            State::Collecting(_) | State::Failed => return None,
        };
        if self.keys_given > 0 {
            keys.packet = counting(keys.packet, &self.retirements);
        }
        self.keys_given = self.keys_given.saturating_add(1);
        Some(keys)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        match &mut self.state {
            State::Chosen { session, .. } => {
                Some(counting(session.next_1rtt_keys()?, &self.retirements))
            }
            State::Collecting(_) | State::Failed => None,
        }
    }

    fn is_valid_retry(&self, original: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.chosen().is_some_and(|session| session.is_valid_retry(original, header, payload))
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.chosen()
            .ok_or(ExportKeyingMaterialError)?
            .export_keying_material(output, label, context)
    }
}

impl Waiting {
    /// Holds what rustls read and negotiated against what was chosen: both read the same hello, and
    /// a second hello (RFC 8446 §4.1.2) must not change the answer.
    fn agree(&self) -> Result<(), TransportError> {
        let State::Chosen { session, handshake } = &self.state else { return Ok(()) };
        let Some(data) = session.handshake_data() else { return Ok(()) };
        let differs = || refusal(Alert::ILLEGAL_PARAMETER, "two readings of one hello");
        let data = data.downcast::<HandshakeData>().map_err(|_| differs())?;
        let name = match &data.server_name {
            Some(name) => hello::normalized(name.as_bytes()).map_err(|_| differs())?,
            None => None,
        };
        let same_protocol = match &data.protocol {
            Some(protocol) => protocol == handshake.alpn.as_bytes(),
            None => session.is_handshaking(),
        };
        if name == handshake.server_name && same_protocol { Ok(()) } else { Err(differs()) }
    }
}

/// The same parameters with no credit for bidirectional streams, which the permit gives later: to
/// the client, MAX_STREAMS is the server's yes.
pub(super) fn without_bidi_credit(
    given: &TransportParameters,
) -> Result<TransportParameters, TransportError> {
    let mut encoded = Vec::new();
    given.write(&mut encoded);
    let mut kept = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_slice();
    while !rest.is_empty() {
        let (id, after_id) = varint(rest).ok_or_else(bad_parameters)?;
        let (length, content) = varint(after_id).ok_or_else(bad_parameters)?;
        let length = usize::try_from(length).map_err(|_| bad_parameters())?;
        let after = content.get(length..).ok_or_else(bad_parameters)?;
        if id != INITIAL_MAX_STREAMS_BIDI {
            let whole = rest.len() - after.len();
            kept.extend_from_slice(rest.get(..whole).ok_or_else(bad_parameters)?);
        }
        rest = after;
    }
    TransportParameters::read(Side::Client, &mut kept.as_slice()).map_err(|_| bad_parameters())
}

fn bad_parameters() -> TransportError {
    refusal(Alert::INTERNAL_ERROR, "transport parameters")
}

/// The error that ends a connection with `alert` (RFC 9001 §4.8).
fn refusal(alert: Alert, why: &'static str) -> TransportError {
    debug!(alert = alert.code(), why, "handshake refused");
    TransportError {
        code: TransportErrorCode::crypto(alert.code()),
        frame: None,
        reason: String::new(),
    }
}

/// Keeps the text of an error for our log, so that a peer learns the code alone.
fn without_text(error: TransportError) -> TransportError {
    let reason = error.reason.chars().take(MAX_LOGGED_CHARS).collect::<String>();
    debug!(code = ?error.code, reason = %reason.escape_debug(), "handshake failed");
    TransportError { reason: String::new(), ..error }
}

const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
const MAX_LOGGED_CHARS: usize = 64;
