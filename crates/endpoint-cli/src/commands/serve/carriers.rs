//! What does this build listen on? Feature `tcp`: both carriers of a port number.

/// For people.
pub(super) const LISTENING: &str = "UDP and TCP";
