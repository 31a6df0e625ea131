//! Does a request come from this machine, or did a proxy on this machine pass it on?
//!
//! Behind a proxy or a tunnel everybody's connection comes from loopback. So what says of itself that it was
//! passed on comes from here only if a proxy that is trusted says so.
//!
//! Always true: a field of forwarding, however it is spelt and whoever wrote it, makes no request more local.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};

use super::Requester;
use crate::facts::is_loopback;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// A field's name as the most careless reader sees it: some servers read any character that is no letter or
/// digit as `-`.
#[must_use]
pub fn folded(name: &HeaderName) -> String {
    let plain = |b: u8| if b.is_ascii_alphanumeric() { char::from(b) } else { '-' };
    name.as_str().bytes().map(plain).collect()
}

/// Whether a field of this name, [`folded`], tells where a request came from or went to.
#[must_use]
pub fn is_of_forwarding(name: &str) -> bool {
    let others = [
        "cf-connecting-ip",
        "client-ip",
        "fastly-client-ip",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "x-originating-ip",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
    ];
    others.contains(&name) || name.starts_with("x-forwarded-")
}

impl Requester {
    /// Whether a request with these fields comes from this machine: its connection does, and if a proxy
    /// passed it on, then one of those that are `trusted`, which names none but addresses of this machine.
    #[must_use]
    pub fn is_here(&self, headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> bool {
        let address = self.address();
        let passed_on = headers.keys().any(|name| {
            let folded = folded(name);
            folded == header::VIA.as_str() || is_of_forwarding(&folded)
        });
        address.satisfies(is_loopback)
            && (!passed_on || (address.satisfies(trusted) && names_only_loopback(headers)))
    }
}

/// Whether the fields name where the request came from, and nothing but loopback addresses.
fn names_only_loopback(headers: &HeaderMap) -> bool {
    let mut named = 0_usize;
    for (name, value) in headers {
        let folded = folded(name);
        if !is_of_forwarding(&folded) {
            continue;
        }
        let Ok(text) = value.to_str() else { return false };
        let local = match name {
            name if *name == FORWARDED_FOR || *name == REAL_IP => {
                named = named.saturating_add(1);
                text.split(',').all(|node| is_loopback_node(node.trim()))
            }
            name if *name == header::FORWARDED => {
                let mut nodes = forwarded_for(text).peekable();
                named = named.saturating_add(usize::from(nodes.peek().is_some()));
                nodes.all(is_loopback_node)
            }
            // Of the other fields some name a host or a scheme, and those that name an address no proxy has
            // to take from its client.
            _ => ["x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"]
                .contains(&name.as_str()),
        };
        if !local {
            return false;
        }
    }
    named > 0
}

/// The values of `for=` in a line of `forwarded` (RFC 7239 §4).
fn forwarded_for(line: &str) -> impl Iterator<Item = &str> {
    line.split([',', ';']).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// Whether a node is a loopback address, with a port or without (RFC 7239 §6).
fn is_loopback_node(node: &str) -> bool {
    let host = match node.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host),
        None => Some(match node.split_once(':') {
            // One colon: a port. More: an IPv6 address without brackets.
            Some((host, port)) if !port.contains(':') => host,
            _ => node,
        }),
    };
    host.and_then(|host| host.parse().ok()).is_some_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_here(remote: &str, fields: &[(&str, &str)], trusted: &str) -> bool {
        let remote = remote.parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let trusted: Option<IpAddr> = trusted.parse().ok();
        Requester::plain(remote, remote).is_here(&headers, |host| Some(host) == trusted)
    }

    #[test]
    fn what_was_passed_on_comes_from_here_only_if_a_trusted_proxy_says_so() {
        const HERE: &str = "127.0.0.1:9";
        const US: &str = "127.0.0.1";
        let far: &[&[(&str, &str)]] = &[
            &[("x-forwarded-for", "192.0.2.1")],
            &[("x-forwarded-for", "127.0.0.1, 192.0.2.1")],
            &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "192.0.2.1")],
            &[("x-forwarded-for", "localhost")],
            &[("x-forwarded-for", "")],
            &[("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "192.0.2.1")],
            &[("x-forwarded-for", "127.0.0.1"), ("x_forwarded_for", "127.0.0.1")],
            &[("x-forwarded-for", "127.0.0.1"), ("cf-connecting-ip", "192.0.2.1")],
            &[("forwarded", "for=192.0.2.1;proto=https")],
            &[("forwarded", "for=127.0.0.1, for=\"[2001:db8::1]:4711\"")],
            &[("forwarded", "for=unknown")],
            &[("forwarded", "for=_hidden")],
            &[("forwarded", "proto=https")],
            &[("x-forwarded-proto", "https")],
            &[("via", "1.1 proxy")],
            &[("x_real_ip", "127.0.0.1")],
            &[("client.ip", "127.0.0.1")],
        ];
        for fields in far {
            assert!(!is_here(HERE, fields, ""), "{fields:?}");
            assert!(!is_here(HERE, fields, US), "{fields:?}");
        }
        let near: &[&[(&str, &str)]] = &[
            &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https"), ("via", "1.1 p")],
            &[("x-forwarded-for", "127.0.0.1:4711, ::1, [::1]:7")],
            &[("x-real-ip", "127.0.0.1")],
            &[("forwarded", "For=\"[::1]:4711\";proto=http, for=127.0.0.1")],
        ];
        for fields in near {
            assert!(is_here(HERE, fields, US), "{fields:?}");
            assert!(!is_here(HERE, fields, ""), "without a trusted proxy: {fields:?}");
            assert!(!is_here("192.0.2.7:9", fields, "192.0.2.7"), "a proxy elsewhere: {fields:?}");
        }
        assert!(is_here(HERE, &[("host", "x"), ("accept", "*/*")], ""));
        assert!(!is_here("192.0.2.7:9", &[], "192.0.2.7"));
    }
}
