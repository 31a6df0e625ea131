//! Which profile, and which protocol on it?
//!
//! Step 3, second half: the table of protocols and profiles, applied to one hello. Pure.
//!
//! Always true: an answer is one profile and one protocol that the client offered, that is
//! registered, and that the table allows on that profile; everything else is an alert. No error
//! leads to a default profile.

use crate::{
    alpn::{Alpn, is_http_name},
    facts::{Carrier, KeyKind, Profile},
};

use super::hello::{Alert, Hello};

/// How a protocol counts in the table of profiles.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum AlpnClass {
    /// Browsers speak it: never where an X.509 client certificate is asked for.
    Http,
    /// Everybody may reach it, with or without a key.
    Public,
    /// Only on profiles that ask for a key.
    Peer,
}

/// A protocol that may be negotiated. The order of a list of offers is the server's preference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Offer {
    /// Its name.
    pub(crate) alpn: Alpn,
    /// How it counts in the table.
    pub(crate) class: AlpnClass,
    /// Whether it may be negotiated over TCP.
    pub(crate) tcp: bool,
}

impl Offer {
    /// Whether it may be negotiated over that carrier. The names of HTTP say their carrier: `h3` is
    /// HTTP over QUIC (RFC 9114 §3.1), the others are HTTP over TLS on TCP (RFC 9113 §3.2).
    pub(crate) fn on(&self, carrier: Carrier) -> bool {
        match carrier {
            Carrier::Quic => self.alpn != Alpn::H2 && self.alpn != Alpn::HTTP_1_1,
            Carrier::Tcp => self.tcp && self.alpn != Alpn::H3,
        }
    }

    fn is_http(&self) -> bool {
        self.class == AlpnClass::Http || self.alpn.is_http()
    }
}

/// Whether a protocol of this class may be negotiated on that profile.
pub(crate) fn may_negotiate(profile: Profile, offer: &Offer) -> bool {
    match (profile.client, offer.class) {
        // Nobody proves a key here.
        (None, AlpnClass::Peer) => false,
        // A certificate is an ambient credential: a browser would show it to any page.
        (Some(KeyKind::X509), _) => !offer.is_http(),
        (None | Some(KeyKind::Raw), _) => true,
    }
}

/// Picks the profile and the protocol for a hello.
///
/// # Errors
/// [`Alert::NO_APPLICATION_PROTOCOL`] if no offer fits, also for a QUIC hello without protocols
/// (RFC 9001 §8.1).
pub(crate) fn choose<'o>(
    offers: &'o [Offer],
    hello: &Hello<'_>,
    carrier: Carrier,
) -> Result<(Profile, &'o Offer), Alert> {
    // Only ever alone, and then not here (RFC 8737 §4): see `challenged`.
    if hello.protocols.is_some_and(|protocols| protocols.contains(Alpn::ACME_TLS_1.as_bytes())) {
        return Err(Alert::NO_APPLICATION_PROTOCOL);
    }
    let profile = Profile {
        server: if hello.takes_raw_server_key() { KeyKind::Raw } else { KeyKind::X509 },
        client: client_key(offers, hello, carrier),
    };
    let fits = |offer: &&Offer| match hello.protocols {
        Some(protocols) => protocols.contains(offer.alpn.as_bytes()),
        // An HTTP/1.1 client of before RFC 7301.
        None => carrier == Carrier::Tcp && profile == BROWSERS && offer.alpn == Alpn::HTTP_1_1,
    };
    offers
        .iter()
        .filter(|offer| offer.on(carrier) && may_negotiate(profile, offer))
        .find(fits)
        .map(|offer| (profile, offer))
        .ok_or(Alert::NO_APPLICATION_PROTOCOL)
}

/// The name whose challenge a hello asks for: its list of protocols is exactly `acme-tls/1`, and it names a
/// server (RFC 8737 §3). Whether one is pending is not known here.
pub(crate) fn challenged<'h>(hello: &'h Hello<'_>) -> Option<&'h str> {
    let mut protocols = hello.protocols?.iter();
    let alone = protocols.next() == Some(Alpn::ACME_TLS_1.as_bytes()) && protocols.next().is_none();
    hello.server_name.as_deref().filter(|_| alone)
}

/// The kind of key to ask of the client. A browser offers no raw key and always an HTTP name, so it
/// is never asked.
fn client_key(offers: &[Offer], hello: &Hello<'_>, carrier: Carrier) -> Option<KeyKind> {
    if hello.shows_raw_client_key() {
        return Some(KeyKind::Raw);
    }
    let protocols = hello.protocols?;
    if protocols.iter().any(is_http_name) {
        return None;
    }
    let peer = |offer: &Offer| {
        offer.on(carrier)
            && offer.class == AlpnClass::Peer
            && protocols.contains(offer.alpn.as_bytes())
    };
    offers.iter().any(peer).then_some(KeyKind::X509)
}

