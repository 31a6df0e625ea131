//! Datagrams of strangers, as fast as one core sends them: many in one system call where they are of one size.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use endpoint_tests::{
    chance::Chance,
    wire::{any_server, provider},
};
use quinn::udp::{Transmit, UdpSocketState};
use rustls::{
    NamedGroup, Side,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{ClientConnection, Version},
};

/// Sockets of strangers, in turn.
pub struct Strangers {
    sockets: Vec<(UdpSocket, UdpSocketState)>,
    next: usize,
    /// Datagrams of one size that go in one call.
    batch: usize,
    pub sent: u64,
}

impl Strangers {
    /// `count` sockets, each at a loopback address of its own from `127.64.0.0` on.
    pub fn many(count: usize) -> Self {
        let address = |n: usize| {
            let [.., high, low] = u32::try_from(n).unwrap().to_be_bytes();
            IpAddr::from(Ipv4Addr::new(127, 64, high, low))
        };
        Self::at((0..count).map(address))
    }

    /// Sockets at these addresses.
    pub fn at(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let bind = |ip| {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let state = UdpSocketState::new((&socket).into()).unwrap();
            (socket, state)
        };
        let sockets: Vec<_> = addresses.map(bind).collect();
        let batch = sockets[0].1.max_gso_segments().min(32);
        Self { sockets, next: 0, batch, sent: 0 }
    }

    /// Sends a batch of datagrams of `length` bytes that `make` writes.
    pub fn send(&mut self, to: SocketAddr, length: usize, mut make: impl FnMut(&mut [u8])) {
        // A batch has to fit into one datagram of IP.
        let batch = self.batch.min(60_000 / length).max(1);
        let mut bytes = vec![0; length * batch];
        bytes.chunks_mut(length).for_each(&mut make);
        self.next = (self.next + 1) % self.sockets.len();
        let (socket, state) = &self.sockets[self.next];
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: &bytes,
            segment_size: (batch > 1).then_some(length),
            src_ip: None,
        };
        while let Err(error) = state.try_send(socket.into(), &transmit) {
            if error.kind() != std::io::ErrorKind::WouldBlock {
                break;
            }
            std::thread::yield_now();
        }
        self.sent += batch as u64;
    }
}

/// How often, and in how long.
pub struct Rate {
    pub sent: u64,
    pub took: Duration,
}

impl Rate {
    pub fn a_second(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }
}

/// Sends `count` datagrams of garbage: random bytes, headers with nothing behind them, real first packets and
/// packets of handshakes with some bits changed, versions that are not spoken, ends cut off.
pub fn garbage(to: SocketAddr, count: u64, real: &[Vec<u8>], seed: u64) -> Rate {
    let (mut strangers, mut chance, began) =
        (Strangers::many(64), Chance::new(seed), Instant::now());
    while strangers.sent < count {
        let kind = chance.index(6);
        let like = &real[chance.index(real.len())];
        let length = match kind {
            0 => 1 + chance.index(1_400),
            5 => 1 + chance.index(like.len()),
            2 | 3 => like.len(),
            _ => 1_200,
        };
        strangers.send(to, length, |datagram| {
            match kind {
                2 | 3 | 5 => datagram.copy_from_slice(&like[..length]),
                _ => fill(datagram, &mut chance),
            }
            match kind {
                // A first packet in all that can be seen of it.
                1 => datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
                // A version that nobody speaks.
                4 => datagram[..6].copy_from_slice(&[0xc3, 0x1a, 0x2a, 0x3a, 0x4a, 8]),
                2 => {
                    for _ in 0..=chance.index(8) {
                        let at = chance.index(length);
                        datagram[at] ^= 1 << chance.index(8);
                    }
                }
                // A real packet in the clothes of a Handshake packet.
                3 => {
                    datagram[0] = 0xe0 | (datagram[0] & 3);
                    let at = 6 + chance.index(length - 6);
                    datagram[at] ^= 0x55;
                }
                _ => {}
            }
        });
    }
    Rate { sent: strangers.sent, took: began.elapsed() }
}

fn fill(bytes: &mut [u8], chance: &mut Chance) {
    for part in bytes.chunks_mut(8) {
        let number = chance.number().to_le_bytes();
        part.copy_from_slice(&number[..part.len()]);
    }
}

/// Our connection id, which the hello names (RFC 9000 §18.2).
const OWN_ID: [u8; 8] = *b"attacker";

/// A ClientHello that fits one packet; the server cannot see that many connections begin with the same.
pub fn hello() -> Vec<u8> {
    let mut only = (*provider()).clone();
    only.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(only))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(any_server())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let parameters = [vec![0x0f, 8], OWN_ID.to_vec(), vec![0x04, 4, 0x80, 0x10, 0, 0]].concat();
    let name = "localhost".try_into().unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), Version::V1, name, parameters).unwrap();
    let mut bytes = Vec::new();
    let _ = tls.write_hs(&mut bytes);
    bytes
}

/// A first packet with this hello, to a connection id of its own, in `datagram` (RFC 9001 §5).
pub fn initial(id: u64, hello: &[u8], datagram: &mut [u8]) {
    let id = id.to_be_bytes();
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
    let keys = suite.keys(&id, Side::Client, Version::V1).local;
    let mut head = vec![0xc3, 0, 0, 0, 1, 8];
    head.extend(id);
    head.push(8);
    head.extend(OWN_ID);
    head.push(0);
    let at = head.len() + 2;
    let length = u16::try_from(datagram.len() - at).unwrap();
    head.extend((length | 0x4000).to_be_bytes());
    head.extend([0, 0, 0, 1]);
    // A CRYPTO frame from offset 0 on (RFC 9000 §19.6).
    let mut payload = vec![6, 0];
    payload.extend((u16::try_from(hello.len()).unwrap() | 0x4000).to_be_bytes());
    payload.extend_from_slice(hello);
    payload.resize(datagram.len() - head.len() - 16, 0);
    let tag = keys.packet.encrypt_in_place(1, &head, &mut payload).unwrap();
    let packet = [&head[..], &payload, tag.as_ref()].concat();
    datagram.copy_from_slice(&packet);
    let (head, rest) = datagram.split_at_mut(at);
    let (number, rest) = rest.split_at_mut(4);
    keys.header.encrypt_in_place(&rest[..16], &mut head[0], number).unwrap();
}

/// Sends `count` first packets, each the beginning of a handshake that never goes on.
pub fn half_open(to: SocketAddr, count: u64, mut strangers: Strangers) -> Rate {
    let (hello, began, mut id) = (hello(), Instant::now(), 0x00a7_7ac4_0000_0000_u64);
    // One at a time: each is another connection and, in turn, another address.
    strangers.batch = 1;
    while strangers.sent < count {
        id += 1;
        strangers.send(to, 1_200, |datagram| initial(id, &hello, datagram));
    }
    Rate { sent: strangers.sent, took: began.elapsed() }
}
