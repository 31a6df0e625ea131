//! The door: arrivals wait here for their turn, and give back what they took.
//!
//! A thin shell around a [`Filter`]: it holds the lock, wakes those whose turn has come, and counts. What it
//! gives out are proofs that the next steps consume: [`Waiting`], [`Slot`], [`ConnectionSlot`].

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    filter::{Arrival, End, Filter, Id, Refusal, Who},
    penalty::{Category, Failure},
    source::Source,
    table::Table,
    unproven::{Unproven, UnprovenSlot},
};
use crate::{config::Limits, event::Counters, identity::Fingerprint};

/// How often those who wait are looked after.
const TICK: Duration = Duration::from_millis(50);
/// How often the rest is.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// Admits or refuses. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    unproven: Unproven,
    counters: Arc<Counters>,
    closed: AtomicBool,
    /// What has ended is so much that nobody comes in without proof; of the last question.
    full_of_lingering: AtomicBool,
    /// Told when somebody begins to wait.
    waits: Notify,
}

#[derive(Debug)]
struct State {
    filter: Box<dyn Filter>,
    waiting: HashMap<Id, oneshot::Sender<()>>,
}

impl Gate {
    pub(crate) fn new(limits: &Limits, counters: Arc<Counters>) -> Self {
        Self::with(Box::new(Table::new(limits)), limits, counters)
    }

