//! How much may answers cost? The limits that are the web server's; see `limits` for all of them.

use std::time::Duration;

/// Limits of the web server. All are for the whole program; a route may replace the times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WebLimits {
    /// Files that are compressed at one time; others are sent as they are meanwhile. Default 32.
    pub compressions: usize,
    /// Size in bytes above which a file is never compressed on its way out. Default 10 MiB.
    pub compress_up_to: u64,
    /// Silence of an upstream within its answer after which the answer breaks off. Default 10 min.
    pub upstream_idle: Duration,
    /// Time for which an upstream may take nothing of a request's body. Default 1 min.
    pub upstream_send_idle: Duration,
    /// Silence in both directions after which a tunnel (WebSocket) ends. Default 1 h.
    pub tunnel_idle: Duration,
}

impl Default for WebLimits {
    fn default() -> Self {
        Self {
            compressions: 32,
            compress_up_to: 10 << 20,
            upstream_idle: Duration::from_secs(600),
            upstream_send_idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(3_600),
        }
    }
}
