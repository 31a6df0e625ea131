//! How much is there, and how much of it may one prefix have?
//!
//! The limits of the configuration with everything that follows from them worked out once.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{
    rate::Rate,
    source::{Prefix, Rank},
};
use crate::{
    config::{Limits, PenaltyLimits},
    facts::Carrier,
};

/// What the table decides by.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) handshakes: Room,
    /// Of strangers; peers come on top.
    pub(crate) strangers: Room,
    pub(crate) connections: usize,
    waiting: [usize; 2],
    pub(crate) waiting_bytes: usize,
    pub(crate) give_way_after: Duration,
    second: u32,
    hour: u32,
    pub(crate) tracked: usize,
    pub(crate) penalties: PenaltyLimits,
    exempt: Vec<IpNet>,
}

/// A number of places and the shares of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) total: usize,
    /// Kept for addresses from which a peer was authorised.
    pub(crate) reserved: usize,
    address: usize,
    site: usize,
}

impl Room {
    fn new(
        total: usize,
        address: Option<usize>,
        site: Option<usize>,
        reserved: Option<usize>,
    ) -> Self {
        Self {
            total,
            reserved: reserved.unwrap_or(total / 8).min(total),
            address: address.unwrap_or(total / 8).max(1),
            site: site.unwrap_or(total / 4).max(1),
        }
    }

    /// What anybody may take together.
    pub(crate) fn open(&self) -> usize {
        self.total - self.reserved
    }

    /// Up to here nobody asks for shares: there is room for others, and a burst is no attack.
    pub(crate) fn spare(&self) -> usize {
        self.open() - self.open() / 4
    }

    /// The share of one prefix while others want the room.
    pub(crate) fn share(&self, prefix: Prefix) -> usize {
        match prefix.rank() {
            Rank::Address => self.address,
            Rank::Site => self.site,
            Rank::Region => self.site.saturating_mul(2),
            Rank::Provider => self.site.saturating_mul(3),
        }
    }
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let of = &limits.admission;
        // A quarter of the connections is for keys that have a grant.
        let strangers = limits.connections - limits.connections / 4;
        Self {
            handshakes: Room::new(
                limits.handshakes_in_flight,
                of.handshakes_per_address,
                of.handshakes_per_prefix,
                of.handshakes_reserved,
            ),
            strangers: Room::new(
                strangers,
                of.connections_per_address,
                of.connections_per_prefix,
                of.connections_reserved,
            ),
            connections: limits.connections,
            waiting: [of.waiting_first_flights, of.waiting_connections],
            waiting_bytes: of.waiting_bytes,
            give_way_after: of.give_way_after,
            second: of.handshakes_per_second,
            hour: of.handshakes_per_hour,
            tracked: of.tracked_prefixes,
            penalties: of.penalties,
            exempt: of.penalty_exempt.clone(),
        }
    }

    pub(crate) fn waiting(&self, carrier: Carrier) -> usize {
        let [quic, tcp] = self.waiting;
        match carrier {
            Carrier::Quic => quic,
            Carrier::Tcp => tcp,
        }
    }

    /// Handshakes of one prefix in a second and in an hour.
    pub(crate) fn rates(&self, prefix: Prefix) -> [Rate; 2] {
        let times = match prefix.rank() {
            Rank::Address => 1,
            Rank::Site => 4,
            Rank::Region => 8,
            Rank::Provider => 16,
        };
        let (second, hour) = (self.second.saturating_mul(times), self.hour.saturating_mul(times));
        [
            Rate::new(second, Duration::from_secs(1), second.saturating_mul(4)),
            Rate::new(hour, Duration::from_secs(3600), hour / 2),
        ]
    }

    /// Failures of a prefix count for it from so many times as many on as those of an address.
    pub(crate) fn weight(prefix: Prefix) -> u32 {
        match prefix.rank() {
            Rank::Address => 1,
            Rank::Site => 16,
            Rank::Region => 64,
            Rank::Provider => 256,
        }
    }

    pub(crate) fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.exempt.iter().any(|network| network.contains(&address))
    }
}
