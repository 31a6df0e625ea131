//! Does this build obtain certificates itself? With feature `acme` it does.

/// Whether it does.
pub(crate) const BUILT_IN: bool = true;
