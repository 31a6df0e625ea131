//! A build without qlog traces nothing.

use std::{io, path::Path};

use quinn::TransportConfig;

/// A folder of traces, which cannot exist here.
#[derive(Debug)]
pub(crate) enum Qlog {}

impl Qlog {
    pub(crate) fn start(_: &Path) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this build has no qlog; it needs feature `qlog`",
        ))
    }

    pub(crate) fn trace(&self, _: &mut TransportConfig, _: impl FnOnce(&str) -> String) {
        match *self {}
    }
}
