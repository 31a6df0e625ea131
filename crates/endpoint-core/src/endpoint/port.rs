//! The sockets of one port number: bound here, or given by whoever started the program.

use std::{io, net::SocketAddr, sync::Arc};

use super::{BindError, tcp};
use crate::{
    config::Limits,
    transport::{self, Network},
};

/// Where to listen.
#[derive(Debug)]
pub(super) enum Listen {
    At(SocketAddr),
    /// Sockets that somebody bound for us, such as systemd.
    On {
        udp: std::net::UdpSocket,
        tcp: Option<std::net::TcpListener>,
    },
}

impl Listen {
    /// The address, before anything is bound.
    pub(super) fn asked(&self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(*address),
            Self::On { udp, .. } => udp.local_addr().ok(),
        }
    }
}

/// The sockets of one port number.
pub(super) struct Port {
    pub(super) asked: SocketAddr,
    pub(super) address: SocketAddr,
    pub(super) udp: Arc<dyn quinn::AsyncUdpSocket>,
    pub(super) tcp: Option<tcp::Listener>,
}

/// Tries to find a port number that is free for UDP and TCP.
const FREE_PORT_TRIES: usize = 16;

impl Port {
    pub(super) fn open(
        listen: Listen,
        limits: &Limits,
        network: Option<&dyn Network>,
    ) -> Result<Self, BindError> {
        match (listen, network) {
            (Listen::At(address), Some(network)) => Self::made_up(address, network),
            (Listen::At(address), None) => Self::bind(address, limits),
            (Listen::On { udp, tcp }, _) => Self::given(udp, tcp),
        }
    }

    /// A port of a test's own network, which has no TCP.
    fn made_up(asked: SocketAddr, network: &dyn Network) -> Result<Self, BindError> {
        let fault = |source| BindError::socket(asked, "UDP", source);
        let udp = network.bind(asked).map_err(fault)?;
        let address = udp.local_addr().map_err(fault)?;
        Ok(Self { asked, address, udp, tcp: None })
    }

    fn bind(asked: SocketAddr, limits: &Limits) -> Result<Self, BindError> {
        let mut tries = if asked.port() == 0 { FREE_PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let udp = transport::bind_udp(asked, limits.udp_buffer_bytes)
                .map_err(|source| BindError::socket(asked, "UDP", source))?;
            let address =
                udp.local_addr().map_err(|source| BindError::socket(asked, "UDP", source))?;
            match tcp::bind(address) {
                Ok(tcp) => {
                    let udp = transport::of_system(udp)
                        .map_err(|source| BindError::socket(address, "UDP", source))?;
                    return Ok(Self { asked, address, udp, tcp });
                }
                // The number was free for UDP only; take another.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(source) => return Err(BindError::socket(address, "TCP", source)),
            }
        }
    }

    fn given(
        udp: std::net::UdpSocket,
        listener: Option<std::net::TcpListener>,
    ) -> Result<Self, BindError> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let address =
            udp.local_addr().map_err(|source| BindError::socket(nowhere, "UDP", source))?;
        let fault = |carrier| move |source| BindError::socket(address, carrier, source);
        udp.set_nonblocking(true).map_err(fault("UDP"))?;
        let tcp = match listener {
            None => None,
            Some(listener) => {
                let other = listener.local_addr().map_err(fault("TCP"))?;
                if other != address {
                    let what = format!("the TCP socket given with it is on {other}");
                    let source = io::Error::new(io::ErrorKind::InvalidInput, what);
                    return Err(fault("UDP")(source));
                }
                tcp::given(listener).map_err(fault("TCP"))?
            }
        };
        let udp = transport::of_system(udp).map_err(fault("UDP"))?;
        Ok(Self { asked: address, address, udp, tcp })
    }
}
