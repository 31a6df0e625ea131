//! Does this build write qlog files? With feature `qlog` it does.

/// Whether it does.
pub(crate) const BUILT_IN: bool = true;
