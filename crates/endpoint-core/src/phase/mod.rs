//! How far has a connection come, and since when is it silent?
//!
//! Ground: one [`Activity`] per accepted connection, shared by the table of sources (`admission`), the carrier
//! and the protocol. Time is an argument; what waits for a deadline is [`Pace`].
//! Not here: how long each phase may last (`config::Limits`) and who gives way to whom (`admission`).
//!
//! Always true: phases go forward, except that busy and idle alternate; a connection that was told to give way
//! is told once and for good.

mod pace;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::pace::{Movement, Pace};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// It is there and has said nothing.
    Arrived,
    /// Its first byte came; hands are being shaken.
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

/// How full is the place that a connection takes up: the whole table, or its prefix's share of it? Whoever
/// counts says so; the fuller, the shorter a stranger may be silent.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Crowd {
    /// Less than half.
    #[default]
    Roomy,
    /// Half or more.
    Half,
    /// Three quarters or more.
    Most,
}

impl Crowd {
    /// Of `room` places, `taken` are in use.
    pub(crate) fn of(taken: usize, room: usize) -> Self {
        let quarters = taken.saturating_mul(4).checked_div(room).unwrap_or(4);
        match quarters {
            0 | 1 => Self::Roomy,
            2 => Self::Half,
            _ => Self::Most,
        }
    }
}

/// Why a connection was told to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// Somebody else needs its place.
    GiveWay,
    /// It has been silent for too long.
    Silent,
}

/// The phase of one connection. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    given_way: CancellationToken,
    crowd: AtomicU8,
    /// Told when the crowd grows, so that a deadline that was far away is looked at again.
    crowded: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Requests and streams under way.
    under_way: u32,
    told: Option<Told>,
    /// The phase before it ended.
    came_to: Phase,
}

impl Activity {
    /// A connection that arrived at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        let state = State {
            phase: Phase::Arrived,
            since: now,
            under_way: 0,
            told: None,
            came_to: Phase::Arrived,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            given_way: CancellationToken::new(),
            crowd: AtomicU8::new(Crowd::Roomy as u8),
            crowded: Notify::new(),
        }))
    }

    /// Says how full it is around the connection now: at its arrival, and again when that changes.
    pub(crate) fn feel(&self, crowd: Crowd) {
        if self.0.crowd.swap(crowd as u8, Ordering::Relaxed) < crowd as u8 {
            self.0.crowded.notify_one();
        }
    }

    /// How full it is around the connection.
    pub(crate) fn crowd(&self) -> Crowd {
        match self.0.crowd.load(Ordering::Relaxed) {
            0 => Crowd::Roomy,
            1 => Crowd::Half,
            _ => Crowd::Most,
        }
    }

    /// Waits until the crowd has grown since this was last waited for.
    async fn crowd_grew(&self) {
        self.0.crowded.notified().await;
    }

    /// The phase, and since when it lasts.
    pub(crate) fn place(&self) -> (Phase, Instant) {
        let state = self.state();
        (state.phase, state.since)
    }

    /// Goes on to `phase`; a step back is passed over, except from idle to busy.
    pub(crate) fn enter(&self, phase: Phase, now: Instant) {
        self.state().enter(phase, now);
    }

    /// The phase as it is now.
    #[cfg(test)]
    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// How far it came, whether or not it ends.
    pub(crate) fn came_to(&self) -> Phase {
        self.state().came_to
    }

    /// Since when nothing has been under way; `None` while something is.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.phase != Phase::Busy).then_some(state.since)
    }

    /// A request or a stream begins; it ends when what this gives is dropped.
    /// `now` is asked only where that changes something: reading the clock for every request is not free.
    pub(crate) fn begin(&self, now: impl FnOnce() -> Instant) -> UnderWay {
        self.begun(now);
        UnderWay(self.clone())
    }

    /// The same for whoever holds the activity anyway, and says [`Self::ended`] itself.
    pub(crate) fn begun(&self, now: impl FnOnce() -> Instant) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_add(1);
        if !matches!(state.phase, Phase::Busy | Phase::Ending) {
            state.enter(Phase::Busy, now());
        }
    }

    /// What had begun has ended.
    pub(crate) fn ended(&self, now: impl FnOnce() -> Instant) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.enter(Phase::Idle, now());
        }
    }

    /// Tells the connection to end, because somebody else needs its place; `false` if it was told before.
    pub(crate) fn give_way(&self) -> bool {
        self.tell(Told::GiveWay)
    }

    fn tell(&self, told: Told) -> bool {
        let mut state = self.state();
        let news = state.told.is_none();
        state.told.get_or_insert(told);
        drop(state);
        self.0.given_way.cancel();
        news
    }

    /// Why it was told to end; `None` if it was not.
    pub(crate) fn told(&self) -> Option<Told> {
        self.state().told
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
            if phase != Phase::Ending {
                self.came_to = phase;
            }
        }
    }
}

/// A request or a stream that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Activity);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended(Instant::now);
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
        let (one, other) = (activity.begin(Instant::now), activity.begin(Instant::now));
        assert_eq!((activity.phase(), activity.silent_since()), (Phase::Busy, None));
        drop(one);
        assert_eq!(activity.phase(), Phase::Busy);
        drop(other);
        assert_eq!(
            (activity.phase(), activity.silent_since()),
            (Phase::Idle, Some(Instant::now()))
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        let again = activity.begin(Instant::now);
        // Who has been busy for longest may have to go: what it was silent before is not counted.
        assert_eq!(activity.place(), (Phase::Busy, Instant::now()));
        activity.enter(Phase::Ending, Instant::now());
        drop(again);
        assert_eq!(activity.phase(), Phase::Ending);
        assert_eq!(activity.came_to(), Phase::Busy);
    }

    #[test]
    fn tells_half_full_from_nearly_full() {
        let crowds = [(0, 8), (3, 8), (4, 8), (5, 8), (6, 8), (9, 8), (0, 0)];
        let told = crowds.map(|(taken, room)| Crowd::of(taken, room));
        use Crowd::{Half, Most, Roomy};
        assert_eq!(told, [Roomy, Roomy, Half, Half, Most, Most, Most]);
        let activity = Activity::new(Instant::now());
        for crowd in [Half, Most, Roomy] {
            activity.feel(crowd);
            assert_eq!(activity.clone().crowd(), crowd);
        }
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
