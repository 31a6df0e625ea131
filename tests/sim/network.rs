//! A network that is made up: hosts, address translation, and what it does to datagrams, by a seed.
//!
//! Time is tokio's, which the simulation pauses. What happens to a datagram depends on the seed, on its line
//! (from which host to which) and on how many went that way before, so a change in one place of a run leaves
//! the rest as it was.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use endpoint_core::endpoint::Network;
use endpoint_tests::chance::Chance;
use quinn::AsyncUdpSocket;
use tokio::time::Instant;

use crate::socket::{Due, Inbox, Socket};

/// What a line does to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Of a thousand datagrams, how many are lost, come twice, come damaged.
    pub loss: u64,
    pub twice: u64,
    pub damaged: u64,
    /// Time on the way, and how much more of it at the most: datagrams overtake each other.
    pub delay_ms: u64,
    pub more_ms: u64,
}

/// The network. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    seed: u64,
    line: Line,
    began: Instant,
    sockets: BTreeMap<SocketAddr, Arc<Inbox>>,
    /// Addresses that others see in place of a host's own.
    outside: BTreeMap<SocketAddr, SocketAddr>,
    /// Datagrams on each line so far.
    counts: BTreeMap<(IpAddr, IpAddr), u64>,
    next_port: u16,
    next_address: u8,
    number: u64,
    cut: Vec<(IpAddr, IpAddr)>,
    hijacks: Vec<Hijack>,
    /// The newest datagrams, as somebody on the way would have kept them.
    kept: VecDeque<Datagram>,
    trace: u64,
    said: Option<Vec<String>>,
}

/// For `client`, `victim`'s datagrams go to and come from `impostor`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hijack {
    pub client: IpAddr,
    pub victim: IpAddr,
    pub impostor: IpAddr,
}

#[derive(Clone, Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Net {
    pub fn new(seed: u64, line: Line, tells: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            line,
            began: Instant::now(),
            sockets: BTreeMap::new(),
            outside: BTreeMap::new(),
            counts: BTreeMap::new(),
            next_port: DIALLING,
            next_address: 0,
            number: 0,
            cut: Vec::new(),
            hijacks: Vec::new(),
            kept: VecDeque::new(),
            trace: 0,
            said: tells.then(Vec::new),
        })))
    }

    /// The network as `host` sees it.
    pub fn host(&self, host: IpAddr) -> Arc<dyn Network> {
        Arc::new(Host { net: self.clone(), host })
    }

    /// Nothing passes between the two any more, or everything again.
    pub fn cut(&self, one: IpAddr, other: IpAddr, cut: bool) {
        let mut state = self.state();
        match cut {
            true => state.cut.push((one, other)),
            false => {
                let place = state.cut.iter().position(|pair| *pair == (one, other));
                place.map(|place| state.cut.remove(place));
            }
        }
    }

    /// Begins or ends a hijack.
    pub fn hijack(&self, hijack: Hijack, on: bool) {
        let mut state = self.state();
        match on {
            true => state.hijacks.push(hijack),
            false => {
                let place = state.hijacks.iter().position(|other| *other == hijack);
                place.map(|place| state.hijacks.remove(place));
            }
        }
    }

    /// Others see the sockets with which `host` dials at other ports from now on, or at another address.
    /// What is sent to where they were is lost. Gives whether there were any.
    pub fn rebind(&self, host: IpAddr, address: bool) -> bool {
        let mut state = self.state();
        if address {
            state.next_address += 1;
        }
        let moved = IpAddr::from(Ipv4Addr::new(10, 9, 0, state.next_address));
        let dialling = |address: &SocketAddr| address.ip() == host && dials(*address);
        let sockets: Vec<_> = state.sockets.keys().copied().filter(dialling).collect();
        let any = !sockets.is_empty();
        for socket in sockets {
            state.next_port += 1;
            let before = state.outside.get(&socket).map_or(socket.ip(), SocketAddr::ip);
            let to = SocketAddr::new(if address { moved } else { before }, state.next_port);
            state.outside.insert(socket, to);
        }
        any
    }

    /// The host's process is gone at once: nothing that it had to say goes out, nothing comes in.
    pub fn kill(&self, host: IpAddr) {
        let mut state = self.state();
        state.sockets.retain(|address, inbox| {
            let gone = address.ip() == host;
            if gone {
                inbox.kill();
            }
            !gone
        });
    }

    /// Somebody sends the last `count` datagrams that he saw once more, from where they came.
    pub fn replay(&self, count: usize) {
        let mut state = self.state();
        let again: Vec<_> = state.kept.iter().rev().take(count).cloned().collect();
        for Datagram { from, to, bytes } in again {
            state.deliver(from, to, bytes, Duration::from_millis(1));
        }
    }

    /// Sockets that are open.
    pub fn sockets(&self) -> usize {
        self.state().sockets.len()
    }

    /// A number that every datagram so far has changed, and what happened, if it was to be told.
    pub fn trace(&self) -> (u64, Vec<String>) {
        let state = self.state();
        (state.trace, state.said.clone().unwrap_or_default())
    }

    /// Puts a line into the trace that the test has to say.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let mut state = self.state();
        let at = state.began.elapsed();
        if let Some(said) = &mut state.said {
            said.push(format!("{at:>12.3?} {}", what()));
        }
    }

    /// A datagram leaves `socket`.
    pub fn send(&self, socket: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.state().send(socket, to, bytes);
    }

    /// The socket at `address` is closed, unless the address is another's by now.
    pub fn close(&self, address: SocketAddr, inbox: &Arc<Inbox>) {
        // A lock that is poisoned belongs to a run that has failed.
        if let Ok(mut state) = self.0.lock()
            && state.sockets.get(&address).is_some_and(|there| Arc::ptr_eq(there, inbox))
        {
            state.sockets.remove(&address);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a lock")
    }
}

