//! What must hold, whatever happens: kept apart from the endpoint, and asked at each byte of data.
//!
//! A peer is **allowed** from the moment before it is added until the moment after the change that took it out
//! has returned. Expiry counts from when the peer's clock has passed it, with the tick of a second. Where it may
//! send from one network only, what it begins to send after it has left it is not taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use endpoint_core::{
    Clock, Connection, Fingerprint, Handler, HandlerError, LinkError, Permit, RecvStream,
    SendStream,
};
use tokio::{task::JoinSet, time::Instant};

/// How late an expiry may be noticed: once a second, and the step of the clock.
const TICK: Duration = Duration::from_millis(1_100);
/// Bytes before the filling: when it was begun, for whom they are, from whom they are.
pub const HEAD: usize = 8 + 64 + 64;

/// What the runs of a process are judged by.
#[derive(Clone, Debug, Default)]
pub struct Model(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Who may send to whom: the receiver's key and the sender's.
    allowed: BTreeMap<(String, String), Grant>,
    /// Since when peers have been outside of the network in which all are at first.
    outside: BTreeMap<String, u64>,
    broken: Vec<String>,
    /// Messages that a handler took.
    taken: usize,
}

/// A line of the set.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub until: Option<i64>,
    pub inside: bool,
}

/// A line with no terms.
pub const ALWAYS: Line = Line { until: None, inside: false };

#[derive(Clone, Debug)]
struct Grant {
    until: Option<i64>,
    inside: bool,
    /// Since when the receiver's clock has been past it.
    past: Option<Instant>,
}

impl Model {
    /// From now on `sender` may send to `receiver`, until so many seconds of the epoch, from anywhere or not.
    pub fn allow(&self, receiver: Fingerprint, sender: Fingerprint, line: Line) {
        let key = (receiver.hex(), sender.hex());
        let Line { until, inside } = line;
        self.state().allowed.insert(key, Grant { until, inside, past: None });
    }

    /// From now on it may not.
    pub fn forbid(&self, receiver: Fingerprint, sender: Fingerprint) {
        self.state().allowed.remove(&(receiver.hex(), sender.hex()));
    }

    /// From this millisecond of the run on, `sender` is outside; `None`: it is inside again.
    pub fn moved(&self, sender: Fingerprint, since: Option<u64>) {
        let mut state = self.state();
        match since {
            Some(since) => drop(state.outside.entry(sender.hex()).or_insert(since)),
            None => drop(state.outside.remove(&sender.hex())),
        }
    }

    /// The clock of `receiver` was moved.
    pub fn clock(&self, receiver: Fingerprint, clock: &Clock) {
        let now = clock.now().as_second();
        let mut state = self.state();
        for ((of, _), grant) in &mut state.allowed {
            if *of == receiver.hex() {
                let past = grant.until.is_some_and(|until| now >= until);
                grant.past = past.then(|| grant.past.unwrap_or_else(Instant::now));
            }
        }
    }

    /// Notes something that must never be.
    pub fn broken(&self, what: String) {
        self.state().broken.push(what);
    }

    /// What was broken, and how many messages were taken.
    pub fn outcome(&self) -> (Vec<String>, usize) {
        let state = self.state();
        (state.broken.clone(), state.taken)
    }

    /// A handler of `receiver` has these bytes from a connection of the key `sender`.
    fn took(&self, receiver: Fingerprint, sender: Option<Fingerprint>, bytes: &[u8]) {
        let mut state = self.state();
        state.taken += 1;
        let Some(sender) = sender else {
            return state.broken.push("data of a connection without a key was taken".to_owned());
        };
        let grant = state.allowed.get(&(receiver.hex(), sender.hex())).cloned();
        let begun = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let left = state.outside.get(&sender.hex()).is_some_and(|since| begun > *since);
        if grant.as_ref().is_some_and(|grant| grant.inside) && left {
            state.broken.push(format!("data of {sender} from outside of its network was taken"));
        }
        let late = |past: Instant| past.elapsed() > TICK;
        match grant {
            None => {
                let what = format!("data of {sender}, which is not allowed, was taken");
                state.broken.push(what);
            }
            Some(Grant { past: Some(past), .. }) if late(past) => {
                let what = format!("data of {sender}, expired for {:?}, was taken", past.elapsed());
                state.broken.push(what);
            }
            Some(_) => {}
        }
        if bytes.get(8..72) != Some(receiver.hex().as_bytes()) {
            state.broken.push("data for a wrong identity was taken".to_owned());
        }
        if bytes.get(72..HEAD) != Some(sender.hex().as_bytes()) {
            state.broken.push("data was taken as another's".to_owned());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a lock")
    }
}

/// Takes messages and sends them back.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub model: Model,
    pub own: Fingerprint,
    /// The mistake of a weakened one: what it was given is never given back.
    pub leaks: bool,
}

impl Handler for Receiver {
    async fn serve(&self, connection: Connection, permit: Permit) -> Result<(), HandlerError> {
        if self.leaks {
            let kept = connection.clone();
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(kept);
            });
        }
        let sender = permit.fingerprint();
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi() => {
                    let (send, recv) = stream?;
                    streams.spawn(self.clone().answer(sender, send, recv));
                }
                Some(_) = streams.join_next() => {}
            }
        }
    }
}

impl Receiver {
    async fn answer(
        self,
        sender: Option<Fingerprint>,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<(), LinkError> {
        let message = recv.read_to_end(1 << 20).await?;
        // quinn's dialler opens a stream to learn of the yes; one without a word is no message.
        if !message.is_empty() {
            self.model.took(self.own, sender, &message);
        }
        send.write_all(&message).await?;
        send.finish().await
    }
}
