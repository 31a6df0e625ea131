//! One run: peers that are real endpoints, on a network that is made up, at a time that is made up.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use endpoint_core::{Access, Alpn, AuthorizedPeers, Clock, Endpoint, Limits, endpoint::Held};
use endpoint_tests::node::{alpn, identity, noon};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    calls::MESSAGE,
    model::{ALWAYS, Line, Model, Receiver},
    network::{Hijack, Net},
    plan::{Event, Plan, Terms, address},
};

/// A mistake that a run is made with, to see that it would be noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weakness {
    None,
    /// The handler's rule lets every proven key in.
    Open,
    /// The set says nothing of networks.
    Anywhere,
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

/// When everything is given back. An acknowledgement that a path without connection held up for twelve seconds makes
/// a probe timeout of half a minute, and a connection lives on for three of these after its last word and is kept
/// for three more after its end (RFC 9000 §10.1, §10.2).
const GIVEN_BACK: Duration = Duration::from_secs(180);

/// Where every peer listens.
pub const PORT: u16 = 4433;

/// Runs `plan`.
pub async fn run(plan: &Plan, weakness: Weakness, tells: bool) -> Outcome {
    let net = Net::new(plan.seed, plan.line, tells);
    let state = tempfile::tempdir().expect("a folder");
    let model = Model::default();
    let mut peers = Vec::new();
    for number in 0..plan.peers {
        peers.push(Peer::new(number, plan, &net, &model, weakness, state.path()).await);
    }
    let (began, seed) = (Instant::now(), plan.seed);
    let world = World { net, model, peers, weakness, seed, began, ends: Mutex::default() };
    let world = Arc::new(world);
    let clocks = tokio::spawn(Arc::clone(&world).move_clocks());
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

pub struct World {
    pub net: Net,
    pub model: Model,
    pub peers: Vec<Peer>,
    pub weakness: Weakness,
    pub seed: u64,
    began: Instant,
    ends: Mutex<BTreeMap<&'static str, usize>>,
}

pub struct Peer {
    number: usize,
    set: AuthorizedPeers,
    /// The keys in the set and when they expire; also serialises changes.
    lines: Mutex<BTreeMap<usize, Line>>,
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
            granted.map(|(_, client, terms)| (*client, line(*terms, start))).collect();
        for (client, line) in &lines {
            model.allow(key(number), key(*client), *line);
        }
        let peer = Self {
            number,
            set: AuthorizedPeers::from_text(&text(&lines, weakness)).expect("good lines"),
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

    pub async fn here(&self) -> Option<Endpoint> {
        self.endpoint.lock().await.clone()
    }

    async fn change(&self, weakness: Weakness, lines: &BTreeMap<usize, Line>) {
        self.set.replace(&text(lines, weakness), self.clock.now()).expect("good lines");
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
            Event::Add { at, key: added, terms } => {
                let peer = &self.peers[at];
                let mut lines = peer.lines.lock().await;
                let line = line(terms, peer.clock.now().as_second());
                // While the change is made both the old line and the new one may hold.
                self.model.allow(key(at), key(added), ALWAYS);
                lines.insert(added, line);
                peer.change(self.weakness, &lines).await;
                self.model.allow(key(at), key(added), line);
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
            Event::Rebind { peer, address: moves } => {
                if self.net.rebind(address(peer), moves) && moves {
                    self.model.moved(key(peer), Some(self.now()));
                }
            }
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
        // It dials with a new socket, from where it was at first.
        self.model.moved(key(peer.number), None);
        sleep(Duration::from_millis(ms)).await;
        peer.bind(&mut place).await;
    }

    /// Everything that a connection cost is given back once it has ended; then the endpoints end too.
    async fn clear(&self) {
        sleep(if self.weakness == Weakness::Patient { MESSAGE } else { GIVEN_BACK }).await;
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

    /// Milliseconds of the run.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a short run")
    }

    pub async fn count(&self, end: &'static str) {
        *self.ends.lock().await.entry(end).or_default() += 1;
    }
}

pub fn protocol(weakness: Weakness) -> Alpn {
    if weakness == Weakness::Open { Alpn::ENROLL_1 } else { alpn(b"sim/1") }
}

fn seed_of(peer: usize) -> u8 {
    u8::try_from(peer + 1).expect("few peers")
}

pub fn key(peer: usize) -> endpoint_core::Fingerprint {
    identity(seed_of(peer)).fingerprint()
}

fn line(terms: Terms, now: i64) -> Line {
    Line { until: terms.seconds.map(|seconds| now + seconds), inside: terms.inside }
}

/// The lines of `authorized_peers` for these keys.
fn text(lines: &BTreeMap<usize, Line>, weakness: Weakness) -> String {
    let line = |(peer, line): (&usize, &Line)| {
        let mut options = Vec::new();
        if let Some(until) = line.until {
            let end = jiff::Timestamp::from_second(until).expect("a time");
            options.push(format!("expires=\"{end}\""));
        }
        if line.inside && weakness != Weakness::Anywhere {
            options.push("from=\"10.0.0.0/24\"".to_owned());
        }
        format!("{} {}", options.join(","), key(*peer)).trim_start().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}
