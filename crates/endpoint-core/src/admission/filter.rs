//! What does the endpoint ask of whoever decides about strangers?
//!
//! One trait, so that another rule can stand in its place; [`Table`](super::table::Table) is ours. Pure: no
//! I/O, time is an argument, and a decision is told by return values and [`Activity::give_way`].

use std::{fmt, net::IpAddr};

use tokio::time::Instant;

use super::penalty::{Category, Failure};
use crate::{config::Limits, facts::Carrier, identity::Fingerprint, phase::Activity};

/// Names one arrival from its coming to its end.
pub(crate) type Id = u64;

/// Somebody whose address is proven: by TCP's handshake, by a Retry token, or by a whole QUIC handshake.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) address: IpAddr,
    pub(crate) carrier: Carrier,
    pub(crate) activity: Activity,
}

/// Who takes up a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    /// A proven key with a grant. Only counted by: what it may do is decided later.
    Known,
    /// Everybody else.
    Stranger,
}

/// Why an arrival is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// There is no room, and nobody who could give way.
    Full,
    /// Its address failed too often.
    Penalised,
}

/// How an arrival came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// In order, or for a reason that is not its own.
    Fair,
    Failed(Failure),
}

/// Decides who may come in, who waits and who gives way.
pub(crate) trait Filter: fmt::Debug + Send {
    /// Takes an arrival into the table, where it waits and costs a descriptor.
    ///
    /// # Errors
    /// [`Refusal`]: it is not in the table.
    fn arrive(&mut self, arrival: Arrival, now: Instant) -> Result<Id, Refusal>;

    /// It has something to say, of which `bytes` wait unread: from now on it waits for a handshake.
    fn ready(&mut self, id: Id, bytes: usize, now: Instant);

    /// Those whose turn has come since the last call; each holds a handshake from now on.
    fn turns(&mut self, now: Instant) -> Vec<Id>;

    /// Its handshake is over and it becomes a connection, unless there is no room.
    ///
    /// # Errors
    /// [`Refusal`]: it is in the table until it is [`Self::gone`], and counts as nothing.
    fn connected(&mut self, id: Id, who: Who, now: Instant) -> Result<(), Refusal>;

    /// The same for somebody whose handshake itself was the proof of the address.
    ///
    /// # Errors
    /// As for [`Self::connected`], and it is not in the table.
    fn proven(&mut self, arrival: Arrival, who: Who, now: Instant) -> Result<Id, Refusal>;

    /// A peer with this key was authorised on that connection.
    fn authorised(&mut self, id: Id, key: Fingerprint, now: Instant);

    /// Its key was refused; the connection itself ends in its own time.
    fn failed(&mut self, id: Id, failure: Failure, now: Instant);

    /// Its handshake is over, if by a fault of its own by this one, and it holds no more than its memory until it
    /// is gone.
    fn closing(&mut self, id: Id, failure: Option<Failure>, now: Instant);

    /// What came from there has ended, and holds its memory for long.
    fn lingers(&mut self, address: IpAddr, now: Instant) -> Id;

    /// Whether there is so much of that that everybody has to prove an address beforehand.
    fn is_full_of_lingering(&self) -> bool;

    /// Whether its address is banned from this.
    fn is_banned(&self, id: Id, category: Category, now: Instant) -> bool;

    /// It is no more.
    fn gone(&mut self, id: Id, end: End, now: Instant);

    /// Looks after what time changes.
    fn tick(&mut self, now: Instant);

    /// Takes other limits. What is above them ends, the longest silent first, but nobody with a grant; gives
    /// how many.
    fn set_limits(&mut self, limits: &Limits, now: Instant) -> usize;

    /// Whether somebody waits for a turn.
    fn has_waiting(&self) -> bool;

    /// Proven handshakes in flight, on both carriers.
    fn handshakes(&self) -> usize;

    /// Connections that live now.
    fn connections(&self) -> usize;

    /// How many were told to give way since this was last asked.
    fn gave_way(&mut self) -> u64;
}
