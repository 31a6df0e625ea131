//! How much may strangers take, by where they come from?
//!
//! Ground: part of [`Limits`]. What is not set follows from the totals.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use super::Limits;

/// Shares, rates and waiting rooms of admission.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionLimits {
    pub(crate) handshakes_per_address: Option<usize>,
    pub(crate) handshakes_per_prefix: Option<usize>,
    pub(crate) handshakes_reserved: Option<usize>,
    pub(crate) connections_per_address: Option<usize>,
    pub(crate) connections_per_prefix: Option<usize>,
    pub(crate) connections_reserved: Option<usize>,
    pub(crate) waiting_connections: usize,
    pub(crate) waiting_first_flights: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) give_way_after: Duration,
    pub(crate) handshakes_per_second: u32,
    pub(crate) handshakes_per_hour: u32,
    pub(crate) tracked_prefixes: usize,
    pub(crate) penalties: PenaltyLimits,
    pub(crate) penalty_exempt: Vec<IpNet>,
}

/// What failures cost, and for how long a source pays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PenaltyLimits {
    pub(crate) deadline: Duration,
    pub(crate) left: Duration,
    pub(crate) key: Duration,
    pub(crate) panic: Duration,
    /// What one good connection takes off a debt for handshakes that is not enforced yet.
    pub(crate) forgiven: Duration,
    /// Owed by an address before anything follows.
    pub(crate) holds_from: Duration,
    /// The most that can be owed, unless a wide prefix needs more before anything follows.
    pub(crate) most: Duration,
}

impl Default for PenaltyLimits {
    /// Those of OpenSSH (`PerSourcePenalties`).
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            left: Duration::from_secs(1),
            key: Duration::from_secs(5),
            panic: Duration::from_secs(90),
            forgiven: Duration::from_secs(1),
            holds_from: Duration::from_secs(15),
            most: Duration::from_secs(600),
        }
    }
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        let loopback = [(Ipv4Addr::LOCALHOST.into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)];
        Self {
            handshakes_per_address: None,
            handshakes_per_prefix: None,
            handshakes_reserved: None,
            connections_per_address: None,
            connections_per_prefix: None,
            connections_reserved: None,
            waiting_connections: 4096,
            waiting_first_flights: 256,
            waiting_bytes: 16 * 1024 * 1024,
            give_way_after: Duration::from_secs(1),
            handshakes_per_second: 500,
            handshakes_per_hour: 200_000,
            tracked_prefixes: 32_768,
            penalties: PenaltyLimits::default(),
            penalty_exempt: networks(loopback),
        }
    }
}

/// A length that is more than the address has is taken for all of it.
fn networks(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Vec<IpNet> {
    let network = |(address, length): (IpAddr, u8)| {
        let all = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(all)).ok().map(|network| network.trunc())
    };
    networks.into_iter().filter_map(network).collect()
}

impl Limits {
    limit!(
        /// Handshakes in flight of one address (IPv4 /32, IPv6 /64) on one carrier while others want the
        /// room. Default an eighth of `handshakes_in_flight`.
        handshakes_per_address: usize => admission.handshakes_per_address
    );
    limit!(
        /// The same of one site (IPv4 /24, IPv6 /48); an IPv6 /40 has twice as much, a /32 three times.
        /// Default a quarter of `handshakes_in_flight`.
        handshakes_per_prefix: usize => admission.handshakes_per_prefix
    );
    limit!(
        /// Handshakes in flight on one carrier kept for addresses from which a peer was authorised within 24
        /// hours. Default an eighth of `handshakes_in_flight`.
        handshakes_reserved: usize => admission.handshakes_reserved
    );
    limit!(
        /// Connections without a grant of one address while others want the room. Default an eighth of those
        /// that strangers may have, which are three quarters of `connections`.
        connections_per_address: usize => admission.connections_per_address
    );
    limit!(
        /// The same of one site (IPv4 /24, IPv6 /48); an IPv6 /40 has twice as much, a /32 three times.
        /// Default a quarter of those that strangers may have.
        connections_per_prefix: usize => admission.connections_per_prefix
    );
    limit!(
        /// Of the connections that strangers may have, those kept for addresses from which a peer was
        /// authorised within 24 hours. Default an eighth of them.
        connections_reserved: usize => admission.connections_reserved
    );
    limit!(
        /// TCP connections that have said nothing yet or wait for their turn to shake hands; each holds a
        /// descriptor. When there are more, the longest silent one of the fullest prefix goes. Default 4096.
        waiting_connections: usize => admission.waiting_connections
    );
    limit!(
        /// First flights of validated QUIC clients that wait for their turn; one more is dropped, and the
        /// client sends it again. Default 256.
        waiting_first_flights: usize => admission.waiting_first_flights
    );
    limit!(
        /// Bytes that those who wait for a handshake over TCP may leave unread in all. Default 16 MiB.
        waiting_bytes: usize => admission.waiting_bytes
    );
    limit!(
        /// Silence within a handshake after which it gives way to one that waits and whose prefix has fewer;
        /// half of it where its own prefix has more than its share. Default 1 s.
        give_way_after: Duration => admission.give_way_after
    );
    limit!(
        /// Handshakes that one address (IPv4 /32, IPv6 /64) begins in a second, four seconds' worth at once;
        /// what comes faster is served when nobody else waits. A site (/24, /48) has four times as many, an
        /// IPv6 /40 eight, a /32 sixteen. Default 500.
        handshakes_per_second: u32 => admission.handshakes_per_second
    );
    limit!(
        /// The same in an hour, half of them at once. Default 200,000.
        handshakes_per_hour: u32 => admission.handshakes_per_hour
    );
    limit!(
        /// Prefixes about which something is remembered while nothing of theirs is there; the oldest is
        /// forgotten first. Default 32,768, about 5 MB.
        tracked_prefixes: usize => admission.tracked_prefixes
    );

    limit!(
        /// What a proven address owes for a first byte or a handshake that is not there in time. Default 10 s.
        penalty_deadline: Duration => admission.penalties.deadline
    );
    limit!(
        /// The same for a handshake that is left, or a connection that asks for nothing. Default 1 s.
        penalty_left: Duration => admission.penalties.left
    );
    limit!(
        /// The same for a key without a grant, or one that is not proven. Default 5 s.
        penalty_key: Duration => admission.penalties.key
    );
    limit!(
        /// The same for a panic of ours at what it sent. Default 90 s.
        penalty_panic: Duration => admission.penalties.panic
    );
    limit!(
        /// What one good connection takes off a debt for handshakes that is not enforced yet. Default 1 s.
        penalty_forgiven: Duration => admission.penalties.forgiven
    );
    limit!(
        /// What an address owes before anything follows; a site (IPv4 /24, IPv6 /48) 16 times as much, an IPv6
        /// /40 64 times, a /32 256 times. Default 15 s.
        penalty_holds_from: Duration => admission.penalties.holds_from
    );
    limit!(
        /// The most that can be owed; what it takes for anything to follow, where that is more. Default 10 min.
        penalty_most: Duration => admission.penalties.most
    );

    /// Networks whose addresses are never penalised, such as those of proxies. Shares, rates and totals hold
    /// for them as for everybody. Each is an address and the length of its prefix in bits. Default 127.0.0.0/8
    /// and ::1/128.
    #[must_use]
    pub fn penalty_exempt(mut self, exempt: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        self.admission.penalty_exempt = networks(exempt);
        self
    }
}
