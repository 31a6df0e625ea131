//! A QUIC client made of bytes: rustls gives the keys, everything else is said here (RFC 9000, RFC 9001).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use endpoint_tests::wire::Client;
use rustls::{
    Side,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{ClientConnection, KeyChange, Keys, Version},
};

use super::frames::{Reader, crypto, number, source_id};
use crate::raw::varint;

/// Packet number spaces, and the packets that carry them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Space {
    Initial = 0,
    Handshake = 1,
    Data = 2,
}

const SPACES: [Space; 3] = [Space::Initial, Space::Handshake, Space::Data];
/// Bytes of our connection ids.
const ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(4);

/// A transport parameter: its number and its value.
pub type Parameter = (u64, Vec<u8>);

/// How the client differs from a good one before the handshake.
pub struct Hello {
    pub parameters: Vec<Parameter>,
    pub alpn: Vec<&'static [u8]>,
    /// Changes the ClientHello's bytes.
    pub edit: fn(Vec<u8>) -> Vec<u8>,
}

impl Default for Hello {
    fn default() -> Self {
        let number = varint;
        let parameters = vec![
            (0x01, number(30_000)),
            (0x04, number(1 << 20)),
            (0x05, number(1 << 16)),
            (0x06, number(1 << 16)),
            (0x07, number(1 << 16)),
            (0x08, number(10)),
            (0x09, number(10)),
            (0x0f, ID.to_vec()),
        ];
        Self { parameters, alpn: vec![b"h3"], edit: |hello| hello }
    }
}

/// Our connection id.
pub const ID: [u8; ID_BYTES] = *b"attacker";
/// Numbers the ids that we give the server at first: it knows a connection by it.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Keys and numbers of one space.
#[derive(Default)]
struct Numbers {
    keys: Option<Keys>,
    next: u64,
    /// Bytes of CRYPTO sent, and received in order.
    sent: u64,
    read: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    received: BTreeSet<u64>,
    owes_ack: bool,
}

/// The client.
pub struct Quic {
    socket: UdpSocket,
    tls: ClientConnection,
    server_id: Vec<u8>,
    spaces: [Numbers; 3],
    edit: fn(Vec<u8>) -> Vec<u8>,
    /// Keys that we write with now.
    writing: Space,
    pub done: bool,
    /// Bidirectional streams that the server lets us open in all.
    pub streams: u64,
    /// The largest number of ours that the server acknowledged in 1-RTT.
    acked: Option<u64>,
    /// The server's close: its code, and whether it is the application's.
    pub closed: Option<(u64, bool)>,
    /// What NEW_CONNECTION_ID frames gave: sequence number, id, reset token.
    pub given: Vec<(u64, Vec<u8>, Vec<u8>)>,
}

