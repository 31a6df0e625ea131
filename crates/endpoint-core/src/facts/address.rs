//! Where is the other side of a connection, and how much of that is proved?
//!
//! Ground: plain data. The link makes it, in one place (`transport::whereabouts`); whoever decides by
//! address asks [`Address::satisfies`], whoever tells others where a peer is says [`Address::proven`].
//!
//! Always true: an address that nobody answered from never says yes.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where the other side of a connection is.
///
/// A QUIC peer may move (RFC 9000 §9), and a datagram's source is whatever its sender wrote into it. So an
/// address counts from when it has answered: that of the handshake, or a later one whose path was
/// validated. What the newest packet shows is the *present* address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    proven: SocketAddr,
    present: SocketAddr,
    /// No other address was, or may have been, in use between the two.
    traced: bool,
}

impl Address {
    /// The peer is at `address`, and answered from there.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { proven: address, present: address, traced: true }
    }

    /// The peer answered from `proven`; its newest packet says `present`. `traced` says that it was nowhere
    /// else in between.
    pub(crate) fn moved(proven: SocketAddr, present: SocketAddr, traced: bool) -> Self {
        Self { proven, present, traced }
    }

    /// Where the peer answered from last. The host is what counts: a NAT may change the port at any time.
    #[must_use]
    pub fn proven(&self) -> SocketAddr {
        self.proven
    }

    /// Where its newest packet says that it is.
    #[must_use]
    pub fn present(&self) -> SocketAddr {
        self.present
    }

    /// Whether the present address is proven.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.traced && self.proven == self.present
    }

    /// Whether `rule` holds wherever the peer may be: at the proven address, at the present one, and at any
    /// that it may have used in between, of which nothing is known.
    #[must_use]
    pub fn satisfies(&self, rule: impl Fn(IpAddr) -> bool) -> bool {
        self.traced && rule(self.proven.ip()) && rule(self.present.ip())
    }
}

impl fmt::Display for Address {
    /// The proven address, and the present one beside it while it is another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proven == self.present {
            true => write!(f, "{}", self.proven),
            false => write!(f, "{} (unproven: {})", self.proven, self.present),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> SocketAddr {
        format!("{text}:7").parse().unwrap()
    }

    #[test]
    fn a_rule_holds_only_if_it_holds_wherever_the_peer_may_be() {
        let inside = |ip: IpAddr| ip.to_string().starts_with("192.0.2.");
        let (home, desk, away) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("198.51.100.1"));
        for (address, holds) in [
            (Address::at(home), true),
            (Address::at(away), false),
            (Address::moved(home, desk, true), true),
            (Address::moved(home, away, true), false),
            (Address::moved(away, home, true), false),
            (Address::moved(home, desk, false), false),
            (Address::moved(home, home, false), false),
        ] {
            assert_eq!(address.satisfies(inside), holds, "{address:?}");
        }
    }

    #[test]
    fn says_which_address_is_proven() {
        let (home, away) = (ip("192.0.2.1"), ip("198.51.100.1"));
        assert_eq!(Address::at(home).to_string(), "192.0.2.1:7");
        let moved = Address::moved(home, away, true);
        assert_eq!(moved.to_string(), "192.0.2.1:7 (unproven: 198.51.100.1:7)");
        assert!(!moved.is_settled() && Address::at(away).is_settled());
    }
}
