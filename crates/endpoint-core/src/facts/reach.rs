//! From where does a connection come, as far as certificates go?
//!
//! The key of a shared bundle is in many hands, so whoever reaches it over a network could be speaking with
//! anybody. On loopback nobody stands between.
//!
//! Always true: what is not known to be loopback on both sides is not loopback.

use std::net::IpAddr;

/// From where a connection comes, or from where a certificate may be seen.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum Reach {
    /// From any address.
    #[default]
    Everywhere,
    /// From this machine, at a loopback address.
    Loopback,
}

impl Reach {
    /// The reach of a connection, by its own address and the other side's. A remote side counts too: a
    /// kernel may be told to route loopback addresses (`route_localnet`).
    pub(crate) fn of(local: Option<IpAddr>, remote: IpAddr) -> Self {
        if local.is_some_and(is_loopback) && is_loopback(remote) {
            Self::Loopback
        } else {
            Self::Everywhere
        }
    }

    /// Whether a connection of this reach may see a certificate of that one.
    pub(crate) fn sees(self, certificate: Self) -> bool {
        self == Self::Loopback || certificate == Self::Everywhere
    }
}

pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_for_loopback_only_what_is_known_to_be_on_both_sides() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (local, remote) in
            [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::ffff:127.9.9.9", "127.0.0.1")]
        {
            let reach = Reach::of(Some(ip(local)), ip(remote));
            assert!(reach == Reach::Loopback && reach.sees(Reach::Loopback), "{local}");
        }
        for (local, remote) in [
            (None, "127.0.0.1"),
            (Some("127.0.0.1"), "192.0.2.1"),
            (Some("192.0.2.1"), "127.0.0.1"),
            (Some("0.0.0.0"), "127.0.0.1"),
            (Some("::"), "::1"),
            (Some("::ffff:192.0.2.1"), "127.0.0.1"),
            (Some("fe80::1"), "fe80::1"),
        ] {
            let reach = Reach::of(local.map(ip), ip(remote));
            assert!(!reach.sees(Reach::Loopback) && reach.sees(Reach::Everywhere), "{local:?}");
        }
    }
}
