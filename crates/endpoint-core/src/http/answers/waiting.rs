//! One answer, and what of it waits.

use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use super::Account;

/// What of an answer its client has not taken.
pub(in crate::http) struct Waiting {
    account: Arc<Account>,
    held: AtomicUsize,
    /// When something of it was last taken, or given where nothing waited; as the ledger counts.
    taken: AtomicU64,
    /// The same of a whole piece: who takes a byte now and then is no better than who takes none.
    whole: AtomicU64,
    /// When it was given up, and one more; 0 if it was not.
    given_up: AtomicU64,
    /// Nobody sends it any more: what waits lies where only its connection can be ended.
    loose: AtomicBool,
    /// Its body waits for its bytes to be taken.
    ending: AtomicBool,
    queued: AtomicBool,
    waker: AtomicWaker,
}

impl Waiting {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            held: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            whole: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            loose: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Milliseconds for which nothing was taken, and no whole piece.
    pub(super) fn silence(&self, now: u64) -> (u64, u64) {
        let since = |time: &AtomicU64| now.saturating_sub(time.load(Ordering::Relaxed));
        (since(&self.taken), since(&self.whole))
    }

    pub(super) fn charge(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Ordering::AcqRel) == 0 {
            let now = self.account.ledger.now();
            self.taken.store(now, Ordering::Relaxed);
            self.whole.store(now, Ordering::Relaxed);
        }
        self.account.charge(bytes);
    }

    /// A part of a piece was taken.
    pub(super) fn took(&self) {
        self.taken.store(self.account.ledger.now(), Ordering::Relaxed);
    }

    /// A whole piece was taken, or thrown away.
    pub(super) fn release(&self, bytes: usize) {
        let now = self.account.ledger.now();
        self.taken.store(now, Ordering::Relaxed);
        self.whole.store(now, Ordering::Relaxed);
        let before = self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.account.release(bytes);
        if before == bytes && self.ending.load(Ordering::Acquire) {
            self.waker.wake();
        }
    }

    /// Gives it up; `false` if it was already.
    pub(super) fn give_up(&self, now: u64) -> bool {
        let marked = now.saturating_add(1);
        let first =
            self.given_up.compare_exchange(0, marked, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            self.waker.wake();
            self.end_if_loose();
        }
        first
    }

    /// When it was given up.
    pub(super) fn gone_since(&self) -> Option<u64> {
        self.given_up.load(Ordering::Acquire).checked_sub(1)
    }

    /// Whether whoever sends it has to reset it.
    pub(in crate::http) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire) != 0
    }

    /// Whoever polls with `cx` sends it, and is woken when it was given up.
    pub(in crate::http) fn is_sent_by(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Nobody sends it any more.
    pub(in crate::http) fn let_go(&self) {
        self.loose.store(true, Ordering::Release);
        if self.is_given_up() {
            self.end_if_loose();
        }
    }

    fn end_if_loose(&self) {
        if self.loose.load(Ordering::Acquire) && self.held() > 0 {
            self.end_connection();
        }
    }

    pub(super) fn end_connection(&self) {
        self.account.over.notify_one();
    }

    /// Ready when its body may be read on.
    pub(in crate::http) fn poll_room(self: &Arc<Self>, cx: &Context<'_>) -> Poll<()> {
        if self.account.has_room() {
            return Poll::Ready(());
        }
        self.is_sent_by(cx);
        let ledger = &self.account.ledger;
        if !self.queued.swap(true, Ordering::AcqRel) {
            let mut queue = ledger.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push(Arc::downgrade(self));
            ledger.queued.store(queue.len(), Ordering::Release);
        }
        ledger.crowded.notify_one();
        // Room may have come before it stood in the queue.
        if self.account.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// It is no longer in the queue.
    pub(super) fn dequeued(&self) {
        self.queued.store(false, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when all that was given of it is taken.
    pub(in crate::http) fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        if self.held.load(Ordering::Acquire) == 0 {
            return Poll::Ready(());
        }
        self.is_sent_by(cx);
        self.ending.store(true, Ordering::Release);
        match self.held.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("held", &self.held).finish_non_exhaustive()
    }
}
