//! One run: peers that are real endpoints, on a network that is made up, at a time that is made up.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Clock, ConnectError, Connection, Endpoint, Limits, LinkError,
    Target, endpoint::Held,
};
use endpoint_tests::{
    chance::Chance,
    node::{alpn, identity, noon},
};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    model::{HEAD, Model, Receiver},
    network::{Hijack, Net},
    plan::{Event, Plan, address},
};

/// A mistake that a run is made with, to see that it would be noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weakness {
    None,
    /// The handler's rule lets every proven key in.
    Open,
    /// A change of the set is not told to the endpoint.
    Deaf,
    /// Diallers take whichever key answers.
    Trusting,
    /// A handler never gives back what it was given.
    Leaky,
    /// No deadline and no idle timeout.
    Patient,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What must never be and was.
    pub broken: Vec<String>,
    /// Calls by how they ended: `ok`, or the kind of error.
    pub calls: BTreeMap<&'static str, usize>,
    /// Messages that handlers took.
    pub taken: usize,
    /// Depends on every datagram; what happened, where it was to be told.
    pub trace: (u64, Vec<String>),
}

/// Time that a dial may take: two handshakes and their first streams, as the limits below have it.
const DIAL: Duration = Duration::from_secs(20);
/// Time that a message may take, there and back.
const MESSAGE: Duration = Duration::from_secs(90);
const PORT: u16 = 4433;

/// Runs `plan`.
pub async fn run(plan: &Plan, weakness: Weakness, tells: bool) -> Outcome {
    let net = Net::new(plan.seed, plan.line, tells);
    let state = tempfile::tempdir().expect("a folder");
    let model = Model::default();
    let mut peers = Vec::new();
    for number in 0..plan.peers {
        peers.push(Peer::new(number, plan, &net, &model, weakness, state.path()).await);
    }
    let world =
        Arc::new(World { net, model, peers, weakness, seed: plan.seed, ends: Mutex::default() });
    let clocks = tokio::spawn(Arc::clone(&world).move_clocks());
    let began = Instant::now();
    let mut happening = JoinSet::new();
    for (number, (at, event)) in plan.events.iter().cloned().enumerate() {
        let world = Arc::clone(&world);
        happening.spawn(async move {
            sleep_until(began + Duration::from_millis(at)).await;
            world.net.tell(|| format!("{event:?}"));
            world.happen(number, event).await;
        });
    }
    while let Some(ended) = happening.join_next().await {
        if let Err(error) = ended {
            world.model.broken(format!("the run panicked: {error}"));
        }
    }
    world.clear().await;
    clocks.abort();
    let _ = clocks.await;
    let calls = std::mem::take(&mut *world.ends.lock().await);
    let (net, model) = (world.net.clone(), world.model.clone());
    drop(world);
    // Whatever a closed socket still has to do it does within three probe timeouts (RFC 9000 §10.2).
    sleep(Duration::from_secs(60)).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    if tasks > 0 {
        model.broken(format!("{tasks} tasks are left"));
    }
    if net.sockets() > 0 {
        model.broken(format!("{} sockets are left", net.sockets()));
    }
    let (broken, taken) = model.outcome();
    Outcome { broken, calls, taken, trace: net.trace() }
}

struct World {
    net: Net,
    model: Model,
    peers: Vec<Peer>,
    weakness: Weakness,
    seed: u64,
    ends: Mutex<BTreeMap<&'static str, usize>>,
}

struct Peer {
    number: usize,
    set: AuthorizedPeers,
    /// The keys in the set and when they expire; also serialises changes.
    lines: Mutex<BTreeMap<usize, Option<i64>>>,
    clock: Clock,
    /// `None` while it is away. Also serialises restarts.
    endpoint: Mutex<Option<Endpoint>>,
    make: Make,
}

/// What a peer is made of, again after a restart.
struct Make {
    net: Net,
    model: Model,
    weakness: Weakness,
    folder: std::path::PathBuf,
}

