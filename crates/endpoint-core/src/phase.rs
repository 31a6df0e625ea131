//! How far has a connection come, and since when is it silent?
//!
//! Ground: one [`Activity`] per accepted connection, shared by the table of sources (`admission`), the carrier
//! and the protocol. Time is an argument; nothing here waits but [`Activity::gave_way`].
//! Not here: how long each phase may last (`config::Limits`) and who gives way to whom (`admission`).
//!
//! Always true: phases go forward, except that busy and idle alternate; a connection that was told to give way
//! is told once and for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// It is there, and has not said a whole ClientHello.
    Arrived,
    /// The hello was read; hands are being shaken.
    Hello,
    /// Hands are shaken; nothing was asked yet.
    Shaken,
    /// A request or a stream is under way.
    Busy,
    /// Something was asked before, and nothing is under way.
    Idle,
    /// It is being closed.
    Ending,
}

/// The phase of one connection. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    given_way: CancellationToken,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Requests and streams under way.
    under_way: u32,
}

impl Activity {
    /// A connection that arrived at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        let state = State { phase: Phase::Arrived, since: now, under_way: 0 };
        Self(Arc::new(Inner { state: Mutex::new(state), given_way: CancellationToken::new() }))
    }

    /// Goes on to `phase`; a step back is passed over, except from idle to busy.
    pub(crate) fn enter(&self, phase: Phase, now: Instant) {
        self.state().enter(phase, now);
    }

    /// The phase as it is now.
    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Since when nothing has been under way; `None` while something is.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.phase != Phase::Busy).then_some(state.since)
    }

    /// A request or a stream begins; it ends when what this gives is dropped.
    pub(crate) fn begin(&self, now: Instant) -> UnderWay {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_add(1);
        state.enter(Phase::Busy, now);
        drop(state);
        UnderWay(self.clone())
    }

    /// Tells the connection to end, because somebody else needs its place.
    pub(crate) fn give_way(&self) {
        self.0.given_way.cancel();
    }

    /// Waits until the connection is told to end; for ever if it never is.
    pub(crate) async fn gave_way(&self) {
        self.0.given_way.cancelled().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase, now: Instant) {
        if phase > self.phase || (self.phase == Phase::Idle && phase == Phase::Busy) {
            (self.phase, self.since) = (phase, now);
        }
    }
}

/// A request or a stream that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Activity);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.enter(Phase::Idle, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_forward_only_and_alternates_between_busy_and_idle() {
        let activity = Activity::new(Instant::now());
        let shaken = Instant::now() + Duration::from_secs(1);
        activity.enter(Phase::Shaken, shaken);
        activity.enter(Phase::Hello, shaken);
        assert_eq!(activity.phase(), Phase::Shaken);
        assert_eq!(activity.silent_since(), Some(shaken));
        tokio::time::advance(Duration::from_secs(2)).await;
        let (one, other) = (activity.begin(Instant::now()), activity.begin(Instant::now()));
        assert_eq!((activity.phase(), activity.silent_since()), (Phase::Busy, None));
        drop(one);
        assert_eq!(activity.phase(), Phase::Busy);
        drop(other);
        assert_eq!(
            (activity.phase(), activity.silent_since()),
            (Phase::Idle, Some(Instant::now()))
        );
        let again = activity.begin(Instant::now());
        assert_eq!(activity.phase(), Phase::Busy);
        activity.enter(Phase::Ending, Instant::now());
        drop(again);
        assert_eq!(activity.phase(), Phase::Ending);
    }

    #[tokio::test]
    async fn gives_way_once_and_for_good() {
        let activity = Activity::new(Instant::now());
        let other = activity.clone();
        assert!(futures_util::FutureExt::now_or_never(activity.gave_way()).is_none());
        other.give_way();
        activity.gave_way().await;
        activity.gave_way().await;
    }
}
