//! Which sockets and which transport parameters?
//!
//! Every limit of quinn is set here; none is left at its default by accident.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    BloomTokenLog, ConnectionId, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    ValidationTokenConfig, VarInt, congestion::CubicConfig,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Qlog,
    amplification::{Counted, Unproven},
    credit::INITIAL_STREAMS,
    kept::{Following, Kept},
    keys::ListenKeys,
    network::{Network, of_system},
    whereabouts::Whereabouts,
};
use crate::{
    config::Limits,
    facts::{Reach, is_loopback},
};

/// Unidirectional streams open to a peer: HTTP/3 wants three at once (RFC 9114 §6.2), and one to spare.
const UNI_STREAMS: u32 = 4;
/// Bytes of a hello that may wait for their turn; a post-quantum hello has about 1 400.
const CRYPTO_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes of datagrams that may wait for a slow reader.
const DATAGRAM_BUFFER_BYTES: usize = 64 * 1024;
/// First packets that may wait to be looked at.
const MAX_INCOMING: usize = 1024;
/// Bytes that all waiting arrivals may hold.
const INCOMING_BUFFER_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of one that waits, beside its first packet: the rest of its hello, and some that come too early.
const ONE_INCOMING_BUFFER_BYTES: u64 = 64 * 1024;
/// A Retry token comes back at once.
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(15);
/// An address that was a client's yesterday may be somebody else's.
const ADDRESS_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// One for the next connection, and one for the connection beside it.
const ADDRESS_TOKENS_SENT: u32 = 2;
/// What remembers the address tokens that were used, so that each is taken once. Within a token's life so many
/// fit; with more, some good ones are not believed.
const USED_TOKENS_BYTES: usize = 1024 * 1024;
const USED_TOKENS: u64 = 250_000;
/// Bytes that a connection may make us hold before its key is known to be authorised: ten thousand
/// strangers that fill their windows must not take all memory.
const STRANGERS_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes sent to it that may wait for its acknowledgements: 20 MB/s at a round trip of 100 ms.
const STRANGERS_SEND_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// UDP payload that passes every path of Ethernet size: 1500 less the IPv6 and UDP headers.
const ETHERNET_MTU: u16 = 1452;
/// UDP payload that every path of QUIC carries (RFC 9000 §14).
const LEAST_MTU: u16 = 1200;
/// How often a larger one is looked for, and how long not after one that was lost on the way.
const MTU_INTERVAL: Duration = Duration::from_secs(600);
const MTU_COOLDOWN: Duration = Duration::from_secs(60);
/// A search ends where the next step would gain less.
const MTU_STEP: u16 = 20;
/// RFC 9002 §6.1 and §6.2: when a packet is taken for lost, and the round trip before one was measured.
const PACKET_THRESHOLD: u32 = 3;
const TIME_THRESHOLD: f32 = 9.0 / 8.0;
pub(super) const INITIAL_RTT: Duration = Duration::from_millis(333);
/// For how long a connection is kept at the least that ends before its round trip was measured: three times the
/// timeout of a probe, which is the round trip and four times its variation, half of it (RFC 9000 §10.2, RFC 9002
/// §6.2). Most others are kept for less.
pub(crate) const CLOSING_PERIOD: Duration = INITIAL_RTT.saturating_mul(9);
/// RFC 9002 §7.6.1: lost probes after which a path is taken for new.
const PERSISTENT_CONGESTION: u32 = 3;

/// Binds a UDP socket with the buffers asked for. `[::]` takes IPv4 too.
pub(crate) fn bind_udp(
    address: SocketAddr,
    buffer_bytes: usize,
) -> io::Result<std::net::UdpSocket> {
    udp_socket(address, !address.ip().is_unspecified(), buffer_bytes)
}

fn udp_socket(
    address: SocketAddr,
    only_v6: bool,
    buffer_bytes: usize,
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // The kernel may give less than asked for; that costs throughput under load, not correctness.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// How connections are accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepting {
    /// For connections within this machine; what they may see is more.
    inside: ServerConfig,
    others: ServerConfig,
    limits: Limits,
    /// What goes to addresses that are not proven.
    counted: Arc<Counted>,
    /// Where traces go.
    qlog: Option<Arc<Qlog>>,
}

impl Accepting {
    /// For a connection of that reach from `remote`, what follows where it goes, and until when quinn keeps it:
    /// those are a part of its transport parameters, so each connection has its own copy of them.
    pub(crate) fn from(
        &self,
        remote: SocketAddr,
        reach: Reach,
        id: &ConnectionId,
    ) -> (Arc<ServerConfig>, Arc<Whereabouts>, Kept) {
        let mut config = match reach {
            Reach::Loopback => self.inside.clone(),
            Reach::Everywhere => self.others.clone(),
        };
        let window = strangers_window(&self.limits);
        let whereabouts = Arc::new(Whereabouts::new(remote, window));
        let mut transport = strangers_transport(&self.limits, is_loopback(remote.ip()));
        let (following, kept) = Following::new(Arc::clone(&whereabouts));
        transport.congestion_controller_factory(Arc::new(following));
        if let Some(qlog) = &self.qlog {
            qlog.trace(&mut transport, |_| format!("{id}_server"));
        }
        config.transport_config(Arc::new(transport));
        (Arc::new(config), whereabouts, kept)
    }

