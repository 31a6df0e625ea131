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
    /// Hosts that it showed since it answered from `proven`; it may have answered from them too.
    shown: Shown,
    /// It was nowhere else since.
    traced: bool,
}

/// Hosts that a peer showed since it last proved one: more than two at a time are not followed.
pub(crate) type Shown = [Option<IpAddr>; 2];

impl Address {
    /// The peer is at `address`, and answered from there.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { proven: address, present: address, shown: [None; 2], traced: true }
    }

    /// The peer answered from `proven`; its newest packet says `present`. Since then it showed `shown`, and
    /// `traced` says that it was nowhere else.
    pub(crate) fn moved(
        proven: SocketAddr,
        present: SocketAddr,
        shown: Shown,
        traced: bool,
    ) -> Self {
        Self { proven, present, shown, traced }
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
        self.traced && self.proven == self.present && self.shown == [None; 2]
    }

    /// Whether `rule` holds wherever the peer may be: at the proven address, at the present one, and at any
    /// that it may have used in between, of which nothing is known.
    #[must_use]
    pub fn satisfies(&self, rule: impl Fn(IpAddr) -> bool) -> bool {
        self.traced
            && rule(self.proven.ip())
            && rule(self.present.ip())
            && self.shown.into_iter().flatten().all(rule)
    }
}

impl fmt::Display for Address {
    /// The proven address, and the present one beside it while it is another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_settled() {
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
            (Address::moved(home, desk, [None; 2], true), true),
            (Address::moved(home, away, [None; 2], true), false),
            (Address::moved(away, home, [None; 2], true), false),
            (Address::moved(home, home, [Some(desk.ip()), None], true), true),
            (Address::moved(home, home, [Some(desk.ip()), Some(away.ip())], true), false),
            (Address::moved(home, desk, [None; 2], false), false),
            (Address::moved(home, home, [None; 2], false), false),
        ] {
            assert_eq!(address.satisfies(inside), holds, "{address:?}");
        }
    }

    #[test]
    fn says_which_address_is_proven() {
        let (home, away) = (ip("192.0.2.1"), ip("198.51.100.1"));
        assert_eq!(Address::at(home).to_string(), "192.0.2.1:7");
        let moved = Address::moved(home, away, [None; 2], true);
        assert_eq!(moved.to_string(), "192.0.2.1:7 (unproven: 198.51.100.1:7)");
        assert!(!moved.is_settled() && Address::at(away).is_settled());
    }
}
