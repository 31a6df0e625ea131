//! How long may a request take, and how much of it may be headers?
//!
//! The same for all versions. What a route allows beyond these is the service's own affair.

use std::time::Duration;

/// Bytes of a request's header section, and of its trailer section, decoded (RFC 9114 §4.2.2).
pub(super) const FIELD_SECTION_BYTES: u32 = 64 * 1024;
/// Body bytes of one request after which the connection's receive window grows, and to what.
pub(super) const LARGE_BODY_BYTES: u64 = 128 * 1024;
pub(super) const LARGE_BODY_WINDOW_BYTES: u32 = 1024 * 1024;
/// Requests that a client gave up within [`RESETS_PERIOD`] at which its connection ends
/// (CVE-2023-44487).
pub(super) const RESETS: u32 = 100;
pub(super) const RESETS_PERIOD: Duration = Duration::from_secs(10);