impl Peer {
    async fn new(
        number: usize,
        plan: &Plan,
        net: &Net,
        model: &Model,
        weakness: Weakness,
        state: &Path,
    ) -> Self {
        let folder = state.join(number.to_string());
        std::fs::create_dir(&folder).expect("a folder");
        let start = noon().as_second();
        let granted = plan.grants.iter().filter(|(server, ..)| *server == number);
        let lines: BTreeMap<_, _> =
            granted.map(|(_, client, until)| (*client, until.map(|s| start + s))).collect();
        for (client, until) in &lines {
            model.allow(key(number), key(*client), *until);
        }
        let peer = Self {
            number,
            set: AuthorizedPeers::from_text(&text(&lines)).expect("good lines"),
            lines: Mutex::new(lines),
            clock: Clock::manual(noon()),
            endpoint: Mutex::default(),
            make: Make { net: net.clone(), model: model.clone(), weakness, folder },
        };
        peer.bind(&mut *peer.endpoint.lock().await).await;
        peer
    }

    async fn bind(&self, endpoint: &mut Option<Endpoint>) {
        let Make { net, model, weakness, folder } = &self.make;
        let mut limits = Limits::default().idle_timeout(Duration::from_secs(10));
        limits = limits.keep_alive(Duration::from_secs(3)).udp_buffer_bytes(1 << 16);
        if *weakness == Weakness::Patient {
            let hour = Duration::from_secs(3_600);
            limits = limits.idle_timeout(hour).handshake_deadline(hour).keep_alive(hour);
        }
        let access = if *weakness == Weakness::Open { Access::Enroll } else { Access::default() };
        let receiver = Receiver {
            model: model.clone(),
            own: key(self.number),
            leaks: *weakness == Weakness::Leaky,
        };
        let host = address(self.number);
        *endpoint = Endpoint::builder(identity(seed_of(self.number)))
            .network(net.host(host))
            .listen((host, PORT).into())
            .authorized(self.set.clone())
            .clock(self.clock.clone())
            .limits(limits)
            .state_dir(folder)
            .handle(protocol(*weakness), access, receiver)
            .discover()
            .bind()
            .await
            .inspect_err(|error| model.broken(format!("a peer does not start: {error}")))
            .ok();
    }

    async fn here(&self) -> Option<Endpoint> {
        self.endpoint.lock().await.clone()
    }

    async fn change(&self, weakness: Weakness, lines: &BTreeMap<usize, Option<i64>>) {
        self.set.replace(&text(lines), self.clock.now()).expect("good lines");
        if weakness == Weakness::Deaf {
            return;
        }
        if let Some(endpoint) = self.here().await {
            endpoint.reload().await;
        }
    }
}

impl World {
    async fn happen(&self, number: usize, event: Event) {
        match event {
            Event::Call { from, to, streams, pause_ms } => {
                self.call(number, from, to, to, &streams, Duration::from_millis(pause_ms)).await;
            }
            Event::CallElsewhere { from, to, at } => {
                self.call(number, from, to, at, &[100], Duration::ZERO).await;
            }
            Event::Revoke { at, key: taken } => {
                let peer = &self.peers[at];
                let mut lines = peer.lines.lock().await;
                lines.remove(&taken);
                peer.change(self.weakness, &lines).await;
                self.model.forbid(key(at), key(taken));
            }
            Event::Add { at, key: added, seconds } => {
                let peer = &self.peers[at];
                let mut lines = peer.lines.lock().await;
                let until = seconds.map(|seconds| peer.clock.now().as_second() + seconds);
                // While the change is made both the old line and the new one may hold.
                self.model.allow(key(at), key(added), None);
                lines.insert(added, until);
                peer.change(self.weakness, &lines).await;
                self.model.allow(key(at), key(added), until);
                self.model.clock(key(at), &peer.clock);
            }
            Event::Kick { at, key: kicked } => {
                if let Some(endpoint) = self.peers[at].here().await {
                    let _ = endpoint.kick(&key(kicked));
                }
            }
            Event::Blackhole { one, other, ms } => {
                let (one, other) = (address(one), address(other));
                self.net.cut(one, other, true);
                sleep(Duration::from_millis(ms)).await;
                self.net.cut(one, other, false);
            }
            Event::Rebind { peer, address: moves } => self.net.rebind(address(peer), moves),
            Event::Restart { peer, crash, ms } => self.restart(peer, crash, ms).await,
            Event::Jump { peer, seconds } => {
                let peer = &self.peers[peer];
                peer.clock.advance(seconds);
                self.model.clock(key(peer.number), &peer.clock);
            }
            Event::Hijack { client, victim, impostor, ms } => {
                let (client, victim, impostor) =
                    (address(client), address(victim), address(impostor));
                let hijack = Hijack { client, victim, impostor };
                self.net.hijack(hijack, true);
                sleep(Duration::from_millis(ms)).await;
                self.net.hijack(hijack, false);
            }
            Event::Replay { datagrams } => self.net.replay(datagrams),
        }
    }

