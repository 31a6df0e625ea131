//! A path between clients and a server that treats datagrams badly, by a seed: a relay on loopback that loses,
//! delays, damages and holds back, and behind which clients seem to move.
//!
//! It counts what passes before the server can know that an address is its client's, and keeps the first
//! datagrams of each client, to be sent once more. Congestion marks of IP are carried along (RFC 9000 §13.4).

mod packet;
mod socket;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use quinn::udp::EcnCodepoint;
use tokio::{
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, sleep_until},
};

use self::{
    packet::{Kind, kinds},
    socket::Socket,
};
use crate::chance::Chance;

/// What a path does to datagrams, each way.
#[derive(Clone, Debug, Default)]
pub struct Impairment {
    /// Of a thousand datagrams, how many are lost, damaged, come twice, or are overtaken.
    pub loss: u64,
    /// See [`Self::loss`].
    pub damage: u64,
    /// See [`Self::loss`].
    pub twice: u64,
    /// See [`Self::loss`].
    pub overtaken: u64,
    /// Datagrams in a row that are lost or damaged at the most; 0 says any number.
    pub burst: u64,
    /// Time on the way.
    pub delay: Duration,
    /// Numbers of the server's datagrams to each client, from 1, that are lost.
    pub of_server: Option<RangeInclusive<u64>>,
    /// Everything passes for the first time, nothing for the second, and so on.
    pub blackhole: Option<(Duration, Duration)>,
    /// When clients move, and how.
    pub moves: Option<Moves>,
    /// Whether everything that passes is marked: congestion experienced (RFC 3168).
    pub congested: bool,
}

/// How clients seem to move.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    /// To another address of 127.0.0.0/8; otherwise to another port.
    pub address: bool,
    /// When for the first time, from a client's first datagram.
    pub first: Duration,
    /// How often after that.
    pub every: Duration,
}

/// What became of datagrams so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Datagrams of clients.
    pub from_client: u64,
    /// Datagrams of the server.
    pub from_server: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Damaged.
    pub damaged: u64,
    /// Retry packets of the server (RFC 9000 §17.2.5).
    pub retries: u64,
    /// Datagrams of the server that can carry congestion marks (ECT or CE).
    pub ecn_of_server: u64,
    /// Times that a client moved.
    pub moved: u64,
    /// Bytes that the server sent for each hundred that it was sent, before it could know that the address is
    /// the client's: the most of any client at any time. RFC 9000 §8.1 allows 300.
    pub amplified: u64,
    /// Bytes that the server sent beyond three for one, as above.
    pub beyond: u64,
}

/// The path. Ends when dropped.
#[derive(Debug)]
pub struct Path {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    front: Socket,
    server: SocketAddr,
    seed: u64,
    impairment: Mutex<Impairment>,
    began: Instant,
    state: Mutex<State>,
    /// The next address that a client moves to: 127.0.1.n.
    address: AtomicU8,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    flows: BTreeMap<SocketAddr, Flow>,
    opened: u64,
    /// The first datagrams of each client in turn.
    captured: VecDeque<Vec<u8>>,
}

/// One client as the server sees it.
#[derive(Debug)]
struct Flow {
    back: Arc<Socket>,
    number: u64,
    tasks: Vec<AbortHandle>,
    up: Way,
    down: Way,
    heard: Instant,
    /// Bytes that the server was sent, and sent, while it could not know the address.
    unproven: Option<(u64, u64)>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Datagrams one way so far, and how many in a row have come to harm.
#[derive(Debug, Default)]
struct Way {
    count: u64,
    harmed: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Up,
    Down,
}

/// Datagrams kept for being sent once more.
const CAPTURED: usize = 64;

impl Path {
    /// A path to `server` on a free port of 127.0.0.1.
    pub fn to(server: SocketAddr, seed: u64, impairment: Impairment) -> Self {
        let shared = Arc::new(Shared {
            front: Socket::bind(Ipv4Addr::LOCALHOST.into()).expect("a free port"),
            server,
            seed,
            impairment: Mutex::new(impairment),
            began: Instant::now(),
            state: Mutex::default(),
            address: AtomicU8::new(1),
        });
        let task = tokio::spawn(Arc::clone(&shared).take_from_clients());
        Self { shared, task }
    }

    /// Where clients dial.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.front.addr()
    }

