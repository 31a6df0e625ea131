//! Which tailscaled is asked for certificates?
//!
//! Ground: plain data. `certs::tailscale` speaks with it.

use std::path::PathBuf;

/// The certificate of a name in a tailnet, from the tailscaled of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tailscale {
    /// Its socket.
    pub socket: PathBuf,
}

impl Default for Tailscale {
    /// The socket where tailscaled has it by itself.
    fn default() -> Self {
        let socket = if cfg!(target_os = "macos") {
            "/var/run/tailscaled.socket"
        } else {
            "/var/run/tailscale/tailscaled.sock"
        };
        Self { socket: socket.into() }
    }
}