    /// Counts what goes to the address of `incoming` as long as nothing proves it (RFC 9000 §8.1).
    pub(crate) fn unproven(&self, incoming: &quinn::Incoming) -> Option<Unproven> {
        (!incoming.remote_address_validated())
            .then(|| self.counted.unproven(incoming.remote_address(), &incoming.orig_dst_cid()))
    }
}

/// The transport parameters of a dialled connection to `remote`, which keeps itself alive so that it
/// meets a stateless reset when the other side was restarted.
pub(crate) fn client_transport(
    limits: &Limits,
    remote: SocketAddr,
    qlog: Option<&Qlog>,
) -> Arc<TransportConfig> {
    let mut config = transport(limits, is_loopback(remote.ip()));
    config.keep_alive_interval(Some(limits.keep_alive));
    if let Some(qlog) = qlog {
        let port = remote.port();
        qlog.trace(&mut config, |number| format!("{}-{port}-{number}_client", remote.ip()));
    }
    Arc::new(config)
}

fn transport(limits: &Limits, loopback: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(INITIAL_STREAMS.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(limits.stream_window_bytes.into())
        .receive_window(limits.connection_window_bytes.into())
        .send_window(u64::from(limits.connection_window_bytes))
        .max_idle_timeout(Some(
            IdleTimeout::try_from(limits.idle_timeout)
                .unwrap_or_else(|_| IdleTimeout::from(VarInt::from_u32(u32::MAX))),
        ))
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .keep_alive_interval(None)
        .send_fairness(true)
        .packet_threshold(PACKET_THRESHOLD)
        .time_threshold(TIME_THRESHOLD)
        .initial_rtt(INITIAL_RTT)
        .persistent_congestion_threshold(PERSISTENT_CONGESTION)
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        // An extension that is still a draft; a peer that does not speak it has to cope anyway.
        .ack_frequency_config(None)
        .allow_spin(true)
        .min_mtu(LEAST_MTU)
        .initial_mtu(LEAST_MTU)
        .mtu_discovery_config(Some(mtu_discovery()))
        .pad_to_mtu(false)
        .enable_segmentation_offload(true);
    if loopback {
        // The path is known, so probing it would be waste: a fifth of a handshake's cost.
        config.initial_mtu(ETHERNET_MTU).mtu_discovery_config(None);
    }
    config
}

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config
        .interval(MTU_INTERVAL)
        .upper_bound(ETHERNET_MTU)
        .black_hole_cooldown(MTU_COOLDOWN)
        .minimum_change(MTU_STEP);
    config
}

/// How addresses are remembered: each token for a day, and once.
fn address_tokens() -> ValidationTokenConfig {
    let used = BloomTokenLog::new_expected_items(USED_TOKENS_BYTES, USED_TOKENS);
    let mut config = ValidationTokenConfig::default();
    config.lifetime(ADDRESS_TOKEN_LIFETIME).sent(ADDRESS_TOKENS_SENT).log(Arc::new(used));
    config
}

/// The transport parameters of accepted connections, until a permit widens them.
fn strangers_transport(limits: &Limits, loopback: bool) -> TransportConfig {
    let mut config = transport(limits, loopback);
    let most = |bytes: u32| limits.connection_window_bytes.min(bytes);
    config
        .receive_window(strangers_window(limits).into())
        .send_window(most(STRANGERS_SEND_WINDOW_BYTES).into());
    config
}

fn strangers_window(limits: &Limits) -> u32 {
    limits.connection_window_bytes.min(STRANGERS_WINDOW_BYTES)
}

/// A quinn endpoint that listens on `socket`, with what is seen from everywhere and from within.
pub(crate) fn server_endpoint(
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    seed: Option<[u8; 32]>,
    keys: &ListenKeys,
    [crypto, inside]: [Arc<dyn quinn_proto::crypto::ServerConfig>; 2],
    limits: &Limits,
    qlog: Option<Arc<Qlog>>,
) -> io::Result<(quinn::Endpoint, Accepting)> {
    let mut others = ServerConfig::with_crypto(crypto);
    others
        .transport_config(Arc::new(strangers_transport(limits, false)))
        .token_key(Arc::clone(&keys.token))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(ONE_INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES)
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME)
        .validation_token_config(address_tokens())
        .migration(true);
    let mut within = others.clone();
    within.crypto = inside;
    let mut config = keys.endpoint_config()?;
    config.rng_seed(seed);
    let counted = Counted::new(socket);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        config,
        Some(others.clone()),
        Arc::clone(&counted) as _,
        Arc::new(quinn::TokioRuntime),
    )?;
    Ok((endpoint, Accepting { inside: within, others, limits: limits.clone(), counted, qlog }))
}

/// A quinn endpoint that only dials, with keys of its own, over `network` or the system's.
pub(crate) fn client_endpoint(
    ipv6: bool,
    limits: &Limits,
    network: Option<&dyn Network>,
) -> io::Result<quinn::Endpoint> {
    let any: SocketAddr = if ipv6 {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = match network {
        Some(network) => network.bind(any)?,
        None => of_system(udp_socket(any, true, limits.udp_buffer_bytes)?)?,
    };
    let mut config = ListenKeys::random()?.endpoint_config()?;
    config.rng_seed(network.map(Network::seed));
    quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(quinn::TokioRuntime))
}