    async fn restart(&self, peer: usize, crash: bool, ms: u64) {
        let peer = &self.peers[peer];
        let mut place = peer.endpoint.lock().await;
        let Some(endpoint) = place.take() else { return };
        if crash {
            self.net.kill(address(peer.number));
            endpoint.close_now();
        } else {
            let began = Instant::now();
            endpoint.shutdown_within(Duration::from_secs(2)).await;
            if began.elapsed() > Duration::from_secs(3) {
                self.model.broken(format!("a shutdown took {:?}", began.elapsed()));
            }
            // What it leaves behind is not another's to receive.
            self.net.kill(address(peer.number));
        }
        drop(endpoint);
        sleep(Duration::from_millis(ms)).await;
        peer.bind(&mut place).await;
    }

    /// `from` dials where `at` is, expects the key of `to`, and sends.
    async fn call(
        &self,
        number: usize,
        from: usize,
        to: usize,
        at: usize,
        streams: &[usize],
        pause: Duration,
    ) {
        let Some(endpoint) = self.peers[from].here().await else { return self.count("away").await };
        let connection = match self.dial(&endpoint, to, at).await {
            Ok(connection) => connection,
            Err(kind) => return self.count(kind).await,
        };
        let shown = connection.peer_key().fingerprint();
        if shown != Some(key(to)) && self.weakness != Weakness::Trusting {
            self.model.broken(format!("{from} dialled {to} and was given {shown:?}"));
        }
        let mut chance = Chance::of(&[self.seed, number as u64]);
        for (index, length) in streams.iter().enumerate() {
            if index > 0 {
                sleep(pause).await;
            }
            let mut message = chance.number().to_le_bytes().to_vec();
            message.extend(key(to).hex().bytes().chain(key(from).hex().bytes()));
            message.extend(chance.bytes(*length));
            assert!(message.len() >= HEAD);
            let sent = timeout(MESSAGE, exchange(&connection, &message)).await;
            match sent {
                Err(_) => self.model.broken(format!("a message took more than {MESSAGE:?}")),
                Ok(Ok(back)) if back == message => self.count("ok").await,
                Ok(Ok(_)) => self.model.broken("what came back is not what was sent".to_owned()),
                Ok(Err(error)) => return self.count(kind_of_end(&error)).await,
            }
        }
    }

