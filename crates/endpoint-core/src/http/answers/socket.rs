//! Is it the socket that an answer waits for, or its client's windows?
//!
//! A kernel takes megabytes for a slow client and then nothing for a long time, while the client reads all
//! along. TCP itself knows whether that is so and ends the connection if not, so such waiting is no silence.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use super::{
    super::tapped::{Tap, Tapped},
    Account,
};

/// Tells an account whether its socket is waited for.
pub(in crate::http) struct Waits {
    account: Arc<Account>,
    waits: bool,
}

/// `io` as a stream that tells its account while it waits for its socket.
pub(in crate::http) fn socket<T>(io: T, account: &Arc<Account>) -> Tapped<T, Waits> {
    Tapped::new(io, Waits { account: Arc::clone(account), waits: false })
}

impl Waits {
    fn note<W>(&mut self, wrote: Poll<W>) -> Poll<W> {
        if wrote.is_pending() != self.waits {
            self.waits = wrote.is_pending();
            self.account.socket(self.waits);
        }
        wrote
    }
}

impl Tap for Waits {
    fn wrote<W>(
        &mut self,
        _cx: &mut Context<'_>,
        wrote: Poll<io::Result<W>>,
    ) -> Poll<io::Result<W>> {
        self.note(wrote)
    }

    fn flushed(
        &mut self,
        _cx: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        self.note(flushed)
    }
}

impl Account {
    fn socket(&self, waits: bool) {
        if !waits {
            self.went_on.store(self.ledger.now(), Ordering::Relaxed);
        }
        self.socket_waits.store(waits, Ordering::Release);
    }

    /// Milliseconds since it last waited for its socket; none while it does.
    pub(super) fn without_socket(&self, now: u64) -> Option<u64> {
        let waits = self.socket_waits.load(Ordering::Acquire);
        (!waits).then(|| now.saturating_sub(self.went_on.load(Ordering::Relaxed)))
    }
}
