//! What stands here without feature `tcp`: nothing listens, and dialling says which feature is missing.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use super::{ConnectError, Shared};
use crate::{
    alpn::Alpn,
    identity::Identity,
    target::HostPort,
    tls::{Expect, Verdict},
    transport::Link,
};

/// A listener that cannot exist.
pub(super) type Listener = Infallible;

pub(super) fn bind(_address: SocketAddr) -> io::Result<Option<Listener>> {
    Ok(None)
}

pub(super) fn given(_: std::net::TcpListener) -> io::Result<Option<Listener>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no TLS over TCP"))
}

pub(super) async fn accept(_shared: Arc<Shared>, listener: Listener) {
    match listener {}
}

pub(super) struct Dialled {
    pub(super) link: Link,
    pub(super) verdict: Arc<Verdict>,
}

pub(super) async fn dial(
    _address: SocketAddr,
    _host: &HostPort,
    _expect: &Expect,
    _identity: Option<&Identity>,
    _alpn: &Alpn,
    _deadline: Duration,
) -> Result<Dialled, ConnectError> {
    Err(ConnectError::FeatureMissing("tcp"))
}