    /// A gate that another rule keeps.
    pub(crate) fn with(filter: Box<dyn Filter>, limits: &Limits, counters: Arc<Counters>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State { filter, waiting: HashMap::new() }),
            unproven: Unproven::new(limits.unvalidated_in_flight),
            counters,
            closed: AtomicBool::new(false),
            full_of_lingering: AtomicBool::new(false),
            waits: Notify::new(),
        }))
    }

    /// From now on everything is refused: the endpoint is shutting down.
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// A handshake of an address that nobody has proven yet; `None`: ask for proof. Touches no table.
    pub(crate) fn unproven(&self, arrival: Arrival) -> Option<Slot> {
        if self.0.full_of_lingering.load(Ordering::Relaxed) {
            return None;
        }
        let slot = self.0.unproven.take(Source::of(arrival.address))?;
        let gate = Arc::clone(&self.0);
        Some(Slot(Held::Unproven { gate, arrival, _slot: slot }))
    }

    /// A proven address arrives.
    ///
    /// # Errors
    /// [`Refusal`], counted.
    pub(crate) fn arrive(&self, arrival: Arrival) -> Result<Waiting, Refusal> {
        let activity = arrival.activity.clone();
        let id = self.0.ask(|filter, now| filter.arrive(arrival, now))?;
        Ok(Waiting { ticket: Ticket::new(&self.0, id), activity })
    }

    /// Counts what came from `address`, has ended and is kept for long.
    pub(crate) fn lingers(&self, address: IpAddr) -> Closing {
        let id = self.0.tell(|filter, now| filter.lingers(address, now));
        Closing(Held::Proven(Ticket::new(&self.0, id)))
    }

    /// Takes other limits; gives how many connections without a grant that ended.
    pub(crate) fn set_limits(&self, limits: &Limits) -> usize {
        self.0.unproven.set_limit(limits.unvalidated_in_flight);
        self.0.tell(|filter, now| filter.set_limits(limits, now))
    }

    pub(crate) fn connections(&self) -> usize {
        self.0.state().filter.connections()
    }

    /// Handshakes and connections that have a slot now.
    pub(crate) fn held(&self) -> (usize, usize) {
        let state = self.0.state();
        let handshakes = state.filter.handshakes() + self.0.unproven.held();
        (handshakes, state.filter.connections())
    }

    /// Looks after those who wait, as long as the endpoint lives.
    pub(crate) fn keep(&self) -> impl Future<Output = ()> + Send + use<> {
        let gate = Arc::downgrade(&self.0);
        async move {
            let mut slow = Instant::now();
            loop {
                let Some(inner) = gate.upgrade() else { return };
                let now = Instant::now();
                let waiting = inner.look(now >= slow, now);
                if now >= slow {
                    slow = now + SLOW_TICK;
                }
                tokio::select! {
                    () = tokio::time::sleep(if waiting { TICK } else { SLOW_TICK }) => {}
                    () = inner.waits.notified() => {}
                }
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the filter something, after which it may be somebody's turn.
    fn tell<T>(&self, news: impl FnOnce(&mut dyn Filter, Instant) -> T) -> T {
        let now = Instant::now();
        let mut state = self.state();
        let answer = news(&mut *state.filter, now);
        self.after(&mut state, now);
        answer
    }

    /// Asks the filter, and counts what it refuses.
    fn ask<T>(
        &self,
        question: impl FnOnce(&mut dyn Filter, Instant) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let answer = self.tell(question);
        if let Err(refusal) = &answer {
            self.counters.refused.add(1);
            match refusal {
                Refusal::Full => self.counters.refused_full.add(1),
                Refusal::Penalised => self.counters.penalised.add(1),
            }
        }
        answer
    }

    /// After each question: those whose turn it is go on.
    fn after(&self, state: &mut State, now: Instant) {
        for id in state.filter.turns(now) {
            // Without a waiter it is gone, and its ticket says so soon.
            if let Some(wake) = state.waiting.remove(&id) {
                let _ = wake.send(());
            }
        }
        self.counters.gave_way.add(state.filter.gave_way());
        self.full_of_lingering.store(state.filter.is_full_of_lingering(), Ordering::Relaxed);
    }

    /// Whether somebody waits still.
    fn look(&self, slow: bool, now: Instant) -> bool {
        let mut state = self.state();
        if slow {
            state.filter.tick(now);
        }
        self.after(&mut state, now);
        state.filter.has_waiting()
    }

    fn wait_for_turn(&self, id: Id, bytes: usize) -> oneshot::Receiver<()> {
        let (wake, turn) = oneshot::channel();
        let now = Instant::now();
        let mut state = self.state();
        state.waiting.insert(id, wake);
        state.filter.ready(id, bytes, now);
        self.after(&mut state, now);
        let held = state.waiting.contains_key(&id);
        drop(state);
        if held {
            self.counters.held.add(1);
            self.waits.notify_one();
        }
        turn
    }
}

/// The right to be in the table; given back when dropped.
#[derive(Debug)]
struct Ticket {
    gate: Arc<Inner>,
    id: Id,
    end: End,
}

impl Ticket {
    fn new(gate: &Arc<Inner>, id: Id) -> Self {
        Self { gate: Arc::clone(gate), id, end: End::Fair }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let end = if thread::panicking() { End::Failed(Failure::Panic) } else { self.end };
        let now = Instant::now();
        let mut state = self.gate.state();
        state.waiting.remove(&self.id);
        state.filter.gone(self.id, end, now);
        self.gate.after(&mut state, now);
    }
}

/// An arrival that has no handshake yet.
#[derive(Debug)]
#[must_use = "dropped, it is gone"]
pub(crate) struct Waiting {
    ticket: Ticket,
    activity: crate::phase::Activity,
}

impl Waiting {
    /// Waits for a handshake, of which `bytes` have come and lie unread; `None` if it gave way to others.
    pub(crate) async fn turn(self, bytes: usize) -> Option<Slot> {
        let turn = self.ticket.gate.wait_for_turn(self.ticket.id, bytes);
        tokio::select! {
            biased;
            turn = turn => turn.ok()?,
            () = self.activity.gave_way() => return None,
        }
        Some(Slot(Held::Proven(self.ticket)))
    }

    /// It ends for a reason of its own.
    #[allow(dead_code, reason = "without TCP nothing fails before its handshake")]
    pub(crate) fn failed(mut self, failure: Failure) {
        self.ticket.end = End::Failed(failure);
    }
}

/// The right to one handshake; given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, the handshake is over"]
pub(crate) struct Slot(Held);

#[derive(Debug)]
enum Held {
    Unproven { gate: Arc<Inner>, arrival: Arrival, _slot: UnprovenSlot },
    Proven(Ticket),
}

impl Slot {
    /// The handshake is done, which proves the address: from now on it is a connection, if there is room.
    ///
    /// # Errors
    /// [`Refusal`], counted.
    pub(crate) fn connected(self, who: Who) -> Result<ConnectionSlot, Refusal> {
        match self.0 {
            Held::Proven(ticket) => {
                ticket.gate.ask(|filter, now| filter.connected(ticket.id, who, now))?;
                Ok(ConnectionSlot(ticket))
            }
            Held::Unproven { gate, arrival, .. } => {
                let id = gate.ask(|filter, now| filter.proven(arrival, who, now))?;
                Ok(ConnectionSlot(Ticket::new(&gate, id)))
            }
        }
    }

    /// It has failed for a reason of its own, which is booked if its address is proven, and is gone.
    #[allow(dead_code, reason = "over QUIC it lingers")]
    pub(crate) fn failed(self, failure: Failure) {
        if let Held::Proven(mut ticket) = self.0 {
            ticket.end = End::Failed(failure);
        }
    }

    /// The handshake is over, if by a fault of its own by `failure`, which is booked if its address is proven.
    pub(crate) fn closing(self, failure: Option<Failure>) -> Closing {
        if let Held::Proven(ticket) = &self.0 {
            ticket.gate.tell(|filter, now| filter.closing(ticket.id, failure, now));
        }
        Closing(self.0)
    }
}

/// What has ended and is still in memory; until this is dropped its address may have one handshake less, and
/// nobody else.
#[derive(Debug)]
#[must_use = "dropped, it counts no more"]
pub(crate) struct Closing(#[allow(dead_code, reason = "held for its drop")] Held);

/// The right to one connection; given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, the connection is over"]
pub(crate) struct ConnectionSlot(Ticket);

impl ConnectionSlot {
    /// A peer with this key was authorised on it.
    pub(crate) fn authorised(&self, key: Fingerprint) {
        self.0.gate.state().filter.authorised(self.0.id, key, Instant::now());
    }

    /// Its key has no grant.
    pub(crate) fn key_refused(&self) {
        self.0.gate.state().filter.failed(self.0.id, Failure::Key, Instant::now());
    }

    /// Whether keys without a grant were shown too often from its address.
    pub(crate) fn is_banned_for_keys(&self) -> bool {
        let state = self.0.gate.state();
        state.filter.is_banned(self.0.id, Category::Key, Instant::now())
    }
}
