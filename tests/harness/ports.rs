//! Which port can a test give to a server that is not there yet?
//!
//! One that the system gives to nobody who dials or binds to port 0: between the choice and the server other
//! tests run. A process gives no port twice, and two processes begin at different ones.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below are ports that programs are known for.
const FIRST: u16 = 10_240;
/// Where Linux begins to give ports away, if it does not say.
const EPHEMERAL: u16 = 32_768;

/// A port of loopback that nobody uses now, over TCP and UDP.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let mut random = [0; 2];
        aws_lc_rs::rand::fill(&mut random).expect("randomness");
        AtomicU16::new(u16::from_le_bytes(random))
    });
    let end = first_ephemeral();
    assert!(end > FIRST, "ports from {FIRST} on are given to whoever dials (ip_local_port_range)");
    (FIRST..end)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % (end - FIRST))
        .find(|port| is_free(*port))
        .expect("a port is free")
}

/// [`free_port`] on IPv4 loopback.
///
/// # Panics
/// As [`free_port`].
#[must_use]
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first =
        |range: String| range.split_whitespace().next().and_then(|first| first.parse().ok());
    range.ok().and_then(first).unwrap_or(EPHEMERAL)
}

fn is_free(port: u16) -> bool {
    let on =
        |ip: IpAddr| TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok();
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    on(Ipv4Addr::LOCALHOST.into()) && (!v6 || on(Ipv6Addr::LOCALHOST.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn gives_no_port_twice_and_none_that_the_system_gives() {
        let ports: Vec<_> = (0..50).map(|_| free_port()).collect();
        assert!(ports.iter().all(|port| *port < first_ephemeral()), "{ports:?}");
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
    }

    #[test]
    fn passes_over_what_is_taken() {
        let port = free_port();
        let _taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
    }
}
