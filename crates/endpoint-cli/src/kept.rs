//! Can this build keep certificates in a file? With feature `sqlite` it can.

/// Whether it can.
pub(crate) const BUILT_IN: bool = true;
