//! Where do UDP sockets come from? The system, or a network that a test makes up.
//!
//! The seam of the simulation: everything above a socket, from admission to the handlers, is the real thing
//! there. Not here: the made-up network itself, which is a test's.
//!
//! Always true: an endpoint that was given a network opens no socket of the system, TCP included.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use quinn::{AsyncUdpSocket, Runtime as _};

/// A network of a test's own.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// A socket at `address`. Port 0 takes a free one; the unspecified address is the host's.
    ///
    /// # Errors
    /// As the system would say.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Where the chance of the carrier itself begins: packet numbers passed over, order of parameters.
    fn seed(&self) -> [u8; 32];
}

/// A bound socket of the system, for the runtime that this runs on.
pub(crate) fn of_system(socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    quinn::TokioRuntime.wrap_udp_socket(socket)
}
