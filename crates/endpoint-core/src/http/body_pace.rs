//! Does the body of a request come fast enough?
//!
//! Only the time counts for which somebody waited for it: a service that reads slowly slows its client down,
//! which is no fault of the client. Not here: what is done with a body that does not (`body`).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::pace::BodyLimits;

/// What the body of one request and its answer tell each other. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Stalled(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    stalled: AtomicBool,
    answered: AtomicBool,
}

impl Stalled {
    /// The answer begins: from now on only silence counts, since a client that has its answer already may
    /// speak as it goes. Whether the body was given up before, so that the answer should say so.
    pub(super) fn answers(&self) -> bool {
        self.0.answered.store(true, Ordering::Release);
        self.0.stalled.load(Ordering::Acquire)
    }

    fn is_answered(&self) -> bool {
        self.0.answered.load(Ordering::Acquire)
    }
}

/// Watches over one body.
pub(super) struct BodyPace {
    limits: BodyLimits,
    stalled: Stalled,
    /// Bytes that came.
    received: u64,
    /// Time waited before the present wait.
    waited: Duration,
    /// Since when it is waited for now.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl BodyPace {
    pub(super) fn new(limits: BodyLimits) -> Self {
        let (stalled, waited) = (Stalled::default(), Duration::ZERO);
        Self { limits, stalled, received: 0, waited, since: None, timer: None }
    }

    pub(super) fn stalled(&self) -> &Stalled {
        &self.stalled
    }

    /// So many bytes came, or the end.
    pub(super) fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Nothing is there: ready when that has been so for too long, or too often.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let due = self.due(since);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // A timer that is set for an earlier time is left alone until it fires: most bodies go on by then.
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                break;
            }
            timer.as_mut().reset(due);
        }
        self.stalled.0.stalled.store(true, Ordering::Release);
        Poll::Ready(())
    }

    /// When it is over, if nothing more comes.
    fn due(&self, since: Instant) -> Instant {
        let BodyLimits { idle, grace, least_rate } = self.limits;
        let silent = idle.min(LONGEST);
        if least_rate == 0 || self.stalled.is_answered() {
            return since + silent;
        }
        let worth = self.received.saturating_mul(1000) / u64::from(least_rate);
        let allowed = grace.saturating_add(Duration::from_millis(worth));
        since + allowed.saturating_sub(self.waited).min(silent)
    }
}

/// What can be added to any time.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long a body lasts of which `bytes` come each `pause`, at most an hour.
    async fn lasts(limits: BodyLimits, bytes: usize, pause: Duration, answered: bool) -> Duration {
        let mut pace = BodyPace::new(limits);
        if answered {
            assert!(!pace.stalled().answers());
        }
        let began = Instant::now();
        while began.elapsed() < 3600 * SECOND {
            if timeout(pause, poll_fn(|cx| pace.poll_over(cx))).await.is_ok() {
                assert!(pace.stalled().clone().answers());
                break;
            }
            pace.came(bytes);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_silence_and_what_trickles_and_nothing_else() {
        let limits = BodyLimits::default();
        let off = BodyLimits { least_rate: 0, ..limits };
        let near = |found: Duration, wanted: u32| found.abs_diff(wanted * SECOND) <= SECOND;
        assert!(near(lasts(limits, 1, 3600 * SECOND, false).await, 30));
        assert!(near(lasts(off, 1, 3600 * SECOND, false).await, 30));
        assert!(near(lasts(limits, 1, SECOND, false).await, 30));
        assert!(near(lasts(limits, 250, SECOND, false).await, 60));
        let hour = 3600 * SECOND;
        assert!(lasts(limits, 501, SECOND, false).await >= hour);
        assert!(lasts(limits, 1, SECOND, true).await >= hour, "its answer is there already");
        assert!(lasts(off, 1, SECOND, false).await >= hour, "the limit is off");
        assert!(lasts(off, 1, 29 * SECOND, false).await >= hour);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_reads_slowly_is_no_fault_of_its_client() {
        let mut pace = BodyPace::new(BodyLimits::default());
        for _ in 0..1000 {
            assert!(timeout(SECOND / 100, poll_fn(|cx| pace.poll_over(cx))).await.is_err());
            pace.came(6);
            // Nobody reads meanwhile.
            sleep(10 * SECOND).await;
        }
        assert!(!pace.stalled().answers());
    }
}
