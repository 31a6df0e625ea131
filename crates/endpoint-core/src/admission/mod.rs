//! May this arrival cost us a handshake, and later a connection? Step 2 of 6.
//!
//! Takes an arrival; gives a [`Waiting`], which becomes a [`Slot`] when its turn has come, which becomes a
//! [`ConnectionSlot`]. Decides by where it comes from: one table of sources behind one trait ([`filter`]).
//! Not here: who the peer is (`tls`), what it may do (`trust`), how long a phase may last (`phase`).
//!
//! Always true: a datagram from an address that nobody has proven (RFC 9000 §8.1) neither makes, touches nor
//! drops an entry of the table, and is answered with a handshake or a Retry, never with a refusal; strangers
//! never take the last quarter of the connections; who holds a grant gives way to nobody.

mod budget;
mod crowd;
mod filter;
mod gate;
mod hoarders;
mod penalty;
mod rate;
mod record;
mod reserve;
mod shake;
mod source;
mod table;
mod trim;
mod turns;
mod unproven;
mod victims;

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod site_tests;
#[cfg(test)]
mod table_properties;
#[cfg(test)]
mod table_tests;

pub(crate) use self::{
    filter::{Arrival, Refusal, Who},
    gate::{Closing, ConnectionSlot, Gate, Slot, Waiting},
    penalty::Failure,
};