pub(super) const BROWSERS: Profile = Profile { server: KeyKind::X509, client: None };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{hello::parse, tests::hello::Builder};

    fn offer(name: &str, class: AlpnClass) -> Offer {
        Offer { alpn: name.parse().unwrap(), class, tcp: name != "files/1" }
    }

    fn offers() -> Vec<Offer> {
        vec![
            offer("echo/1", AlpnClass::Peer),
            offer("files/1", AlpnClass::Peer),
            offer("discover/1", AlpnClass::Public),
            offer("h3", AlpnClass::Http),
            offer("h2", AlpnClass::Http),
            offer("http/1.1", AlpnClass::Http),
        ]
    }

    /// Profile and protocol in text, or the alert's number.
    fn chosen(hello: &Builder, carrier: Carrier) -> String {
        let message = hello.build();
        match choose(&offers(), &parse(&message).unwrap(), carrier) {
            Ok((profile, offer)) => format!("{profile} {}", offer.alpn),
            Err(alert) => alert.code().to_string(),
        }
    }

    fn hello(server: &[u8], client: &[u8], protocols: &[&str]) -> Builder {
        let mut hello = Builder::default();
        if !server.is_empty() {
            hello = hello.server_types(server);
        }
        if !client.is_empty() {
            hello = hello.client_types(client);
        }
        if protocols.is_empty() {
            return hello;
        }
        hello.protocols(&protocols.iter().map(|name| name.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn follows_the_table() {
        /// Server types, client types, protocols; what is chosen on QUIC, and on TCP.
        type Row =
            (&'static [u8], &'static [u8], &'static [&'static str], &'static str, &'static str);
        let rows: &[Row] = &[
            (&[], &[], &["h3"], "x509+none h3", "120"),
            (&[], &[], &["h2", "http/1.1"], "120", "x509+none h2"),
            (&[], &[], &["discover/1"], "x509+none discover/1", "x509+none discover/1"),
            (&[0], &[0], &["h3", "h2"], "x509+none h3", "x509+none h2"),
            (&[2], &[], &["discover/1"], "raw+none discover/1", "raw+none discover/1"),
            (&[2], &[], &["h2"], "120", "raw+none h2"),
            (&[0, 2], &[2, 0], &["echo/1"], "raw+raw echo/1", "raw+raw echo/1"),
            (&[2], &[2], &["files/1"], "raw+raw files/1", "120"),
            (&[2], &[2], &["h2"], "120", "raw+raw h2"),
            (&[], &[2], &["echo/1"], "x509+raw echo/1", "x509+raw echo/1"),
            (&[], &[0, 2], &["h2", "echo/1"], "x509+raw echo/1", "x509+raw echo/1"),
            (&[], &[], &["echo/1"], "x509+x509 echo/1", "x509+x509 echo/1"),
            (&[2], &[], &["echo/1"], "raw+x509 echo/1", "raw+x509 echo/1"),
            (&[], &[0], &["discover/1", "echo/1"], "x509+x509 echo/1", "x509+x509 echo/1"),
            // A browser name beside a peer's: never asked, and the peer's is out of reach.
            (&[], &[], &["echo/1", "h2"], "120", "x509+none h2"),
            (&[], &[], &["echo/1", "http/1.1"], "120", "x509+none http/1.1"),
            (&[2], &[], &["echo/1", "h3"], "raw+none h3", "120"),
            // Nothing fits.
            (&[], &[], &["nothing/1"], "120", "120"),
            (&[2], &[2], &["acme-tls/1"], "120", "120"),
            (&[], &[], &["acme-tls/1", "h2"], "120", "120"),
            (&[], &[], &["h3", "acme-tls/1"], "120", "120"),
            (&[2], &[2], &["echo/1", "acme-tls/1"], "120", "120"),
            (&[], &[], &["acme-tls/1", "acme-tls/1"], "120", "120"),
            // Without protocols: http/1.1 over TCP for those who show nothing.
            (&[], &[], &[], "120", "x509+none http/1.1"),
            (&[2], &[], &[], "120", "120"),
            (&[], &[2], &[], "120", "120"),
            (&[2], &[2], &[], "120", "120"),
        ];
        for (server, client, protocols, quic, tcp) in rows {
            let hello = hello(server, client, protocols);
            assert_eq!(chosen(&hello, Carrier::Quic), *quic, "{hello:?}");
            assert_eq!(chosen(&hello, Carrier::Tcp), *tcp, "{hello:?}");
        }
    }

    #[test]
    fn never_asks_where_an_http_name_is_offered_without_a_raw_key() {
        for http in ["h3", "h2", "http/1.1"] {
            for more in ["echo/1", "files/1", "discover/1", "nothing/1"] {
                for protocols in [[http, more], [more, http]] {
                    let carrier = if http == "h3" { Carrier::Quic } else { Carrier::Tcp };
                    let answer = chosen(&hello(&[], &[0], &protocols), carrier);
                    // The server's order puts discover/1 first; the profile is the same.
                    assert_eq!(answer.split_whitespace().next(), Some("x509+none"));
                }
            }
        }
    }

    #[test]
    fn keeps_http_names_off_profiles_that_ask_for_certificates() {
        for profile in Profile::ALL {
            for class in [AlpnClass::Http, AlpnClass::Public, AlpnClass::Peer] {
                // Even if a handler of a browser's name calls itself something else.
                let may = may_negotiate(profile, &offer("h2", class));
                let expected = match profile.client {
                    None => class != AlpnClass::Peer,
                    Some(kind) => kind == KeyKind::Raw,
                };
                assert_eq!(may, expected, "{profile} {class:?}");
            }
        }
    }

    #[test]
    fn prefers_by_the_order_of_the_server() {
        let hello = hello(&[2], &[2], &["http/1.1", "h2", "h3", "discover/1", "echo/1"]);
        assert_eq!(chosen(&hello, Carrier::Quic), "raw+raw echo/1");
    }
}
