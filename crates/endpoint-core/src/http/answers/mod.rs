//! How many bytes of answers wait for their clients, in all?
//!
//! Every piece of a body that a version of HTTP was given and its client has not taken is charged here: to
//! its answer, to the [`Account`] of its connection, to the sum. Three rules follow. Above the budget bodies
//! are not read on, unless their connection holds nothing. Above it the answers of which nothing was taken for
//! the longest time are given up, until the sum fits. And an answer of which nothing was taken for
//! [`answer_idle`](crate::config::Limits::request_answer_idle) is given up whatever the sum is.
//!
//! Taken means: it went to the socket, or over QUIC was acknowledged. Waiting for the socket itself is no
//! silence of the second kind: TCP knows better whether its other side lives. An answer that is given up is reset; where
//! nothing of it is left to reset, because all of it lies in a library's buffer, its connection ends.
//!
//! Not here: how many answers there may be ([`Limits`](crate::config::Limits)), and what a body costs beside
//! its bytes.
//!
//! Always true: a piece is charged before anybody else holds it, and until nobody does.

mod audit;
mod body;
mod executor;
mod piece;
mod socket;
mod waiting;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

pub(super) use self::{body::Counted, executor::Streams, socket::socket, waiting::Waiting};
use crate::config::RequestLimits;

/// The sum of the answers that wait for their clients. Clones are the same sum; the services and listeners
/// that share one share its budget, [`Limits::answer_bytes`](crate::config::Limits::answer_bytes).
#[derive(Clone, Default)]
pub struct Answers(Arc<Ledger>);

impl Answers {
    /// Bytes that wait now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Answers that were given up because their clients took nothing for too long.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.0.given_up.load(Ordering::Relaxed)
    }

    /// Answers that were given up because the sum was above its budget.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }

    /// The account of a new connection. Called within a tokio runtime.
    pub(super) fn account(&self, limits: &RequestLimits) -> Arc<Account> {
        // Without a connection nobody has looked.
        self.0.look_at_the_clock();
        let account = Arc::new(Account {
            ledger: Arc::clone(&self.0),
            idle: limits.answer_idle,
            budget: limits.answer_bytes,
            held: AtomicUsize::new(0),
            answers: Mutex::default(),
            over: Notify::new(),
            socket_waits: AtomicBool::new(false),
            went_on: AtomicU64::new(0),
        });
        let mut accounts = self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.add(&account);
        drop(accounts);
        audit::begin(&self.0, limits.answer_idle);
        account
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

struct Ledger {
    began: Instant,
    /// Milliseconds since it began, as the audit last saw them: no answer asks the clock.
    now: AtomicU64,
    held: AtomicUsize,
    given_up: AtomicU64,
    evicted: AtomicU64,
    accounts: Mutex<Registry<Account>>,
    auditing: AtomicBool,
    /// The sum is above the budget.
    crowded: Notify,
    /// Answers whose bodies wait for room.
    queue: Mutex<Vec<Weak<Waiting>>>,
    queued: AtomicUsize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            now: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            given_up: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            accounts: Mutex::default(),
            auditing: AtomicBool::new(false),
            crowded: Notify::new(),
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
        }
    }
}

impl Ledger {
    fn look_at_the_clock(&self) -> u64 {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now.store(now, Ordering::Relaxed);
        now
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Lets the answers that wait for room try again.
    fn wake_queue(&self) {
        if self.queued.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut *queue);
        self.queued.store(0, Ordering::Release);
        drop(queue);
        for answer in waiting.iter().filter_map(Weak::upgrade) {
            answer.dequeued();
        }
    }
}

/// What the answers of one connection hold.
pub(super) struct Account {
    ledger: Arc<Ledger>,
    idle: Duration,
    budget: usize,
    held: AtomicUsize,
    answers: Mutex<Registry<Waiting>>,
    over: Notify,
    socket_waits: AtomicBool,
    /// When the socket last took something after it had not.
    went_on: AtomicU64,
}

impl Account {
    /// A new answer, of which nothing is held yet.
    pub(super) fn answer(self: &Arc<Self>) -> Arc<Waiting> {
        let answer = Arc::new(Waiting::new(Arc::clone(self)));
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).add(&answer);
        answer
    }

    /// Waits until the connection has to end, because an answer cannot be given up in another way.
    pub(super) async fn over(&self) {
        self.over.notified().await;
        tracing::debug!("the client takes nothing of its answers");
    }

    fn charge(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let before = self.ledger.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget && before <= self.budget {
            self.ledger.crowded.notify_one();
        }
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        let before = self.ledger.held.fetch_sub(bytes, Ordering::AcqRel);
        if before.saturating_sub(bytes) <= self.budget {
            self.ledger.wake_queue();
        }
    }

    /// Whether more than half of the budget is held.
    pub(super) fn is_crowded(&self) -> bool {
        self.ledger.held.load(Ordering::Relaxed) > self.budget / 2
    }

    /// Whether a body of this connection may be read on.
    fn has_room(&self) -> bool {
        self.ledger.held.load(Ordering::Relaxed) < self.budget
            || self.held.load(Ordering::Relaxed) == 0
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("held", &self.held).finish_non_exhaustive()
    }
}

/// Things that are looked at while others own them.
struct Registry<T> {
    all: Vec<Weak<T>>,
    /// Number at which those that are gone are taken out.
    full: usize,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { all: Vec::new(), full: 0 }
    }
}

impl<T> Registry<T> {
    fn add(&mut self, one: &Arc<T>) {
        if self.all.len() >= self.full {
            self.all.retain(|one| one.strong_count() > 0);
            self.full = self.all.len().saturating_mul(2).max(LEAST);
        }
        self.all.push(Arc::downgrade(one));
    }

    fn present(&mut self) -> Vec<Arc<T>> {
        let present: Vec<_> = self.all.iter().filter_map(Weak::upgrade).collect();
        if present.len() < self.all.len() {
            self.all.retain(|one| one.strong_count() > 0);
            self.full = self.all.len().saturating_mul(2).max(LEAST);
        }
        present
    }
}

/// Entries for which nothing is taken out.
const LEAST: usize = 16;
