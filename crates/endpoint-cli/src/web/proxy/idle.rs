//! For how long may the other side of a proxy do nothing?
//!
//! Three silences: an upstream that says nothing within its answer ([`Patience`]), one that takes nothing of
//! what it is sent ([`taking`]), a tunnel in which neither side says anything ([`Moved`]). Before an answer
//! begins the route's `timeout` counts; what clients do not send or take is counted by the endpoint.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use endpoint_core::http::{Tap, Tapped};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What can be added to any time.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// A time that begins anew with each sign of life. Its timer is made when something is first waited for.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Patience {
    pub(super) fn new(most: Duration) -> Self {
        Self { most: most.min(LONGEST), timer: None, running: false }
    }

    /// There was a sign of life.
    pub(super) fn renew(&mut self) {
        self.running = false;
    }

    /// Ready when there was none for too long, counted from the first time that this was asked.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let most = self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(most)));
        if !std::mem::replace(&mut self.running, true) {
            timer.as_mut().reset(Instant::now() + most);
        }
        timer.as_mut().poll(cx)
    }
}

/// `io` as a stream that fails when its other side takes nothing of what is written for `most`.
pub(super) fn taking<T>(io: T, most: Duration) -> Tapped<T, Patience> {
    Tapped::new(io, Patience::new(most))
}

impl Tap for Patience {
    fn wrote<W>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<W>>,
    ) -> Poll<io::Result<W>> {
        if let Poll::Ready(wrote) = wrote {
            self.renew();
            return Poll::Ready(wrote);
        }
        ready!(self.poll_over(cx));
        let error = "the upstream took nothing of what it was sent for too long";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)))
    }
}

/// When something last came, from either side of a tunnel. Clones are the same tunnel's.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    began: Instant,
    /// Milliseconds since it began.
    last: Arc<AtomicU64>,
}

impl Moved {
    pub(super) fn now() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }

    fn note(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing has come for so long.
    pub(super) async fn idle(&self, most: Duration) {
        let most = most.min(LONGEST);
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let end = self.began + last.min(LONGEST) + most;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// One side of a tunnel.
pub(super) fn moving<T>(io: T, moved: &Moved) -> Tapped<T, Moved> {
    Tapped::new(io, moved.clone())
}

impl Tap for Moved {
    fn read(&mut self, _bytes: usize) {
        self.note();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (near, mut far) = duplex(16);
        let mut near = taking(near, IDLE);
        let began = Instant::now();
        let slow = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
                far.read_exact(&mut [0; 16]).await.unwrap();
            }
            far
        });
        near.write_all(&[7; 160]).await.unwrap();
        let _far = slow.await.unwrap();
        assert!(began.elapsed() >= 9 * (IDLE - Duration::from_secs(1)));
        let began = Instant::now();
        let error = near.write_all(&[7; 160]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed().abs_diff(IDLE) < Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_lives_as_long_as_one_side_says_something() {
        let (near, mut far) = duplex(16);
        let moved = Moved::now();
        let mut near = moving(near, &moved);
        let began = Instant::now();
        let talking = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
                far.write_all(b"x").await.unwrap();
            }
            far
        });
        let reading = tokio::spawn(async move { near.read_to_end(&mut Vec::new()).await });
        moved.idle(IDLE).await;
        let lasted = 10 * (IDLE - Duration::from_secs(1)) + IDLE;
        assert!(began.elapsed().abs_diff(lasted) < Duration::from_millis(20));
        reading.abort();
        drop(talking.await);
    }
}
