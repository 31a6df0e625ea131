//! Which site is a request for? (RFC 9110 §7.2, §15.5.20)
//!
//! The name in the request and the name in the handshake must belong to the same site: else a browser that
//! was shown one site's certificate would read another's answers.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use endpoint_core::{facts::KeyKind, hostname::Hostname, http::Requester};
use http::{StatusCode, header, uri::Authority};

use super::{Request, page::Refusal};

/// Names of all sites.
#[derive(Debug)]
pub(super) struct Hosts {
    names: HashMap<String, usize>,
    /// Sites with a certificate. The others answer on loopback over plain HTTP and nowhere else.
    shown: BTreeSet<usize>,
}

/// The number of a site.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place(pub(super) usize);

impl Hosts {
    /// Of the names of each site, and whether it has a certificate.
    pub(super) fn new<'n>(sites: impl Iterator<Item = (&'n [String], bool)>) -> Self {
        let (mut names, mut shown) = (HashMap::new(), BTreeSet::new());
        for (index, (site, certificate)) in sites.enumerate() {
            for name in site {
                names.entry(name.to_ascii_lowercase()).or_insert(index);
            }
            shown.extend(certificate.then_some(index));
        }
        Self { names, shown }
    }

    /// The site of a name: exact, or by a `*` for its first label.
    fn find(&self, name: &str) -> Option<Place> {
        self.find_in(name, |_| true)
    }

    /// The site of a name, if it is served over TLS and QUIC.
    pub(super) fn find_shown(&self, name: &str) -> Option<Place> {
        self.find(name).filter(|place| self.shown.contains(&place.0))
    }

    /// The site whose certificate was shown to who asked for `sni`.
    fn certified(&self, sni: &str) -> Option<Place> {
        // A name without a certificate of its own was answered by the default.
        self.find_in(sni, |index| self.shown.contains(index)).or_else(|| self.default())
    }

    /// The first site with a certificate: it is for clients that name no host.
    fn default(&self) -> Option<Place> {
        self.shown.first().copied().map(Place)
    }

    fn find_in(&self, name: &str, among: impl Fn(&usize) -> bool) -> Option<Place> {
        let find = |name: &str| self.names.get(name).copied().filter(&among);
        let wildcard = || find(&format!("*.{}", name.split_once('.')?.1));
        find(name).or_else(wildcard).map(Place)
    }

    /// The site that a request is for.
    ///
    /// # Errors
    /// 400 for a host that is none, 421 for one that is not served on this connection.
    pub(super) fn place(&self, request: &Request, requester: &Requester) -> Result<Place, Refusal> {
        let host = host(request)?;
        let named = match (&host, requester.server_key_kind()) {
            (Some(Host::Name(name)), None) => self.find(name.as_str()),
            (Some(Host::Name(name)), Some(_)) => self.find_shown(name.as_str()),
            _ => None,
        };
        let local = |ip: &IpAddr| {
            let here = requester.local().ip().to_canonical();
            *ip == here || (ip.is_loopback() && here.is_loopback())
        };
        let place = match (requester.server_key_kind(), requester.server_name()) {
            // Plain HTTP on loopback: configured names only (DNS rebinding).
            (None, _) => named,
            // A raw key is no name's: any site, and an address means the default.
            (Some(KeyKind::Raw), _) => match &host {
                Some(Host::Name(_)) => named,
                Some(Host::Ip(_)) | None => self.default(),
            },
            (Some(KeyKind::X509), Some(sni)) => {
                let certified = self.certified(sni);
                named.filter(|place| Some(*place) == certified)
            }
            (Some(KeyKind::X509), None) => match &host {
                Some(Host::Name(_)) => named.filter(|place| Some(*place) == self.default()),
                Some(Host::Ip(ip)) => self.default().filter(|_| local(ip)),
                None => self.default(),
            },
        };
        place.ok_or_else(|| {
            let text = match &host {
                Some(Host::Name(name)) => name.as_str().to_owned(),
                Some(Host::Ip(ip)) => ip.to_string(),
                None => "this request".into(),
            };
            let sentence = format!("{text} is not served on this connection");
            Refusal::new(StatusCode::MISDIRECTED_REQUEST, sentence)
        })
    }
}

/// What a request names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    Name(Hostname),
    Ip(IpAddr),
}

/// The host and port that a client asked for: of the target, else of the field.
pub(crate) fn authority(request: &Request) -> Option<Authority> {
    let field = || request.headers().get(header::HOST)?.to_str().ok()?.parse().ok();
    request.uri().authority().cloned().or_else(field)
}

/// The host of a request, without its port; `None` in HTTP/1.0 only.
///
/// # Errors
/// 400, if it is neither a name nor an address.
pub(crate) fn host(request: &Request) -> Result<Option<Host>, Refusal> {
    let bad = || Refusal::new(StatusCode::BAD_REQUEST, "the request names no host");
    let authority = match authority(request) {
        Some(authority) => authority,
        None if request.version() <= http::Version::HTTP_10 => return Ok(None),
        None => return Err(bad()),
    };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(Some(Host::Ip(ip.to_canonical())));
    }
    Hostname::new(name).map(|name| Some(Host::Name(name))).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn hosts() -> Hosts {
        let sites =
            [vec!["a.example".to_owned(), "localhost".to_owned()], vec!["*.b.example".to_owned()]];
        Hosts::new(sites.iter().map(|names| (names.as_slice(), false)))
    }

    fn on_plain(uri: &str, host: Option<&str>) -> Result<usize, u16> {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Body::empty()).unwrap();
        let here = "127.0.0.1:8080".parse().unwrap();
        let place = hosts().place(&request, &Requester::plain(here, here));
        place.map(|Place(index)| index).map_err(|refusal| refusal.code().as_u16())
    }

    #[test]
    fn finds_sites_by_name_and_wildcard_and_nothing_else_on_loopback() {
        assert_eq!(on_plain("/", Some("a.example")), Ok(0));
        assert_eq!(on_plain("/", Some("A.Example.:8080")), Ok(0));
        assert_eq!(on_plain("/", Some("x.b.example")), Ok(1));
        assert_eq!(on_plain("http://x.b.example/", None), Ok(1));
        assert_eq!(on_plain("/", Some("b.example")), Err(421));
        assert_eq!(on_plain("/", Some("x.y.b.example")), Err(421));
        assert_eq!(on_plain("/", Some("evil.test")), Err(421));
        assert_eq!(on_plain("/", Some("127.0.0.1.nip.io")), Err(421));
        assert_eq!(on_plain("/", Some("127.0.0.1")), Err(421));
        assert_eq!(on_plain("/", None), Err(400));
    }
}
