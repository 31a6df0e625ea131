//! When is a permitted connection cut off, and with which code?
//!
//! The one place above quinn, hyper and h3: silence of a stranger, a place that others need, a drain. The
//! protocol is told first and says goodbye in its own manner; here is for how long it may.

use crate::{
    alpn::Alpn,
    close::CloseCode,
    handler::Permit,
    phase::{Movement, Pace, Told},
    transport::Link,
};

/// What moves on the streams of a link.
pub(super) struct OnStreams<'a> {
    link: &'a Link,
    counts: Counts,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Counts {
    /// Requests, and beside them the answers that go out.
    Requests {
        /// Growth that is more than what the protocol says by itself.
        least: u64,
    },
    /// All that moves.
    Streams,
}

impl<'a> OnStreams<'a> {
    pub(super) fn of(link: &'a Link, alpn: &Alpn) -> Self {
        let counts = match alpn {
            // A GOAWAY is one frame.
            alpn if *alpn == Alpn::H3 => Counts::Requests { least: 2 },
            // Answers to PINGs have 17 bytes.
            alpn if *alpn == Alpn::H2 => Counts::Requests { least: 4096 },
            alpn if alpn.is_http() => Counts::Requests { least: 1 },
            _ => Counts::Streams,
        };
        Self { link, counts }
    }
}

impl Movement for OnStreams<'_> {
    fn count(&self) -> u64 {
        match self.counts {
            Counts::Requests { .. } => self.link.sent(),
            Counts::Streams => self.link.streamed(),
        }
    }

    fn least(&self) -> u64 {
        match self.counts {
            Counts::Requests { least } => least,
            Counts::Streams => 1,
        }
    }

    fn counts_requests(&self) -> bool {
        self.counts != Counts::Streams
    }
}

/// Waits until the connection has to be cut off; gives the code for it.
pub(super) async fn cut_off(pace: &Pace, streams: OnStreams<'_>, permit: &Permit) -> CloseCode {
    let http = streams.counts_requests();
    tokio::select! {
        // Also whoever had a grant and lost it.
        () = pace.silence(&streams, || permit.has_grant()) => {}
        () = pace.ends() => {}
    }
    match pace.activity().told() {
        // Whoever needs the place does not wait; the protocol was polled before.
        Some(told @ Told::GiveWay) => code(told),
        Some(told @ Told::Silent) => {
            // A request that came after all is answered.
            if http {
                pace.quiet(&streams).await;
            }
            code(told)
        }
        None if http => {
            pace.quiet(&streams).await;
            CloseCode::ShuttingDown
        }
        // Other handlers are told by `accept_bi`, and have the whole of the drain.
        None => {
            pace.activity().gave_way().await;
            CloseCode::Overloaded
        }
    }
}

/// What the peer of a connection that was told to end is told.
pub(super) fn code(told: Told) -> CloseCode {
    match told {
        Told::GiveWay => CloseCode::Overloaded,
        Told::Silent => CloseCode::Done,
    }
}
