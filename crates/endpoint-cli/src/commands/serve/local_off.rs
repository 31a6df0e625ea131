//! Plain HTTP of a build without feature `http3`: there is none.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use endpoint_core::{Limits, endpoint::Endpoint};

use super::{desk::FrontDesk, ready::Listeners};
use crate::{
    config::Config,
    error::{CliError, Result},
    web::Web,
};

/// Stands where what the status page shows would.
#[derive(Debug)]
pub(super) struct Facts;

impl Facts {
    pub(super) fn new(_endpoint: Endpoint, _desk: Arc<FrontDesk>) -> Self {
        Self
    }
}

/// Stands where the listeners would.
#[derive(Debug)]
pub(super) struct Local;

impl Local {
    pub(super) fn bind(
        _config: &Config,
        given: Vec<TcpListener>,
        _listen: &[SocketAddr],
    ) -> Result<Self> {
        if !given.is_empty() {
            let message = "a TCP socket was given that needs HTTP, which this build lacks";
            return Err(CliError::usage("not-in-this-build", message).hint(
                "give it on the address of a UDP socket, or take it out of the .socket unit",
            ));
        }
        Ok(Self)
    }

    pub(super) fn listeners(&self) -> Listeners {
        Listeners::default()
    }

    pub(super) fn count(&self) -> usize {
        0
    }

    pub(super) fn start(
        self,
        _web: &Web,
        _port: u16,
        _facts: Facts,
        _limits: &Limits,
    ) -> Result<Self> {
        Ok(self)
    }

    /// Never: there is nothing to die.
    pub(super) async fn died(&mut self) -> String {
        std::future::pending().await
    }

    pub(super) fn end(self) {}
}
