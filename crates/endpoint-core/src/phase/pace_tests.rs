//! Deadlines of phases, in driven time.

use std::{cell::Cell, time::Duration};

use tokio::time::{Instant, advance, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::phase::UnderWay;

const SECOND: Duration = Duration::from_secs(1);

fn pace() -> (Pace, CancellationToken) {
    let draining = CancellationToken::new();
    let activity = Activity::new(Instant::now());
    (Pace::new(activity, draining.clone(), PaceLimits::default()), draining)
}

/// Nothing beside the requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestsOnly;

impl Movement for RequestsOnly {
    fn count(&self) -> u64 {
        0
    }

    fn counts_requests(&self) -> bool {
        true
    }
}

/// How long the connection may be silent from now on.
async fn lasts(pace: &Pace) -> Option<Duration> {
    lasts_with(pace, &RequestsOnly).await
}

async fn lasts_with(pace: &Pace, movement: &impl Movement) -> Option<Duration> {
    let began = Instant::now();
    let over = timeout(3600 * SECOND, pace.silence(movement, || false)).await;
    over.is_ok().then(|| began.elapsed())
}

fn about(found: Option<Duration>, wanted: Duration) -> bool {
    found.is_some_and(|found| found >= wanted && found < wanted + SECOND / 10)
}

fn request(pace: &Pace) -> UnderWay {
    pace.activity().begin(Instant::now)
}

#[tokio::test(start_paused = true)]
async fn a_first_byte_is_due_sooner_where_it_is_crowded() {
    for (crowd, wanted) in [(Crowd::Roomy, 5), (Crowd::Half, 1), (Crowd::Most, 1)] {
        let (pace, _) = pace();
        pace.activity().feel(crowd);
        let began = Instant::now();
        pace.first_byte().await;
        assert!(about(Some(began.elapsed()), wanted * SECOND), "{crowd:?}");
    }
    // Also for those who are there already.
    let (pace, _) = pace();
    let began = Instant::now();
    let waiting = pace.first_byte();
    let crowding = async {
        tokio::time::sleep(2 * SECOND).await;
        pace.activity().feel(Crowd::Half);
    };
    tokio::join!(waiting, crowding);
    assert!(about(Some(began.elapsed()), 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_is_due_and_what_is_none_does_not_count() {
    let (pace, _) = pace();
    pace.activity().enter(Phase::Shaken, Instant::now());
    assert!(about(lasts(&pace).await, 10 * SECOND));
    assert_eq!(pace.activity().told(), Some(Told::Silent));
    pace.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_silence_between_requests_is_the_shorter_the_fuller_it_is() {
    for (crowd, wanted) in [(Crowd::Roomy, 60), (Crowd::Half, 30), (Crowd::Most, 5)] {
        let (pace, _) = pace();
        drop(request(&pace));
        pace.activity().feel(crowd);
        assert!(about(lasts(&pace).await, wanted * SECOND), "{crowd:?}");
    }
    let (pace, _) = pace();
    drop(request(&pace));
    let began = Instant::now();
    let crowding = async {
        tokio::time::sleep(20 * SECOND).await;
        pace.activity().feel(Crowd::Most);
    };
    tokio::join!(lasts(&pace), crowding);
    assert!(about(Some(began.elapsed()), 20 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_never_cut_off_and_its_end_is_noticed() {
    let (pace, _) = pace();
    let first = request(&pace);
    assert_eq!(lasts(&pace).await, None);
    let watching = async {
        let began = Instant::now();
        let over = lasts(&pace).await;
        (began, over)
    };
    let ending = async {
        tokio::time::sleep(1234 * SECOND / 10).await;
        drop(first);
    };
    let ((_, over), ()) = tokio::join!(watching, ending);
    assert!(about(over, (1234 + 600) * SECOND / 10), "{over:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_exempt_may_be_silent_until_it_no_longer_is() {
    let (pace, _) = pace();
    pace.activity().enter(Phase::Shaken, Instant::now());
    let exempt = Cell::new(true);
    let silence = pace.silence(&RequestsOnly, || exempt.get());
    let mut silence = std::pin::pin!(silence);
    assert!(timeout(3600 * SECOND, silence.as_mut()).await.is_err());
    exempt.set(false);
    assert!(timeout(61 * SECOND, silence).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_off_let_everybody_stay() {
    let (mut pace, _) = pace();
    (pace.limits.first_request, pace.limits.idle) = (Duration::MAX, Duration::MAX);
    pace.activity().enter(Phase::Shaken, Instant::now());
    assert_eq!(lasts(&pace).await, None);
    drop(request(&pace));
    assert_eq!(lasts(&pace).await, None);
}

/// Grows by one at each step of the given time, until it ends.
struct Steps {
    began: Instant,
    step: Duration,
    until: Duration,
    counts_requests: bool,
}

impl Movement for Steps {
    fn count(&self) -> u64 {
        let passed = self.began.elapsed().min(self.until);
        (passed.as_millis() / self.step.as_millis()).try_into().unwrap()
    }

    fn counts_requests(&self) -> bool {
        self.counts_requests
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_still_taken_keeps_its_connection() {
    for (until, wanted) in [(0, 60), (40, 60), (58, 75), (100, 120)] {
        let (pace, _) = pace();
        drop(request(&pace));
        let (began, step) = (Instant::now(), SECOND / 2);
        let steps = Steps { began, step, until: until * SECOND, counts_requests: true };
        let over = lasts_with(&pace, &steps).await;
        assert!(about(over, wanted * SECOND), "{until}: {over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_live_by_what_moves_on_them() {
    // Nothing ever: no first stream. Then silence counts from the last movement.
    for (until, wanted) in [(0, 10), (5, 65), (100, 160)] {
        let (pace, _) = pace();
        pace.activity().enter(Phase::Shaken, Instant::now());
        let (began, step) = (Instant::now(), SECOND / 2);
        let steps = Steps { began, step, until: until * SECOND, counts_requests: false };
        let over = lasts_with(&pace, &steps).await;
        let near = over.is_some_and(|over| over.abs_diff(wanted * SECOND) <= SECOND);
        assert!(near, "{until}: {over:?}");
    }
    // A stream that is open and on which nothing moves is silent.
    let (pace, _) = pace();
    let _open = request(&pace);
    let began = Instant::now();
    let steps = Steps { began, step: SECOND, until: SECOND, counts_requests: false };
    let over = lasts_with(&pace, &steps).await;
    assert!(over.is_some_and(|over| over.abs_diff(61 * SECOND) <= SECOND), "{over:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_under_way_and_for_nobody_else() {
    let goodbye = PaceLimits::default().goodbye;
    let (pace, draining) = pace();
    pace.activity().enter(Phase::Shaken, Instant::now());
    advance(SECOND).await;
    assert!(!pace.is_draining());
    draining.cancel();
    pace.ends().await;
    let began = Instant::now();
    pace.quiet(&RequestsOnly).await;
    assert!(about(Some(began.elapsed()), goodbye));

    let busy = request(&pace);
    assert!(timeout(100 * SECOND, pace.quiet(&RequestsOnly)).await.is_err());
    let began = Instant::now();
    drop(busy);
    pace.quiet(&RequestsOnly).await;
    assert!(began.elapsed() <= 3 * goodbye);

    // What was answered is still taken.
    let (began, step) = (Instant::now(), Duration::from_millis(50));
    let steps = Steps { began, step, until: 7 * SECOND, counts_requests: true };
    pace.quiet(&steps).await;
    assert!(began.elapsed().abs_diff(7 * SECOND) <= 3 * goodbye, "{:?}", began.elapsed());
}
