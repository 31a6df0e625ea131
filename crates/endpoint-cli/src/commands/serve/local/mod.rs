//! Plain HTTP: for this machine, and for those who forgot the `s`.
//!
//! The loopback listener serves the sites to programs that speak no TLS (`endpoint run`), and, under names of
//! this machine alone, the status page and the metrics. The other listeners redirect to https.
//!
//! Always true: the first goes to loopback addresses only; nothing here changes anything; no request makes
//! this program connect to where the request says.

mod data;
mod document;
mod loopback;
mod metrics;
mod page;
mod redirect;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use endpoint_core::{
    Limits,
    http::{PlainOptions, serve_plain},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) use self::data::Facts;
use self::{loopback::Loopback, redirect::ToHttps};
use super::{ports::overlap, ready::Listeners};
use crate::{
    config::{Config, web::LoopbackHttp},
    error::{CliError, ExitKind, Result, io_cause},
    web::Web,
};

/// The port of the loopback listener unless told otherwise.
const PORT: u16 = 8080;
/// Connections to a plain listener at one time.
const CONNECTIONS: usize = 256;
/// Connections to a redirecting listener at one time from one source.
const PER_SOURCE: usize = 16;
/// How long one of these lives at most: it is asked once and answers with a line.
const BRIEF: Duration = Duration::from_secs(10);

/// Listeners that are bound and serve nothing yet.
#[derive(Debug)]
pub(super) struct Local {
    loopback: Option<TcpListener>,
    plain: Vec<TcpListener>,
    end: CancellationToken,
}

impl Local {
    /// Binds what the configuration asks for, the loopback listener beside the endpoint's own addresses,
    /// `listen`. With sockets that were `given`, `plain_listen` is not bound.
    ///
    /// # Errors
    /// An address that cannot be bound.
    pub(super) fn bind(
        config: &Config,
        given: Vec<TcpListener>,
        listen: &[SocketAddr],
    ) -> Result<Self> {
        let loopback = match config.loopback_http {
            LoopbackHttp::Off => None,
            LoopbackHttp::At(address) => Some(bind(address)?),
            LoopbackHttp::Default => {
                let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
                let taken = listen.iter().chain(&config.plain_listen);
                let bound = match taken.into_iter().any(|other| overlap(*other, usual)) {
                    true => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)),
                    false => TcpListener::bind(usual)
                        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))),
                };
                Some(bound.map_err(|error| fault(usual, &error))?)
            }
        };
        let plain = match given.is_empty() {
            true => config.plain_listen.iter().map(|at| bind(*at)).collect::<Result<_>>()?,
            false => given,
        };
        Ok(Self { loopback, plain, end: CancellationToken::new() })
    }

    /// Where they listen.
    pub(super) fn listeners(&self) -> Listeners {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        Listeners {
            loopback: self.loopback.as_ref().and_then(address),
            redirects: self.plain.iter().filter_map(address).collect(),
            udp_alone: Vec::new(),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.plain.len().saturating_add(self.loopback.iter().count())
    }

    /// Begins to serve, until what this gives is dropped. `port` is where https is.
    ///
    /// # Errors
    /// A listener that cannot be driven.
    pub(super) fn start(
        self,
        web: &Web,
        port: u16,
        facts: Facts,
        limits: &Limits,
    ) -> Result<Running> {
        let fault = |error: io::Error| CliError::failure("listen", io_cause(&error));
        let end = || self.end.clone().cancelled_owned();
        let endpoint = facts.endpoint().clone();
        let mut loops = JoinSet::new();
        let facts = facts.with_answers(web.answers());
        let options = PlainOptions::default().connections(CONNECTIONS).counted_in(web.answers());
        if let (Some(address), Some(listener)) = (self.listeners().loopback, self.loopback) {
            let service = Loopback::new(web.clone(), address, facts);
            let served = serve_plain(listener, service, &options, limits, end());
            loops.spawn(served.map_err(fault)?);
        }
        let redirecting = options.per_source(PER_SOURCE).brief(BRIEF);
        for listener in self.plain {
            let service = ToHttps::new(web, port, endpoint.clone());
            let served = serve_plain(listener, service, &redirecting, limits, end());
            loops.spawn(served.map_err(fault)?);
        }
        Ok(Running { end: self.end, loops })
    }
}

/// The listeners at work; dropped, they end.
#[derive(Debug)]
pub(super) struct Running {
    end: CancellationToken,
    loops: JoinSet<()>,
}

impl Running {
    /// Waits until a loop that accepts connections has died, and says how.
    pub(super) async fn died(&mut self) -> String {
        match self.loops.join_next().await {
            Some(ended) => format!("a listener for plain HTTP ended: {ended:?}"),
            None => std::future::pending().await,
        }
    }

    /// Takes no more connections and lets those that are there end.
    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
        // They let their connections end by themselves.
        self.loops.detach_all();
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| fault(address, &error))
}

fn fault(address: SocketAddr, error: &std::io::Error) -> CliError {
    let message = format!("{address} (plain HTTP) cannot be bound: {}", io_cause(error));
    let code = match error.kind() {
        std::io::ErrorKind::AddrInUse => "addr-in-use",
        std::io::ErrorKind::PermissionDenied => "addr-denied",
        _ => "listen",
    };
    CliError::new(code, ExitKind::Failure, message)
        .hint("choose another address in `plain_listen` or `loopback_http`: endpoint config check")
}