/// The first port of sockets that dial.
const DIALLING: u16 = 49_152;

fn dials(socket: SocketAddr) -> bool {
    socket.port() >= DIALLING
}

impl State {
    fn send(&mut self, socket: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut from = self.outside.get(&socket).copied().unwrap_or(socket);
        let inside = self.outside.iter().find(|(_, outside)| **outside == to);
        // Where a translated socket really is, nobody outside can reach it.
        let hidden = self.outside.contains_key(&to);
        let mut to = inside.map_or(to, |(inside, _)| *inside);
        let (client, server) = (socket.ip(), to.ip());
        for hijack in &self.hijacks {
            if (client, server) == (hijack.client, hijack.victim) {
                to.set_ip(hijack.impostor);
            } else if (client, server) == (hijack.impostor, hijack.client) && !dials(socket) {
                // It answers in the victim's place; what it dials by itself it dials as itself, or it would
                // have proven an address that rules may let in.
                from.set_ip(hijack.victim);
            }
        }
        let count = self.counts.entry((client, server)).or_default();
        *count += 1;
        let key = |address: IpAddr| match address {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(_) => 0,
        };
        let mut chance = Chance::of(&[self.seed, key(client), key(server), *count]);
        let cut = |(one, other): &(IpAddr, IpAddr)| {
            (*one, *other) == (client, server) || (*other, *one) == (client, server)
        };
        let line = self.line;
        let (lost, twice) = (chance.happens(line.loss), chance.happens(line.twice));
        let (damaged, delay) = (chance.happens(line.damaged), chance.between(0, line.more_ms));
        let lost = lost || hidden || self.cut.iter().any(cut) || bytes.len() > PATH_BYTES;
        let at = self.began.elapsed().as_millis();
        let event = [u64::try_from(at).unwrap_or(0), key(client), key(server), bytes.len() as u64];
        self.trace = Chance::of(&[self.trace, Chance::of(&event).number()]).number();
        if let Some(said) = &mut self.said {
            let fate = if lost { " lost" } else { "" };
            said.push(format!("{at:>9} ms {from} → {to} {} bytes{fate}", bytes.len()));
        }
        self.kept.push_back(Datagram { from, to, bytes: bytes.to_vec() });
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        if lost {
            return;
        }
        let mut bytes = bytes.to_vec();
        if damaged {
            let at = chance.index(bytes.len());
            bytes[at] ^= 1 << chance.index(8);
        }
        let delay = Duration::from_millis(line.delay_ms + delay);
        if twice {
            let later = Duration::from_millis(chance.between(0, 3_000));
            self.deliver(from, to, bytes.clone(), delay + later);
        }
        self.deliver(from, to, bytes, delay);
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, delay: Duration) {
        let Some(inbox) = self.sockets.get(&to) else { return };
        self.number += 1;
        let due = Due { at: Instant::now() + delay, number: self.number, from, bytes };
        inbox.push(due);
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// Largest UDP payload that passes.
const PATH_BYTES: usize = 1400;
/// Datagrams kept to be sent once more.
const KEPT: usize = 128;

#[derive(Debug)]
struct Host {
    net: Net,
    host: IpAddr,
}

impl Network for Host {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.net.state();
        let port = match address.port() {
            0 => {
                state.next_port += 1;
                state.next_port
            }
            port => port,
        };
        let local = SocketAddr::new(self.host, port);
        if state.sockets.contains_key(&local) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let inbox = Arc::new(Inbox::default());
        state.sockets.insert(local, Arc::clone(&inbox));
        Ok(Arc::new(Socket::new(self.net.clone(), local, inbox)))
    }

    fn seed(&self) -> [u8; 32] {
        let mut state = self.net.state();
        state.number += 1;
        let mut chance = Chance::of(&[state.seed, state.number]);
        std::array::from_fn(|_| chance.number().to_le_bytes()[0])
    }
}
