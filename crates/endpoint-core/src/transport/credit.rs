//! How many streams may a peer open now?
//!
//! quinn keeps a table entry for every stream that a peer may open, 80 bytes and a hash each: a hundred
//! at once cost 8 KB and a twentieth of a handshake. So a permitted peer begins with a few and gets
//! more as it uses them, up to the limit.
//!
//! Always true: the credit only grows and never passes the limit; it doubles when half of it was used,
//! so a peer that opens many at once waits for two round trips at most before it has a hundred.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::Link;

/// Bidirectional streams that stand open to a peer before it is permitted, where any do.
pub(crate) const INITIAL_STREAMS: u32 = 8;
/// What a permit gives. quinn sends MAX_STREAMS only when the step up is more than an eighth of the
/// new credit, so it is well above [`INITIAL_STREAMS`].
const FIRST_GRANT: u32 = 16;

/// The credit for bidirectional streams of one accepted connection.
#[derive(Debug)]
pub(crate) struct StreamCredit {
    limit: u32,
    granted: Mutex<u32>,
    accepted: AtomicU64,
    /// Streams accepted at which the next step is due.
    next: AtomicU64,
}

impl StreamCredit {
    /// `limit` streams at one time, at least [`FIRST_GRANT`]. With `yes`, the peer has no credit and
    /// is given its first now: the server's yes.
    pub(crate) fn new(link: &Link, limit: u32, yes: bool) -> Self {
        let granted = if yes { FIRST_GRANT } else { INITIAL_STREAMS };
        if yes {
            link.grant_streams(granted);
        }
        Self {
            limit: limit.max(FIRST_GRANT),
            granted: Mutex::new(granted),
            accepted: AtomicU64::new(0),
            next: AtomicU64::new(u64::from(granted / 2)),
        }
    }

    /// Notes that the peer opened a stream.
    pub(crate) fn used(&self, link: &Link) {
        let accepted = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        if accepted >= self.next.load(Ordering::Relaxed) {
            self.grant(link, |granted| granted.saturating_mul(2));
        }
    }

    /// Gives all of the credit at once, to a peer whose streams are not seen here.
    pub(crate) fn all(&self, link: &Link) {
        self.grant(link, |_| u32::MAX);
    }

    fn grant(&self, link: &Link, step: impl FnOnce(u32) -> u32) {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if *granted >= self.limit {
            return;
        }
        // A last step too small to be told would wait until streams end: it goes with the one before.
        let more = step(*granted);
        *granted = if more.saturating_add(more / 2) >= self.limit { self.limit } else { more };
        let done = *granted == self.limit;
        let next = if done { u64::MAX } else { u64::from(*granted / 2) };
        self.next.store(next, Ordering::Relaxed);
        link.grant_streams(*granted);
    }
}
