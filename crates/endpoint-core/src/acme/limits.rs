//! How long may an authority take?
//!
//! Always true: each request, each wait and each order as a whole has an end.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    issuer::{Fault, IssueError},
    problem::{Step, unavailable},
};

/// The longest that anything may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// One request with its answer.
    pub(crate) request: Duration,
    /// From the announcement of a challenge's answer until the authority has decided, and from the request
    /// for the certificate until it is there.
    pub(crate) decision: Duration,
    /// A whole order.
    pub(crate) order: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            decision: Duration::from_secs(90),
            order: Duration::from_secs(300),
        }
    }
}

/// Ends an order that takes too long.
pub(super) async fn whole<T>(
    deadlines: Deadlines,
    work: impl Future<Output = Result<T, IssueError>>,
) -> Result<T, IssueError> {
    let until = Instant::now() + deadlines.order;
    timeout_at(until, work).await.unwrap_or_else(|_| {
        let why = format!("not done within {} s", deadlines.order.as_secs_f32());
        Err(unavailable(Step::Order, &why))
    })
}

/// The pauses between looks at what an authority decides: soon at first, then every few seconds.
pub(super) struct Pauses {
    next: Duration,
    until: Instant,
    given: Duration,
}

impl Pauses {
    pub(super) fn new(deadlines: Deadlines) -> Self {
        let given = deadlines.decision;
        Self { next: FIRST_PAUSE, until: Instant::now() + given, given }
    }

    /// Waits, at least as long as the authority asked for.
    ///
    /// # Errors
    /// [`Fault::Refused`] when the time is over: an authority that does not decide may count a failure.
    pub(super) async fn wait(
        &mut self,
        step: Step,
        asked: Option<Duration>,
    ) -> Result<(), IssueError> {
        let pause = self.next.max(asked.unwrap_or_default());
        let ends = Instant::now() + pause;
        if ends > self.until {
            let given = self.given.as_secs_f32();
            let detail = format!("{step} failed: the authority did not decide within {given} s");
            return Err(IssueError { kind: Fault::Refused, detail, retry_after: asked });
        }
        sleep(pause).await;
        self.next = (self.next * 3 / 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Counts the nonces that the authority refused in one order (RFC 8555 §6.5): each is no failure, but an
/// authority that takes none is no use.
#[derive(Debug, Default)]
pub(super) struct Nonces(u32);

impl Nonces {
    /// Whether to try once more.
    pub(super) fn again(&mut self) -> bool {
        self.0 += 1;
        self.0 <= REFUSED_NONCES
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
const REFUSED_NONCES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines(decision: u64, order: u64) -> Deadlines {
        let [decision, order] = [decision, order].map(Duration::from_secs);
        Deadlines { decision, order, ..Deadlines::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_and_heed_the_authority() {
        let began = Instant::now();
        let mut pauses = Pauses::new(deadlines(90, 300));
        let mut looks = 0;
        let ended = loop {
            match pauses.wait(Step::Validate, None).await {
                Ok(()) => looks += 1,
                Err(ended) => break ended,
            }
        };
        assert_eq!(ended.kind, Fault::Refused);
        assert_eq!(ended.detail, "validation failed: the authority did not decide within 90 s");
        assert!((30..60).contains(&looks), "{looks}");
        assert!((85..=90).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

        let began = Instant::now();
        let mut pauses = Pauses::new(deadlines(90, 300));
        pauses.wait(Step::Validate, Some(Duration::from_secs(20))).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 20);
        let long = Some(Duration::from_secs(3600));
        let ended = pauses.wait(Step::Validate, long).await.unwrap_err();
        assert_eq!((ended.retry_after, began.elapsed().as_secs()), (long, 20), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_order_has_an_end() {
        let began = Instant::now();
        let never = std::future::pending::<Result<(), IssueError>>();
        let ended = whole(deadlines(90, 300), never).await.unwrap_err();
        assert_eq!((ended.kind, began.elapsed().as_secs()), (Fault::Unavailable, 300));
    }

    #[test]
    fn twenty_nonces_may_be_refused() {
        let mut nonces = Nonces::default();
        assert_eq!((0..100).filter(|_| nonces.again()).count(), 20);
    }
}