    /// Dials until there is an answer, at most three times.
    async fn dial(
        &self,
        endpoint: &Endpoint,
        to: usize,
        at: usize,
    ) -> Result<Connection, &'static str> {
        let mut last = "none";
        for _ in 0..3 {
            let began = Instant::now();
            let mut expected = key(to).hex();
            if self.weakness == Weakness::Trusting {
                let host = format!("{}:{PORT}", address(at)).parse().expect("a host");
                match endpoint.learn(&host).await {
                    Ok(learned) => expected = learned.hex(),
                    Err(_) => continue,
                }
            }
            let target: Target =
                format!("peer://{expected}@{}:{PORT}", address(at)).parse().expect("a target");
            let dialled = timeout(DIAL, endpoint.connect(&target, protocol(self.weakness))).await;
            self.net.tell(|| format!("dialled {to} for {:?}: {dialled:?}", began.elapsed()));
            match dialled {
                Err(_) => {
                    self.model.broken(format!("a dial took more than {DIAL:?}"));
                    return Err("late");
                }
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    let (kind, again) = kind_of_refusal(&error);
                    last = kind;
                    match again {
                        Some(wait) => sleep(wait).await,
                        None => break,
                    }
                }
            }
        }
        Err(last)
    }

    /// Everything that a connection cost is given back once it has ended; then the endpoints end too.
    async fn clear(&self) {
        sleep(if self.weakness == Weakness::Patient { MESSAGE } else { Duration::from_secs(45) })
            .await;
        for peer in &self.peers {
            let Some(endpoint) = peer.endpoint.lock().await.take() else { continue };
            let held = endpoint.held();
            if held != Held::default() {
                self.model.broken(format!("peer {} still holds {held:?}", peer.number));
            }
            endpoint.shutdown_within(Duration::from_secs(2)).await;
        }
    }

    /// Wall clocks go on with the time of the run.
    async fn move_clocks(self: Arc<Self>) {
        loop {
            sleep(Duration::from_secs(1)).await;
            for peer in &self.peers {
                peer.clock.advance(1);
                self.model.clock(key(peer.number), &peer.clock);
            }
        }
    }

    async fn count(&self, end: &'static str) {
        *self.ends.lock().await.entry(end).or_default() += 1;
    }
}

async fn exchange(connection: &Connection, message: &[u8]) -> Result<Vec<u8>, LinkError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(message).await?;
    send.finish().await?;
    recv.read_to_end(1 << 20).await
}

fn kind_of_end(error: &LinkError) -> &'static str {
    match error {
        LinkError::Closed(_) => "closed",
        LinkError::PeerRestarted => "restarted",
        LinkError::StreamReset(_) => "reset",
        LinkError::TimedOut => "silent",
        LinkError::Lost(_) => "lost",
        _ => "other end",
    }
}

/// What kind it is, and after how long another dial makes sense.
fn kind_of_refusal(error: &ConnectError) -> (&'static str, Option<Duration>) {
    let second = Some(Duration::from_secs(1));
    match error {
        ConnectError::NotAuthorized { .. } => ("not authorised", None),
        ConnectError::PeerChanged { .. } => ("another key", None),
        ConnectError::Overloaded { .. } => ("overloaded", second),
        ConnectError::RecentlyFailed { wait, .. } => ("failed lately", Some(*wait)),
        ConnectError::Timeout { .. } => ("no answer", second),
        ConnectError::Unreachable { .. } => ("unreachable", second),
        _ => ("other refusal", second),
    }
}

fn protocol(weakness: Weakness) -> Alpn {
    if weakness == Weakness::Open { Alpn::ENROLL_1 } else { alpn(b"sim/1") }
}

fn seed_of(peer: usize) -> u8 {
    u8::try_from(peer + 1).expect("few peers")
}

fn key(peer: usize) -> endpoint_core::Fingerprint {
    identity(seed_of(peer)).fingerprint()
}

/// The lines of `authorized_peers` for these keys.
fn text(lines: &BTreeMap<usize, Option<i64>>) -> String {
    let line = |(peer, until): (&usize, &Option<i64>)| {
        let options = until.map_or_else(String::new, |until| {
            let end = jiff::Timestamp::from_second(until).expect("a time");
            format!("expires=\"{end}\" ")
        });
        format!("{options}{}\n", key(*peer))
    };
    lines.iter().map(line).collect()
}
