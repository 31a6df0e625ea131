//! Which prefixes does an address stand in?
//!
//! Always true: an IPv4 address is the same source however it is written (`::ffff:192.0.2.1`), and everything
//! that one IPv6 site can number by itself (a /64) is one source.

use std::{fmt, net::IpAddr};

/// An address block: the unit of every share and penalty.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Prefix {
    /// The address's first bits, the others 0; IPv4 stands in the upper half.
    bits: u64,
    length: u8,
    v6: bool,
}

/// How wide a prefix is, as far as shares go.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Rank {
    /// IPv4 /32, IPv6 /64: one machine, or one line of subscribers.
    Address,
    /// IPv4 /24, IPv6 /48: one site.
    Site,
    /// IPv6 /40: several sites.
    Region,
    /// IPv6 /32: one provider.
    Provider,
}

/// Where an arrival comes from: its address, as prefixes that nest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Source {
    bits: u64,
    v6: bool,
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self { bits: u64::from(v4.to_bits()) << 32, v6: false },
            IpAddr::V6(v6) => Self { bits: (v6.to_bits() >> 64) as u64, v6: true },
        }
    }

    /// Its prefixes, the widest first.
    pub(crate) fn prefixes(self) -> impl DoubleEndedIterator<Item = Prefix> + Clone {
        let lengths: &[u8] = if self.v6 { &[32, 40, 48, 64] } else { &[24, 32] };
        lengths.iter().map(move |length| self.prefix(*length))
    }

    /// The narrowest of them.
    pub(crate) fn address(self) -> Prefix {
        self.prefix(if self.v6 { 64 } else { 32 })
    }

    /// The prefix that is one site's: what the counters of unvalidated sources are hashed by.
    pub(crate) fn site(self) -> Prefix {
        self.prefix(if self.v6 { 48 } else { 24 })
    }

    fn prefix(self, length: u8) -> Prefix {
        let kept = u64::MAX.checked_shl(64 - u32::from(length)).unwrap_or(0);
        Prefix { bits: self.bits & kept, length, v6: self.v6 }
    }
}

impl Prefix {
    /// The prefixes that it stands in, without itself.
    pub(crate) fn wider(self) -> impl Iterator<Item = Prefix> {
        let within = Source { bits: self.bits, v6: self.v6 };
        within.prefixes().take_while(move |prefix| prefix.length < self.length)
    }

    pub(crate) fn rank(self) -> Rank {
        match (self.v6, self.length) {
            (true, ..=32) => Rank::Provider,
            (true, 33..=40) => Rank::Region,
            (true, 41..=48) | (false, ..=24) => Rank::Site,
            _ => Rank::Address,
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = if self.v6 {
            IpAddr::from(std::net::Ipv6Addr::from_bits(u128::from(self.bits) << 64))
        } else {
            IpAddr::from(std::net::Ipv4Addr::from_bits((self.bits >> 32) as u32))
        };
        write!(f, "{address}/{}", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &str) -> Vec<String> {
        Source::of(text.parse().unwrap()).prefixes().map(|p| format!("{p:?}")).collect()
    }

    #[test]
    fn nests_at_24_and_32_and_at_32_40_48_and_64() {
        assert_eq!(prefixes("192.0.2.7"), ["192.0.2.0/24", "192.0.2.7/32"]);
        assert_eq!(prefixes("::ffff:192.0.2.7"), prefixes("192.0.2.7"));
        assert_eq!(
            prefixes("2001:db8:1234:5678::9"),
            [
                "2001:db8::/32",
                "2001:db8:1200::/40",
                "2001:db8:1234::/48",
                "2001:db8:1234:5678::/64"
            ]
        );
        assert_eq!(prefixes("0.0.0.0"), ["0.0.0.0/24", "0.0.0.0/32"]);
    }

    #[test]
    fn tells_the_families_and_the_ranks_apart() {
        let [v4, v6] = ["0.0.0.0", "::"].map(|text| Source::of(text.parse().unwrap()));
        assert_ne!(v4.address(), v6.address());
        let ranks = |source: Source| source.prefixes().map(Prefix::rank).collect::<Vec<_>>();
        assert_eq!(ranks(v4), [Rank::Site, Rank::Address]);
        assert_eq!(ranks(v6), [Rank::Provider, Rank::Region, Rank::Site, Rank::Address]);
        assert_eq!(v4.site(), v4.prefixes().next().unwrap());
    }
}
