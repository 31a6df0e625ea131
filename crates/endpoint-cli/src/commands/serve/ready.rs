//! What does the endpoint say when it is ready?

use std::net::SocketAddr;

use endpoint_core::{endpoint::Endpoint, identity::Fingerprint};
use serde_json::json;

use super::{Context, carriers};
use crate::{error::Result, web::Web};

/// Pages that are named; of more sites only the number is told.
const PAGES: usize = 5;

/// Where plain HTTP listens, and where TLS does not.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    /// Plain HTTP for this machine.
    pub(super) loopback: Option<SocketAddr>,
    /// Plain HTTP that redirects to https.
    pub(super) redirects: Vec<SocketAddr>,
    /// Addresses of the endpoint that were given without a TCP socket.
    pub(super) udp_alone: Vec<SocketAddr>,
}

/// The port of the first address that is listened on over TCP too: a browser comes over TCP first.
pub(super) fn port_of_tcp(endpoint: &Endpoint, listeners: &Listeners) -> Option<u16> {
    let mut listen = endpoint.local_addrs().iter();
    listen.find(|address| !listeners.udp_alone.contains(address)).map(SocketAddr::port)
}

/// Tells how to reach the endpoint.
pub(super) fn tell(
    endpoint: &Endpoint,
    web: &Web,
    listeners: &Listeners,
    context: &Context,
) -> Result<()> {
    let Listeners { loopback, redirects, udp_alone } = listeners;
    let url = |address: &SocketAddr| format!("http://{address}/");
    let status = loopback.as_ref().map(url);
    let redirects: Vec<String> = redirects.iter().map(url).collect();
    let listen = endpoint.local_addrs();
    let pages = port_of_tcp(endpoint, listeners).map(|port| web.urls(port)).unwrap_or_default();
    let (told, rest) = pages.split_at(pages.len().min(PAGES));
    let fingerprint = endpoint.fingerprint();
    let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let peer = peer_uri(fingerprint, listen);
    let output = context.output;
    if output.is_json() {
        output.object(&json!({
            "event": "ready",
            "listen": addresses,
            "fingerprint": fingerprint.to_string(),
            "peer": peer,
            "urls": told.iter().chain(&status).collect::<Vec<_>>(),
            "pid": std::process::id(),
        }))?;
    }
    output.say(&format!("listening    {}", listening(listen, udp_alone)));
    for url in told {
        output.say(&format!("page         {url}"));
    }
    if !rest.is_empty() {
        output.say(&format!("             and {} more", rest.len()));
    }
    for url in &redirects {
        output.say(&format!("redirect     {url}"));
    }
    if let Some(status) = &status {
        output.say(&format!("status       {status}"));
    }
    output.say(&format!("peer         {peer}"));
    output.say(&format!("fingerprint  {fingerprint}"));
    output.say(&format!("state        {}", context.state.folder().display()));
    output.say(&format!("next         elsewhere: endpoint ping {peer}"));
    let certificates = endpoint.certificates();
    let own = certificates.iter().find(|info| info.source == "self-signed");
    let page = own.and_then(|info| {
        let of_it = |url: &&String| info.names.iter().any(|name| names(url, name));
        Some((info.file.as_ref()?, told.iter().find(of_it)?))
    });
    if let Some((file, url)) = page {
        let file = crate::error::shell_word(file);
        output.say(&format!("             here: curl --cacert {file} {url}"));
    }
    tracing::debug!(listen = %addresses.join(" "), "ready");
    Ok(())
}

/// Whether this is the page of `name`.
fn names(url: &str, name: &str) -> bool {
    let rest = url.strip_prefix("https://").and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.starts_with([':', '/']))
}

/// The addresses with what is bound there.
fn listening(listen: &[SocketAddr], udp_alone: &[SocketAddr]) -> String {
    let (alone, both): (Vec<&SocketAddr>, Vec<_>) =
        listen.iter().partition(|address| udp_alone.contains(address));
    let text = |addresses: &[&SocketAddr], carriers: &str| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        (!addresses.is_empty()).then(|| format!("{} ({carriers})", addresses.join(" ")))
    };
    let parts = [text(&both, carriers::LISTENING), text(&alone, "UDP")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// How a peer on this machine names this endpoint; others put a name of this machine in.
pub(super) fn peer_uri(fingerprint: Fingerprint, addresses: &[SocketAddr]) -> String {
    let text = fingerprint.to_string();
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    let Some(mut address) = addresses.first().copied() else { return String::new() };
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        }
    }
    format!("peer://{hex}@{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_itself_by_an_address_that_can_be_dialled() {
        let key = Fingerprint::from_bytes([0xab; 32]);
        let hex = "ab".repeat(32);
        let uri = |address: &str| peer_uri(key, &[address.parse().unwrap()]);
        assert_eq!(uri("0.0.0.0:4433"), format!("peer://{hex}@127.0.0.1:4433"));
        assert_eq!(uri("[::]:4433"), format!("peer://{hex}@[::1]:4433"));
        assert_eq!(uri("192.0.2.7:1"), format!("peer://{hex}@192.0.2.7:1"));
    }

    #[test]
    fn tells_an_address_without_tcp_as_such() {
        let [one, other] = ["127.0.0.1:1", "[::1]:2"].map(|text| text.parse().unwrap());
        let both = carriers::LISTENING;
        assert_eq!(listening(&[one, other], &[]), format!("127.0.0.1:1 [::1]:2 ({both})"));
        assert_eq!(listening(&[one, other], &[one]), format!("[::1]:2 ({both}) 127.0.0.1:1 (UDP)"));
        assert_eq!(listening(&[one], &[one]), "127.0.0.1:1 (UDP)");
    }
}
