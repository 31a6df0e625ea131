//! How long may a connection be silent, and how slow may a request be?
//!
//! Ground: plain data. Who watches over it is `phase`.

use std::time::Duration;

use super::Limits;

/// How long each phase of a connection may last. For strangers: a peer with a grant may be silent once hands
/// are shaken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaceLimits {
    /// From the arrival of a TCP connection to its first byte.
    pub(crate) first_byte: Duration,
    /// The same where it is crowded.
    pub(crate) first_byte_crowded: Duration,
    /// From the end of the handshake to the first request or stream.
    pub(crate) first_request: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// The same where it is crowded.
    pub(crate) idle_crowded: Duration,
    /// From the news that it ends to the end of a connection on which nothing is under way.
    pub(crate) goodbye: Duration,
}

impl Default for PaceLimits {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(5),
            first_byte_crowded: Duration::from_secs(1),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            idle_crowded: Duration::from_secs(5),
            goodbye: Duration::from_millis(250),
        }
    }
}

/// How slow may the body of a request be?
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "without HTTP nobody asks for them")]
pub(crate) struct BodyLimits {
    /// Silence within it.
    pub(crate) idle: Duration,
    /// Time waited for it before its rate counts.
    pub(crate) grace: Duration,
    /// Bytes a second, averaged over the time waited for it after the grace.
    pub(crate) least_rate: u32,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), grace: Duration::from_secs(30), least_rate: 500 }
    }
}

impl Limits {
    limit!(
        /// Time from the arrival of a TCP connection to its first byte. Default 5 s; the handshake deadline
        /// runs beside it.
        first_byte_deadline: Duration => pace.first_byte
    );
    limit!(
        /// The same once the table of connections, or the share of the newcomer's prefix, is half full.
        /// Default 1 s.
        crowded_first_byte_deadline: Duration => pace.first_byte_crowded
    );
    limit!(
        /// Time from the handshake to a stranger's first request, or first stream. Default 10 s. Whatever else
        /// the client sends, such as SETTINGS and PINGs, is no request.
        first_request_deadline: Duration => pace.first_request
    );
    limit!(
        /// Silence between a stranger's requests after which its connection ends; on other protocols than HTTP,
        /// silence on all of its streams. Default 60 s. Where it is half full it is half of it.
        stranger_idle: Duration => pace.idle
    );
    limit!(
        /// The same once it is three quarters full. Default 5 s.
        crowded_stranger_idle: Duration => pace.idle_crowded
    );
    limit!(
        /// Time that a connection on which nothing is under way has between the news that it ends and its end.
        /// Default 250 ms.
        goodbye: Duration => pace.goodbye
    );
    limit!(
        /// Silence within the body of an HTTP request after which it is given up. Default 30 s.
        request_body_idle: Duration => requests.body.idle
    );
    limit!(
        /// Bytes a second at which the body of an HTTP request has to come, averaged over the time that was
        /// waited for it, after [`Self::request_body_grace`] and until its answer begins. Default 500; 0 asks
        /// for none. A body that is slower or silent is answered with 408.
        request_body_rate: u32 => requests.body.least_rate
    );
    limit!(
        /// Time waited for the body of an HTTP request before its rate counts. Default 30 s.
        request_body_grace: Duration => requests.body.grace
    );
}
