//! Which addresses are this endpoint's own?
//!
//! Two listeners on one are a fault of the configuration, and so is an upstream there.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use rustix::net::{AddressFamily, SocketType};

use crate::{
    config::{
        Config, Site,
        web::{Content, LoopbackHttp, Upstream},
    },
    error::{CliError, Result},
};

/// Checks that no two listeners want one address.
///
/// # Errors
/// Two that do. Exit code 2.
pub(super) fn clashes(listen: &[SocketAddr], config: &Config) -> Result<()> {
    let mut wanted: Vec<(&str, SocketAddr)> = Vec::new();
    let listen = listen.iter().map(|address| ("listen", *address));
    let plain = config.plain_listen.iter().map(|address| ("plain_listen", *address));
    for (name, address) in listen.chain(plain).chain(loopback(config).map(|a| ("loopback_http", a)))
    {
        if let Some((other, taken)) = wanted.iter().find(|(_, taken)| overlap(*taken, address)) {
            let message = match *taken == address {
                true => format!("{address} stands in `{other}` and again in `{name}`"),
                false => format!("{address} in `{name}` overlaps {taken} in `{other}`"),
            };
            return Err(CliError::usage("addr-clash", message).hint(
                "give each an address of its own ([::] takes IPv4 too): endpoint config check",
            ));
        }
        wanted.push((name, address));
    }
    Ok(())
}

/// Where the configuration puts the loopback listener.
pub(super) fn loopback(config: &Config) -> Option<SocketAddr> {
    match config.loopback_http {
        LoopbackHttp::At(address) => Some(address),
        LoopbackHttp::Default | LoopbackHttp::Off => None,
    }
}

/// Whether one socket cannot be bound beside the other. `[::]` takes IPv4 too.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (a == b || covers(a, b) || covers(b, a))
}

/// `bound`, and where one of them is every address of this machine, those of the upstreams that are.
pub(super) fn own(mut bound: Vec<SocketAddr>, sites: &[Site]) -> Vec<SocketAddr> {
    let all: Vec<u16> =
        bound.iter().filter(|a| a.ip().is_unspecified()).map(SocketAddr::port).collect();
    if all.is_empty() {
        return bound;
    }
    let upstreams = sites.iter().flat_map(|site| match &site.content {
        Content::Proxy(upstreams) => upstreams.as_slice(),
        _ => &[],
    });
    for upstream in upstreams {
        let Upstream::Tcp { authority, .. } = upstream else { continue };
        let addresses = authority.to_socket_addrs().into_iter().flatten();
        bound.extend(addresses.filter(|a| all.contains(&a.port()) && is_of_this_machine(a.ip())));
    }
    bound
}

/// Whether the kernel would send from this address to it. Nothing is sent, and no port is asked for.
fn is_of_this_machine(ip: IpAddr) -> bool {
    let family = match ip {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let from = || {
        let socket = rustix::net::socket(family, SocketType::DGRAM, None)?;
        rustix::net::connect(&socket, &SocketAddr::from((ip, 9)))?;
        UdpSocket::from(socket).local_addr()
    };
    from().is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn knows_which_sockets_exclude_each_other() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(overlap(address(one), address(other)), expected, "{one} {other}");
            assert_eq!(overlap(address(other), address(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn knows_this_machine_s_addresses_where_all_are_bound() {
        let site = |upstream: &str| {
            let content = Content::Proxy(vec![crate::config::web::upstream(upstream).unwrap()]);
            [Site { content, ..Site::default() }]
        };
        let all = vec![address("0.0.0.0:4433")];
        // The address towards others, or loopback on a machine without a network.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let ip = match socket.connect("192.0.2.1:9") {
            Ok(()) => socket.local_addr().unwrap().ip(),
            Err(_) => IpAddr::from([127, 0, 0, 1]),
        };
        let found = own(all.clone(), &site(&format!("http://{ip}:4433")));
        assert_eq!(found, [all.clone(), vec![SocketAddr::from((ip, 4433))]].concat());
        assert_eq!(own(all.clone(), &site(&format!("http://{ip}:3000"))), all);
        assert_eq!(own(all.clone(), &site("http://192.0.2.1:4433")), all);
    }
}
