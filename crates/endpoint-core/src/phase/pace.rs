//! Has a connection been as it is for too long, and must it end?
//!
//! One look at a time, at the moment when a deadline would pass: nothing is done for a packet, and a timer
//! is set anew only when it has fired. Pure but for the waiting.
//!
//! Always true: what no request and no stream is for moves no deadline, such as PINGs of either side.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Activity, Crowd, Phase, Told};
use crate::config::PaceLimits;

/// What moves on a connection beside the requests that are counted.
pub(crate) trait Movement {
    /// A number that grows as something moves.
    fn count(&self) -> u64;

    /// The least growth that is one.
    fn least(&self) -> u64 {
        1
    }

    /// Whether requests are counted; otherwise movement is all that tells of life.
    fn counts_requests(&self) -> bool;
}

/// How long one connection may stay as it is. Cheap to clone; all clones are of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    activity: Activity,
    draining: CancellationToken,
    limits: PaceLimits,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// It has been silent for too long.
    Over,
    /// Look again then.
    At(Instant),
}

/// What was seen of the movement.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// At the look before.
    looked: Instant,
    /// When movement was noticed last; `None` before the first.
    moved: Option<Instant>,
    /// Whether something moved between that look and this one.
    moves: bool,
    counts_requests: bool,
}

impl Pace {
    /// Watches over `activity`; `draining` says that all connections have to end.
    pub(crate) fn new(activity: Activity, draining: CancellationToken, limits: PaceLimits) -> Self {
        Self { activity, draining, limits }
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Waits until the first byte is overdue.
    #[allow(dead_code, reason = "over QUIC the first byte begins the connection")]
    pub(crate) async fn first_byte(&self) {
        let PaceLimits { first_byte, first_byte_crowded, .. } = self.limits;
        let (_, since) = self.activity.place();
        loop {
            let limit = match self.activity.crowd() {
                Crowd::Roomy => first_byte,
                Crowd::Half | Crowd::Most => first_byte_crowded.min(first_byte),
            };
            tokio::select! {
                () = sleep_until(after(since, limit)) => return,
                () = self.activity.crowd_grew() => {}
            }
        }
    }

    /// Waits until the connection has been silent for too long, and tells it so. Whoever is `exempt` may be
    /// silent.
    pub(crate) async fn silence(&self, movement: &impl Movement, exempt: impl Fn() -> bool) {
        let mut count = movement.count();
        let now = Instant::now();
        let mut seen = Seen {
            looked: now,
            moved: None,
            moves: false,
            counts_requests: movement.counts_requests(),
        };
        let mut timer = pin!(sleep_until(now));
        loop {
            let now = Instant::now();
            let counted = movement.count();
            seen.moves = counted.saturating_sub(count) >= movement.least();
            if seen.moves {
                seen.moved = Some(now);
            }
            let next = match exempt() {
                true => after(now, self.limits.idle.max(LEAST_PAUSE)),
                false => match self.look(now, &seen) {
                    Look::Over => break,
                    Look::At(next) => next,
                },
            };
            (count, seen.looked) = (counted, now);
            timer.as_mut().reset(next);
            tokio::select! {
                () = timer.as_mut() => {}
                () = self.activity.crowd_grew() => {}
            }
        }
        self.activity.tell(Told::Silent);
    }

    fn look(&self, now: Instant, seen: &Seen) -> Look {
        let (phase, since) = self.activity.place();
        let idle = self.idle();
        let due = |at: Instant| if at <= now { Look::Over } else { Look::At(at) };
        // Movement alone tells of streams.
        if !seen.counts_requests {
            let last = seen.moved.map_or(since, |moved| moved.max(since));
            let begun = phase > Phase::Shaken || seen.moved.is_some();
            let end = after(last, if begun { idle } else { self.limits.first_request });
            return match due(end) {
                Look::At(end) => Look::At(end.min(after(now, PAUSE))),
                Look::Over => Look::Over,
            };
        }
        match phase {
            Phase::Arrived | Phase::Hello | Phase::Shaken => {
                due(after(since, self.limits.first_request))
            }
            Phase::Busy => Look::At(after(now, (idle / 4).max(LEAST_PAUSE))),
            Phase::Idle => {
                // The last answer may still be on its way: whoever took something of it in the last quarter
                // has a quarter more.
                let (quarter, end) = (idle / 4, after(since, idle));
                let last = after(since, idle.saturating_sub(quarter));
                match due(end) {
                    Look::At(end) => Look::At(if now < last { last } else { end }),
                    Look::Over if seen.moves && seen.looked >= last => {
                        Look::At(after(now, quarter.max(LEAST_PAUSE)))
                    }
                    Look::Over => Look::Over,
                }
            }
            Phase::Ending => Look::At(after(now, LONGEST)),
        }
    }

    /// How long a stranger may be idle now.
    fn idle(&self) -> Duration {
        let PaceLimits { idle, idle_crowded, .. } = self.limits;
        let least = idle_crowded.min(idle);
        match self.activity.crowd() {
            Crowd::Roomy => idle,
            Crowd::Half => (idle / 2).max(least),
            Crowd::Most => least,
        }
    }

    /// Waits until all connections have to end.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether all connections have to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the connection has to end: everything does, or this one is told to.
    pub(crate) async fn ends(&self) {
        tokio::select! {
            () = self.draining.cancelled() => {}
            () = self.activity.gave_way() => {}
        }
    }

    /// Waits until nothing has been under way for so long that a connection which has to end can be cut off.
    pub(crate) async fn quiet(&self, movement: &impl Movement) {
        let pause = self.limits.goodbye;
        let mut count = movement.count();
        loop {
            sleep(pause.max(LEAST_PAUSE)).await;
            let counted = movement.count();
            let moves = counted.saturating_sub(count) >= movement.least();
            count = counted;
            let silent = match self.activity.silent_since() {
                Some(since) => since.elapsed() >= pause,
                None => !movement.counts_requests(),
            };
            if silent && !moves {
                return;
            }
        }
    }
}

/// A sum that cannot overflow.
fn after(at: Instant, time: Duration) -> Instant {
    at.checked_add(time.min(LONGEST)).unwrap_or(at)
}

/// What can be added to any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Pause between two looks where movement is all that tells.
const PAUSE: Duration = Duration::from_millis(250);
/// No look follows another any sooner.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
