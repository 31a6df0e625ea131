//! What does this build listen on? Without feature `tcp`: QUIC alone.

/// For people.
pub(super) const LISTENING: &str = "UDP";
