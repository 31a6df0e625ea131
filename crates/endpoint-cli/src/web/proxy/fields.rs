//! Which fields reach an upstream, and which does only this program set?
//!
//! Always true: what an upstream reads under a name of [`PEER`], whichever way it spells it, was set here
//! from a key whose possession the handshake proved, after the hop-by-hop fields were taken out.

use std::net::IpAddr;

use axum::body::Body;
use endpoint_core::{
    facts::{KeyKind, PeerKey},
    http::{RequestPermit, Requester, folded, is_of_forwarding},
};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header, uri::Authority};
use ipnet::IpNet;

use super::{super::Request, Trimmed, Upload, declares_body, target};

/// The proven key: `sha256:` and 64 hexadecimal digits.
pub(super) const PEER: HeaderName = HeaderName::from_static("endpoint-peer");
/// The `name=` of its grant.
const PEER_NAME: HeaderName = HeaderName::from_static("endpoint-peer-name");
/// The scopes of its grant, separated by commas.
const PEER_SCOPE: HeaderName = HeaderName::from_static("endpoint-peer-scope");
/// What every name of ours begins with.
const OURS: &str = "endpoint-peer";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields of one hop (RFC 9110 §7.6.1) that stand whether or not `connection` names them.
const HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    // Some servers make `HTTP_PROXY` of it and their programs believe it (CVE-2016-5385).
    "proxy",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Takes out the fields of one hop, and what `connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // These say what the message is, not what its hop does.
    let kept = [header::HOST, header::CONTENT_LENGTH, super::super::REQUEST_ID];
    for name in named.iter().filter(|name| !kept.contains(name)) {
        headers.remove(name);
    }
    for name in HOP {
        headers.remove(name);
    }
}

/// Takes out what a client says of the peer, however it is spelt: many servers read `_` as `-`, some any
/// character that is no letter or digit.
pub(super) fn unforge(headers: &mut HeaderMap) {
    // Some frameworks route by the last two instead of the target that rules have judged.
    remove(headers, |name| {
        name.starts_with(OURS) || matches!(name, "x-original-url" | "x-rewrite-url")
    });
}

fn remove(headers: &mut HeaderMap, which: impl Fn(&str) -> bool) {
    remove_named(headers, |_, folded| which(folded));
}

fn remove_named(headers: &mut HeaderMap, which: impl Fn(&HeaderName, &str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| which(name, &folded(name))).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Takes out of a request's trailers what servers that merge them into the header would believe: who sent
/// it, where it goes, how it is framed, what it may (RFC 9110 §6.5.1).
pub(super) fn untrail(trailers: &mut HeaderMap) {
    let of_the_head = [
        "authorization",
        "cache-control",
        "cookie",
        "expect",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "max-forwards",
        "range",
        "via",
        "x-request-id",
    ];
    remove(trailers, |name| {
        is_of_forwarding(name) || name.starts_with("content-") || of_the_head.contains(&name)
    });
}

/// Makes a client's request into one for an upstream; gives how its body gets on.
pub(super) fn forward(
    request: &mut Request,
    requester: &Requester,
    permit: Option<&RequestPermit>,
    trusted: &[IpNet],
    authority: Option<&Authority>,
    pseudonym: &str,
) -> Upload {
    let upload = Upload::default();
    let has_body = declares_body(request);
    let via = via(request.version(), pseudonym);
    let uri = target(request.uri());
    let headers = request.headers_mut();
    strip(headers);
    headers.remove(header::EXPECT);
    unforge(headers);
    let address = requester.address();
    let remote = address.proven().ip().to_canonical();
    let believed = address
        .satisfies(|host| trusted.iter().any(|network| network.contains(&host.to_canonical())));
    forwarded(headers, remote, believed, requester.carrier().is_some(), authority);
    identity(headers, requester, permit);
    headers.append(header::VIA, via);
    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        headers.insert(header::HOST, host);
    }
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = match has_body {
        true => Body::new(Trimmed::request(body, upload.clone())),
        false => Body::empty(),
    };
    request.extensions_mut().clear();
    upload
}

/// What an intermediary says of itself (RFC 9110 §7.6.3).
fn via(version: Version, pseudonym: &str) -> HeaderValue {
    let version = match version {
        Version::HTTP_3 => "3",
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    HeaderValue::from_str(&format!("{version} {pseudonym}"))
        .unwrap_or(HeaderValue::from_static("1.1 endpoint"))
}

/// Whether a request has passed here so often that it goes round.
pub(super) fn goes_round(headers: &HeaderMap, pseudonym: &str) -> bool {
    let lines = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter(|hop| hop.trim().ends_with(pseudonym)).count()
        >= PASSES
}

/// Times that a request may pass: servers behind this one may pass it on to another of our sites.
const PASSES: usize = 3;

/// Where the request came from (RFC 7239 and the fields that came before it).
fn forwarded(
    headers: &mut HeaderMap,
    remote: IpAddr,
    believed: bool,
    tls: bool,
    authority: Option<&Authority>,
) {
    let proto = if tls { "https" } else { "http" };
    if !believed {
        remove(headers, is_of_forwarding);
    }
    // Proxies write these with hyphens: other spellings are a client's, passed over by the proxy before us.
    remove_named(headers, |name, folded| is_of_forwarding(folded) && folded != name.as_str());
    let text = |text: &str| HeaderValue::from_str(text).ok();
    // Every line of it: some proxies add theirs as a line of its own.
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<String> =
        before.map(str::to_owned).chain(std::iter::once(remote.to_string())).collect();
    if let Some(value) = text(&chain.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
    let node = match remote {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let mut element = format!("for={node};proto={proto}");
    if let Some(host) = authority {
        element.push_str(&format!(";host=\"{host}\""));
    }
    if let Some(value) = text(&element) {
        headers.append(header::FORWARDED, value);
    }
    let mut set = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value.filter(|_| !headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    };
    set(FORWARDED_PROTO, text(proto));
    set(FORWARDED_HOST, authority.and_then(|host| text(host.as_str())));
    set(REAL_IP, text(&remote.to_string()));
}

/// Who the peer is.
fn identity(headers: &mut HeaderMap, requester: &Requester, permit: Option<&RequestPermit>) {
    let PeerKey::Proven(KeyKind::Raw, key) = requester.key() else { return };
    if let Ok(value) = HeaderValue::from_str(&key.to_string()) {
        headers.insert(PEER, value);
    }
    let Some(permit) = permit.and_then(RequestPermit::permit) else { return };
    if let Some(value) = permit.name().and_then(|name| HeaderValue::from_str(&printable(name)).ok())
    {
        headers.insert(PEER_NAME, value);
    }
    let scopes: Vec<&str> = permit.scopes().iter().filter_map(|scope| scope.name()).collect();
    if let Ok(value) = HeaderValue::from_str(&scopes.join(","))
        && !scopes.is_empty()
    {
        headers.insert(PEER_SCOPE, value);
    }
}

/// A name as a field value: printable ASCII, the rest escaped as in a URI.
fn printable(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'%' | 0..=0x20 | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            _ => text.push(char::from(byte)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(fields: &[(&str, &str)], trusted: &[&str]) -> HeaderMap {
        let mut builder = http::Request::builder().uri("https://site.example/x?y");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.body(Body::empty()).unwrap();
        let here = "192.0.2.7:1000".parse().unwrap();
        let requester = Requester::plain(here, here);
        let trusted: Vec<IpNet> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let authority = crate::web::authority(&request);
        forward(&mut request, &requester, None, &trusted, authority.as_ref(), "endpoint-1f");
        assert_eq!(request.uri(), "/x?y");
        request.headers().clone()
    }

    #[test]
    fn drops_what_a_client_says_of_the_peer() {
        let forged: &[(&str, &str)] = &[
            ("endpoint-peer", "x"),
            ("Endpoint-Peer", "x"),
            ("ENDPOINT_PEER", "x"),
            ("endpoint_peer-name", "x"),
            ("endpoint-peer_scope", "x"),
            ("endpoint_peer_scope", "x"),
            ("endpoint.peer", "x"),
            ("endpoint~peer", "x"),
        ];
        let headers = sent(forged, &[]);
        for name in headers.keys() {
            assert!(!folded(name).starts_with(OURS), "{name}");
        }
    }

    #[test]
    fn replaces_forwarded_fields_unless_the_sender_is_trusted() {
        let said: &[(&str, &str)] = &[
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.2"),
            ("x-forwarded-proto", "gopher"),
            ("x-real-ip", "10.0.0.3"),
            ("x.forwarded.for", "10.0.0.4"),
            ("x-original-url", "/admin"),
        ];
        let headers = sent(said, &[]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "site.example");
        assert_eq!(headers["forwarded"], "for=192.0.2.7;proto=http;host=\"site.example\"");
        for name in ["x_forwarded_for", "x.forwarded.for", "x-original-url"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        let headers = sent(said, &["192.0.2.0/24"]);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "gopher");
        assert_eq!(headers["x-real-ip"], "10.0.0.3");
        assert!(!headers.contains_key("x_forwarded_for"));
    }

    #[test]
    fn keeps_every_line_that_a_trusted_proxy_wrote() {
        let said = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "198.51.100.9, 10.0.0.1")];
        let headers = sent(&said, &["192.0.2.0/24"]);
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(lines, ["1.2.3.4, 198.51.100.9, 10.0.0.1, 192.0.2.7"]);
    }

    #[test]
    fn knows_a_request_that_goes_round() {
        let mut headers = HeaderMap::new();
        for hop in ["1.1 endpoint-2a", "3 endpoint-1f, 1.1 other", "1.1 endpoint-1f"] {
            headers.append(header::VIA, HeaderValue::from_static(hop));
        }
        assert!(!goes_round(&headers, "endpoint-1f"));
        headers.append(header::VIA, HeaderValue::from_static("2 endpoint-1f"));
        assert!(goes_round(&headers, "endpoint-1f"));
    }

    #[test]
    fn fields_of_one_hop_stay_behind() {
        let headers = sent(
            &[
                ("connection", "x-private, close, host, x-request-id"),
                ("x-private", "1"),
                ("x-request-id", "id"),
                ("keep-alive", "1"),
                ("te", "trailers"),
                ("upgrade", "websocket"),
                ("proxy-authorization", "Basic x"),
                ("accept", "*/*"),
            ],
            &[],
        );
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "forwarded",
                "host",
                "via",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-real-ip",
                "x-request-id"
            ]
        );
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(printable("bob's laptop"), "bob's%20laptop");
        assert_eq!(printable("a\r\nb%"), "a%0D%0Ab%25");
        assert_eq!(printable("ü"), "%C3%BC");
    }
}
