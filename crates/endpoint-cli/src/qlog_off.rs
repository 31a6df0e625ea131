//! Does this build write qlog files? Without feature `qlog` it does not.

/// Whether it does.
pub(crate) const BUILT_IN: bool = false;