impl Quic {
    /// Sends the ClientHello.
    pub fn begin(server: SocketAddr, hello: &Hello) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut parameters = Vec::new();
        for (id, value) in &hello.parameters {
            parameters.extend(varint(*id));
            parameters.extend(varint(value.len() as u64));
            parameters.extend_from_slice(value);
        }
        let config = Client::new(&hello.alpn).wants_x509().config();
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::new(config), Version::V1, name, parameters).unwrap();
        let first_id =
            (CONNECTIONS.fetch_add(1, Ordering::Relaxed) ^ 0xa77a_c4e7 << 32).to_be_bytes();
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
        let mut spaces: [Numbers; 3] = Default::default();
        spaces[0].keys = Some(suite.keys(&first_id, Side::Client, Version::V1));
        let mut quic = Self {
            socket,
            tls,
            server_id: first_id.to_vec(),
            spaces,
            edit: hello.edit,
            writing: Space::Initial,
            done: false,
            acked: None,
            streams: 8,
            closed: None,
            given: Vec::new(),
        };
        quic.write_tls();
        quic
    }

    /// A connection whose handshake the server confirmed.
    pub fn connect(server: SocketAddr) -> Self {
        Self::connect_with(server, &Hello::default())
    }

    /// The same with another hello.
    pub fn connect_with(server: SocketAddr, hello: &Hello) -> Self {
        // Nothing is sent again when a packet is lost, so a second try is a new connection.
        for _ in 0..3 {
            let mut quic = Self::begin(server, hello);
            if quic.until(|quic| quic.done) {
                return quic;
            }
        }
        panic!("no handshake");
    }

    /// Takes packets until `condition` holds or the server closes; whether it holds.
    pub fn until(&mut self, condition: impl Fn(&Self) -> bool) -> bool {
        self.within(PATIENCE, condition)
    }

    /// The same for so long.
    pub fn within(&mut self, patience: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let ends = Instant::now() + patience;
        while !condition(self) && self.closed.is_none() && Instant::now() < ends {
            self.receive();
        }
        condition(self)
    }

    /// The code that the server closes with.
    pub fn close(mut self) -> Option<(u64, bool)> {
        self.until(|_| false);
        self.closed
    }

    /// Whether the server still answers.
    pub fn lives(&mut self) -> bool {
        let ends = Instant::now() + 3 * PATIENCE;
        // Nothing is sent again by itself, and a packet may be lost.
        while self.closed.is_none() && Instant::now() < ends {
            let number = self.spaces[Space::Data as usize].next;
            self.send(Space::Data, &[1]);
            if self.within(Duration::from_millis(200), |quic| quic.acked >= Some(number)) {
                return true;
            }
        }
        false
    }

    /// Whether there are keys for this space.
    pub fn has(&self, space: Space) -> bool {
        self.spaces[space as usize].keys.is_some()
    }

    /// Sends a packet with these frames.
    pub fn send(&mut self, space: Space, frames: &[u8]) {
        self.send_with(space, frames, 0);
    }

    /// The same with bits of the first byte set that should not be.
    pub fn send_with(&mut self, space: Space, frames: &[u8], bits: u8) {
        let packet = self.packet(space, frames, bits);
        // A server that closed may have closed its port to us too.
        let _ = self.socket.send(&packet);
    }

    fn packet(&mut self, space: Space, frames: &[u8], bits: u8) -> Vec<u8> {
        let numbers = &mut self.spaces[space as usize];
        let number = numbers.next;
        numbers.next += 1;
        let mut payload = frames.to_vec();
        if space == Space::Initial && !frames.is_empty() {
            // RFC 9000 §14.1: PADDING up to 1200 bytes.
            payload.resize(payload.len().max(1_150), 0);
        }
        let mut packet = Vec::new();
        match space {
            Space::Data => {
                packet.push(0x43 | bits);
                packet.extend_from_slice(&self.server_id);
            }
            _ => {
                let kind = if space == Space::Initial { 0xc3 } else { 0xe3 };
                packet.push(kind | bits);
                packet.extend_from_slice(&1_u32.to_be_bytes());
                packet.push(u8::try_from(self.server_id.len()).unwrap());
                packet.extend_from_slice(&self.server_id);
                packet.push(u8::try_from(ID_BYTES).unwrap());
                packet.extend_from_slice(&ID);
                if space == Space::Initial {
                    packet.push(0);
                }
                let length = u16::try_from(4 + payload.len() + TAG_BYTES).unwrap();
                packet.extend_from_slice(&(length | 0x4000).to_be_bytes());
            }
        }
        let at = packet.len();
        packet.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        let keys = &numbers.keys.as_ref().unwrap().local;
        let tag = keys.packet.encrypt_in_place(number, &packet, &mut payload).unwrap();
        packet.extend_from_slice(&payload);
        packet.extend_from_slice(tag.as_ref());
        // A datagram with a bare Initial must be large too: what follows the packet is no packet.
        let (head, rest) = packet.split_at_mut(at);
        let (number, rest) = rest.split_at_mut(4);
        keys.header.encrypt_in_place(&rest[..16], &mut head[0], number).unwrap();
        if space == Space::Initial {
            packet.resize(packet.len().max(1_200), 0);
        }
        packet
    }

    /// Sends what TLS has to say, in the packets where it belongs.
    fn write_tls(&mut self) {
        loop {
            let mut bytes = Vec::new();
            let change = self.tls.write_hs(&mut bytes);
            let space = self.writing;
            if space == Space::Initial && self.spaces[0].sent == 0 {
                bytes = (self.edit)(bytes);
            }
            self.send_crypto(space, &bytes);
            match change {
                Some(KeyChange::Handshake { keys }) => {
                    self.spaces[1].keys = Some(keys);
                    self.writing = Space::Handshake;
                }
                Some(KeyChange::OneRtt { keys, .. }) => {
                    self.spaces[2].keys = Some(keys);
                    self.writing = Space::Data;
                }
                None if bytes.is_empty() => return,
                None => {}
            }
        }
    }

    /// Sends handshake bytes in CRYPTO frames, after those that were sent.
    pub fn send_crypto(&mut self, space: Space, bytes: &[u8]) {
        for piece in bytes.chunks(1_000) {
            let numbers = &mut self.spaces[space as usize];
            let frame = crypto(numbers.sent, piece);
            numbers.sent += piece.len() as u64;
            self.send(space, &frame);
        }
    }

    fn receive(&mut self) {
        let mut datagram = vec![0; 2048];
        let Ok(length) = self.socket.recv(&mut datagram) else { return };
        datagram.truncate(length);
        let mut rest = datagram.as_mut_slice();
        while let Some((space, number, frames, used)) = self.unprotected(rest) {
            if self.spaces[space as usize].received.insert(number) {
                self.take(space, &frames);
                // What follows in the datagram may need the keys that this gave.
                self.write_tls();
            }
            rest = rest.split_at_mut(used).1;
        }
        for space in SPACES {
            if std::mem::take(&mut self.spaces[space as usize].owes_ack) && self.has(space) {
                let ack = self.ack(space);
                self.send(space, &ack);
            }
        }
    }

    /// The next packet of a datagram: its space, number, frames, and length.
    fn unprotected(&mut self, bytes: &mut [u8]) -> Option<(Space, u64, Vec<u8>, usize)> {
        let first = *bytes.first()?;
        let (space, at, end) = if first & 0x80 == 0 {
            (Space::Data, 1 + ID_BYTES, bytes.len())
        } else {
            let mut at = 5;
            at += 1 + usize::from(*bytes.get(at)?);
            at += 1 + usize::from(*bytes.get(at)?);
            let space = match first >> 4 & 3 {
                0 => Space::Initial,
                2 => Space::Handshake,
                _ => return None,
            };
            if space == Space::Initial {
                let (token, used) = number(bytes.get(at..)?)?;
                at += used + usize::try_from(token).ok()?;
            }
            let (length, used) = number(bytes.get(at..)?)?;
            (space, at + used, at + used + usize::try_from(length).ok()?)
        };
        let from = (first & 0x80 != 0).then(|| source_id(bytes)).flatten();
        let keys = &self.spaces[space as usize].keys.as_ref()?.remote;
        let packet = bytes.get_mut(..end)?;
        let sample = packet.get(at + 4..at + 20)?.to_vec();
        let (head, rest) = packet.split_at_mut(at);
        keys.header.decrypt_in_place(&sample, &mut head[0], &mut rest[..4]).ok()?;
        let length = usize::from(packet[0] & 3) + 1;
        let cut = packet[at..at + length].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        // RFC 9000 §17.1: the number nearest to the next one that ends so.
        let next = self.spaces[space as usize].received.last().map_or(0, |largest| largest + 1);
        let window = 1_u64 << (8 * length);
        let near = (next & !(window - 1)) | cut;
        let candidates = [Some(near), near.checked_sub(window), near.checked_add(window)];
        let number = candidates.into_iter().flatten().min_by_key(|n| n.abs_diff(next))?;
        let (head, payload) = packet.split_at_mut(at + length);
        let frames = keys.packet.decrypt_in_place(number, head, payload).ok()?.to_vec();
        if let Some(id) = from {
            self.server_id = id;
        }
        Some((space, number, frames, end))
    }

    /// Acknowledges the newest run of packets.
    fn ack(&self, space: Space) -> Vec<u8> {
        let received = &self.spaces[space as usize].received;
        let largest = received.last().copied().unwrap_or_default();
        let run = (0..=largest).rev().take_while(|number| received.contains(number)).count();
        [vec![2], varint(largest), vec![0, 0], varint(run as u64 - 1)].concat()
    }

    fn take(&mut self, space: Space, frames: &[u8]) {
        let mut frames = Reader(frames);
        while let Some(kind) = frames.number() {
            self.spaces[space as usize].owes_ack |= !matches!(kind, 0 | 2 | 3 | 0x1c | 0x1d);
            match kind {
                0x06 => {
                    let (Some(offset), Some(bytes)) = (frames.number(), frames.bytes()) else {
                        return;
                    };
                    self.spaces[space as usize].waiting.insert(offset, bytes);
                    self.read_tls(space);
                }
                0x02 if space == Space::Data => {
                    self.acked = self.acked.max(number(frames.0).map(|(largest, _)| largest));
                    if frames.skip(kind).is_none() {
                        return;
                    }
                }
                0x12 => self.streams = frames.number().unwrap_or_default().max(self.streams),
                0x18 => {
                    let (sequence, _) = (frames.number(), frames.number());
                    let (Some(sequence), Some(id), Some(token)) =
                        (sequence, frames.short(), frames.some(16))
                    else {
                        return;
                    };
                    self.given.push((sequence, id, token));
                }
                0x1e => self.done = true,
                0x1c | 0x1d => {
                    self.closed = frames.number().map(|code| (code, kind == 0x1d));
                    return;
                }
                other => {
                    if frames.skip(other).is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn read_tls(&mut self, space: Space) {
        let numbers = &mut self.spaces[space as usize];
        while let Some((offset, bytes)) = numbers.waiting.pop_first() {
            if offset > numbers.read {
                numbers.waiting.insert(offset, bytes);
                return;
            }
            let seen = usize::try_from(numbers.read - offset).unwrap();
            let Some(fresh) = bytes.get(seen..).filter(|fresh| !fresh.is_empty()) else { continue };
            numbers.read += fresh.len() as u64;
            // An edited hello fails here; the server's close is what matters.
            let _ = self.tls.read_hs(fresh);
        }
    }
}
