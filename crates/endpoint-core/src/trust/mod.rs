//! What may a peer do? Step 5 of 6.
//!
//! Takes the facts of a handshake, the operator's list of keys and the time; gives a [`Permit`] or a
//! [`Denial`]. Also keeps watch over live connections, so that a revocation ends them.
//!
//! Always true: an absent, unreadable or garbled list admits nobody; a handler runs only with a permit.

pub mod authorized;
pub mod file;
pub mod known;
mod live;
mod look;
mod peers;
mod policy;
mod removed;

#[cfg(test)]
pub(crate) use self::look::Disk;
pub use self::{
    live::ConnectionInfo,
    peers::{AuthorizedPeers, AuthorizedPeersError, Reload},
    policy::{Approval, Denial, Permit, Policy},
    removed::Removed,
};
pub(crate) use self::{
    live::{Guard, Live, Watch},
    look::{Look, Looker},
    peers::GRACE,
};
