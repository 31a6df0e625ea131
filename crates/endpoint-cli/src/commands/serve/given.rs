//! Which sockets did the service manager open for us?
//!
//! systemd and its like pass sockets from descriptor 3 on and say how many in LISTEN_FDS
//! (sd_listen_fds(3)). A UDP and a TCP socket on one address are one port of the endpoint; a TCP socket
//! alone redirects to https, as `plain_listen` does.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use crate::error::{CliError, Result, io_cause};

/// Sockets that were bound before the program started.
#[derive(Debug, Default)]
pub struct Given {
    /// The endpoint's ports.
    pub(super) ports: Vec<(UdpSocket, Option<TcpListener>)>,
    /// Where plain HTTP redirects to https.
    pub(super) plain: Vec<TcpListener>,
}

impl Given {
    /// Takes them. Called before there are threads, because it changes the environment.
    ///
    /// # Errors
    /// A descriptor that is no UDP socket and no TCP listener, or no number of them.
    pub fn take() -> Result<Self> {
        countable()?;
        let mut passed = ListenFd::from_env();
        let (mut given, mut listeners) = (Self::default(), Vec::new());
        for index in 0..passed.len() {
            if let Ok(socket) = passed.take_udp_socket(index) {
                given.ports.extend(socket.map(|socket| (socket, None)));
                continue;
            }
            let number = index.saturating_add(3);
            let listener =
                passed.take_tcp_listener(index).map_err(|error| refused(number, &error))?;
            let Some(listener) = listener else { continue };
            if !socket_acceptconn(&listener).unwrap_or(true) {
                return Err(refused(
                    number,
                    &std::io::Error::other("it is a TCP socket that does not listen"),
                ));
            }
            listeners.push(listener);
        }
        for listener in listeners {
            let address = listener.local_addr().ok();
            let port = given.ports.iter_mut().find(|(udp, tcp)| {
                tcp.is_none() && address.is_some() && udp.local_addr().ok() == address
            });
            match port {
                Some((_, tcp)) => *tcp = Some(listener),
                None => given.plain.push(listener),
            }
        }
        Ok(given)
    }

    /// Addresses of UDP sockets that came without a TCP socket.
    pub(super) fn udp_alone(&self) -> Vec<SocketAddr> {
        let alone = self.ports.iter().filter(|(_, tcp)| tcp.is_none());
        alone.filter_map(|(udp, _)| udp.local_addr().ok()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.plain.is_empty()
    }
}

/// Sockets that cannot be counted must not be ignored.
fn countable() -> Result<()> {
    let text = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (Some(count), Some(pid)) = (text("LISTEN_FDS"), text("LISTEN_PID")) else { return Ok(()) };
    if pid.parse() != Ok(std::process::id()) || count.parse::<u16>().is_ok() {
        return Ok(());
    }
    let message =
        format!("LISTEN_FDS is `{}`, which is no number of sockets", count.escape_debug());
    Err(CliError::usage("given-socket", message)
        .hint("start without it: env -u LISTEN_FDS -u LISTEN_PID endpoint serve"))
}

fn refused(number: usize, error: &std::io::Error) -> CliError {
    let message = format!("descriptor {number} was given to listen on, but: {}", io_cause(error));
    CliError::usage("given-socket", message)
        .hint("give a ListenStream= and a ListenDatagram= of one address in the .socket unit")
}
