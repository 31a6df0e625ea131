//! How do `status`, `trust` and `kick` reach the running endpoint?
//!
//! Over a unix socket that only its owner can open: newline-delimited JSON, one request a
//! connection, answered by one or more lines. `place` finds the socket and keeps a second server
//! off the state folder, `protocol` is pure, `server` and `client` move the lines.

mod client;
mod place;
pub mod protocol;
mod server;

pub use self::{
    client::{ask, ask_if_running},
    place::{Claim, running_pid},
    server::{Desk, serve},
};
