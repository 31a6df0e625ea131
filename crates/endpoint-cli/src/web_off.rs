//! The web server of a build without feature `http3`: there is none.

use std::net::SocketAddr;

use endpoint_core::endpoint::Builder;

use crate::{
    config::{Site, WebLimits},
    error::Result,
};

/// Whether this build has the web server.
pub(crate) const BUILT_IN: bool = false;

/// Stands where the web server would.
#[derive(Clone, Debug)]
pub(crate) struct Web;

impl Web {
    pub(crate) fn prepare(
        _sites: &[Site],
        _own: &[SocketAddr],
        _files: usize,
        _limits: &WebLimits,
    ) -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn attach(&self, builder: Builder) -> Builder {
        builder
    }

    pub(crate) fn urls(&self, _port: u16) -> Vec<String> {
        Vec::new()
    }
}
