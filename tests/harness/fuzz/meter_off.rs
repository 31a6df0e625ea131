//! Without HTTP/3 there is no meter.

pub(super) fn frame_meter(_bytes: &[u8]) {}