    /// What became of datagrams so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.state().tally
    }

    /// Treats datagrams otherwise from now on.
    pub fn treat(&self, impairment: Impairment) {
        *self.shared.impairment.lock().expect("a lock") = impairment;
    }

    /// Moves every client once.
    pub fn move_clients(&self, address: bool) {
        let clients: Vec<_> = self.shared.state().flows.keys().copied().collect();
        clients.into_iter().for_each(|client| self.shared.move_client(client, address));
    }

    /// Forgets clients of which nothing came for so long: they are gone.
    pub fn forget_idle(&self, silence: Duration) {
        self.shared.state().flows.retain(|_, flow| flow.heard.elapsed() < silence);
    }

    /// The first datagrams that clients sent.
    #[must_use]
    pub fn captured(&self) -> Vec<Vec<u8>> {
        self.shared.state().captured.iter().cloned().collect()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.state().flows.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a lock")
    }

    async fn take_from_clients(self: Arc<Self>) {
        loop {
            for (from, ecn, bytes) in self.front.receive().await {
                self.open(from);
                self.pass(Direction::Up, from, ecn, bytes);
            }
        }
    }

    async fn take_from_server(self: Arc<Self>, client: SocketAddr, back: Arc<Socket>) {
        loop {
            for (_, ecn, bytes) in back.receive().await {
                self.pass(Direction::Down, client, ecn, bytes);
            }
        }
    }

    /// Makes a flow of a client that is new.
    fn open(self: &Arc<Self>, client: SocketAddr) {
        let mut state = self.state();
        if state.flows.contains_key(&client) {
            return;
        }
        let Ok(back) = Socket::bind(Ipv4Addr::LOCALHOST.into()).map(Arc::new) else { return };
        let reader = Arc::clone(self).take_from_server(client, Arc::clone(&back));
        let mut tasks = vec![tokio::spawn(reader).abort_handle()];
        let moves = self.impairment.lock().expect("a lock").moves;
        if let Some(Moves { address, first, every }) = moves {
            let shared = Arc::clone(self);
            let mover = async move {
                sleep(first).await;
                loop {
                    shared.move_client(client, address);
                    sleep(every).await;
                }
            };
            tasks.push(tokio::spawn(mover).abort_handle());
        }
        state.opened += 1;
        let (number, heard) = (state.opened, Instant::now());
        let (up, down, unproven) = (Way::default(), Way::default(), Some((0, 0)));
        let flow = Flow { back, number, tasks, up, down, heard, unproven };
        state.flows.insert(client, flow);
    }

    fn move_client(self: &Arc<Self>, client: SocketAddr, address: bool) {
        let next = || Ipv4Addr::new(127, 0, 1, self.address.fetch_add(1, Ordering::SeqCst));
        let mut state = self.state();
        let Some(flow) = state.flows.get_mut(&client) else { return };
        let ip = match address {
            true => next().into(),
            false => flow.back.addr().ip(),
        };
        let Ok(back) = Socket::bind(ip).map(Arc::new) else { return };
        let reader = Arc::clone(self).take_from_server(client, Arc::clone(&back));
        let reader = tokio::spawn(reader).abort_handle();
        std::mem::replace(&mut flow.tasks[0], reader).abort();
        flow.back = back;
        state.tally.moved += 1;
    }

    /// Decides what becomes of a datagram, and sends it on when it is due.
    fn pass(
        self: &Arc<Self>,
        direction: Direction,
        client: SocketAddr,
        mut ecn: Option<EcnCodepoint>,
        mut bytes: Vec<u8>,
    ) {
        let impairment = self.impairment.lock().expect("a lock").clone();
        let mut state = self.state();
        let State { tally, flows, captured, .. } = &mut *state;
        let Some(flow) = flows.get_mut(&client) else { return };
        let way = if direction == Direction::Up { &mut flow.up } else { &mut flow.down };
        way.count += 1;
        let mut chance = Chance::of(&[self.seed, flow.number, direction as u64, way.count]);
        let may_harm = impairment.burst == 0 || way.harmed < impairment.burst;
        let dark = impairment.blackhole.is_some_and(|(light, dark)| {
            let at = self.began.elapsed().as_millis() % (light + dark).as_millis();
            at >= light.as_millis()
        });
        let numbered = direction == Direction::Down
            && impairment.of_server.as_ref().is_some_and(|range| range.contains(&way.count));
        let lost = dark || numbered || (may_harm && chance.happens(impairment.loss));
        let damaged = !lost && may_harm && chance.happens(impairment.damage);
        way.harmed = if lost || damaged { way.harmed + 1 } else { 0 };
        let packets = kinds(&bytes);
        match direction {
            Direction::Up => {
                tally.from_client += 1;
                flow.heard = Instant::now();
                if captured.len() < CAPTURED {
                    captured.push_back(bytes.clone());
                }
                if !lost && packets.contains(&Kind::Handshake) {
                    // RFC 9000 §8.1: only who has read the server's answer can write one.
                    flow.unproven = None;
                }
                if let Some((sent, _)) = flow.unproven.as_mut().filter(|_| !lost) {
                    *sent += bytes.len() as u64;
                }
            }
            Direction::Down => {
                tally.from_server += 1;
                tally.retries += u64::from(packets.contains(&Kind::Retry));
                tally.ecn_of_server += u64::from(ecn.is_some());
                if let Some((sent, answered)) = &mut flow.unproven {
                    *answered += bytes.len() as u64;
                    let hundredths = (*answered * 100).checked_div(*sent).unwrap_or(u64::MAX);
                    tally.amplified = tally.amplified.max(hundredths);
                    tally.beyond = tally.beyond.max(answered.saturating_sub(3 * *sent));
                }
            }
        }
        tally.lost += u64::from(lost);
        tally.damaged += u64::from(damaged);
        if lost {
            return;
        }
        if damaged {
            let at = chance.index(bytes.len());
            bytes[at] ^= 1 << chance.index(8);
        }
        if impairment.congested && ecn.is_some() {
            ecn = Some(EcnCodepoint::Ce);
        }
        let copies = 1 + usize::from(chance.happens(impairment.twice));
        let late = Duration::from_millis(chance.between(5, 30));
        let late = if chance.happens(impairment.overtaken) { late } else { Duration::ZERO };
        drop(state);
        for _ in 0..copies {
            self.send(direction, client, ecn, bytes.clone(), impairment.delay + late);
        }
    }

    fn send(
        self: &Arc<Self>,
        direction: Direction,
        client: SocketAddr,
        ecn: Option<EcnCodepoint>,
        bytes: Vec<u8>,
        delay: Duration,
    ) {
        let shared = Arc::clone(self);
        let due = Instant::now() + delay;
        let now = move || match direction {
            Direction::Down => shared.front.send(client, ecn, &bytes),
            Direction::Up => {
                let back = shared.state().flows.get(&client).map(|flow| Arc::clone(&flow.back));
                if let Some(back) = back {
                    back.send(shared.server, ecn, &bytes);
                }
            }
        };
        if delay.is_zero() {
            return now();
        }
        tokio::spawn(async move {
            sleep_until(due).await;
            now();
        });
    }
}
