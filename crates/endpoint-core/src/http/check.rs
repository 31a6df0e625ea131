//! Is this request one that every reader understands alike? (RFC 9110 §7.2, RFC 9112 §3.2, RFC 9114 §4)
//!
//! Pure. What two programs could read in two ways is refused, whichever version carried it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, uri::Authority};

/// Not among http's constants.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Why a request is refused. For the log; the client learns that it was malformed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refusal(&'static str);

impl Refusal {
    pub(super) fn reason(self) -> &'static str {
        self.0
    }
}

/// Checks what the version's own parser leaves open; gives the declared length of the body.
///
/// # Errors
/// [`Refusal`], if the request is malformed.
pub(super) fn request<B>(request: &Request<B>) -> Result<Option<u64>, Refusal> {
    let headers = request.headers();
    let multiplexed = request.version() >= http::Version::HTTP_2;
    if multiplexed {
        for (name, value) in headers {
            if of_a_connection(name) || name == PROXY_CONNECTION {
                return Err(Refusal("a field that speaks of a connection"));
            }
            if name == header::TE && value.as_bytes() != b"trailers" {
                return Err(Refusal("te says something else than trailers"));
            }
        }
    } else {
        // RFC 9112 §6.1: what is not understood is not passed on; a list is read in several ways.
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let coding = codings.next().map(HeaderValue::as_bytes);
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked"))
            || codings.next().is_some()
        {
            return Err(Refusal("a transfer coding other than chunked"));
        }
    }
    if request.method() != Method::CONNECT {
        host(request, multiplexed)?;
    }
    declared_length(request.headers())
}

/// Whether a field speaks of a connection, which HTTP/2 and HTTP/3 do without (RFC 9113 §8.2.2, RFC 9114
/// §4.2).
pub(super) fn of_a_connection(name: &HeaderName) -> bool {
    [&header::CONNECTION, &header::TRANSFER_ENCODING, &header::UPGRADE, &KEEP_ALIVE].contains(&name)
}

/// One authority, whichever way it is told.
fn host<B>(request: &Request<B>, multiplexed: bool) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal("more than one host"));
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| Refusal("a host that is no text"))?),
        None => None,
    };
    let parsed: Authority;
    let authority = match (request.uri().authority(), host) {
        (Some(authority), Some(host))
            if !authority.as_str().eq_ignore_ascii_case(host) && multiplexed =>
        {
            return Err(Refusal("host and :authority differ"));
        }
        // RFC 9112 §3.2.2: the absolute form wins; two programs must not have to know that.
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            return Err(Refusal("host and the request's target differ"));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => {
            parsed = host.parse().map_err(|_| Refusal("a host that is none"))?;
            &parsed
        }
        (None, None) if request.version() <= http::Version::HTTP_10 => return Ok(()),
        (None, None) => return Err(Refusal("no host")),
    };
    if authority.as_str().contains('@') {
        return Err(Refusal("a user in the host"));
    }
    if authority.host().is_empty() {
        return Err(Refusal("an empty host"));
    }
    let after = authority.as_str().rsplit(']').next().unwrap_or_default();
    match after.split_once(':') {
        Some((_, port))
            if authority.port_u16().is_none_or(|number| number == 0 || port.is_empty()) =>
        {
            Err(Refusal("a port that is none"))
        }
        _ => Ok(()),
    }
}

/// The length of the body that `content-length` declares.
pub(super) fn declared_length(fields: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Refusal("more than one content-length"));
    }
    let digits = length.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal("a content-length that is no number"));
    }
    let text = length.to_str().map_err(|_| Refusal("a content-length that is no number"))?;
    text.parse().map(Some).map_err(|_| Refusal("a content-length beyond measure"))
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn checked(
        version: Version,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> Result<Option<u64>, &'static str> {
        let mut builder = Request::builder().version(version).uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        request(&builder.body(()).unwrap()).map_err(Refusal::reason)
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        type Row = (
            Version,
            &'static str,
            &'static [(&'static str, &'static str)],
            Result<Option<u64>, &'static str>,
        );
        let rows: &[Row] = &[
            (Version::HTTP_3, "https://a/", &[], Ok(None)),
            (Version::HTTP_3, "https://a/", &[("host", "a")], Ok(None)),
            (Version::HTTP_3, "https://a:443/", &[("host", "a:443")], Ok(None)),
            (Version::HTTP_3, "https://[::1]:443/", &[], Ok(None)),
            (Version::HTTP_3, "https://a/", &[("host", "b")], Err("host and :authority differ")),
            (Version::HTTP_3, "/", &[], Err("no host")),
            (Version::HTTP_3, "/", &[("host", "a")], Ok(None)),
            (Version::HTTP_3, "https://u@a/", &[], Err("a user in the host")),
            (
                Version::HTTP_3,
                "https://a/",
                &[("connection", "x")],
                Err("a field that speaks of a connection"),
            ),
            (
                Version::HTTP_3,
                "https://a/",
                &[("transfer-encoding", "chunked")],
                Err("a field that speaks of a connection"),
            ),
            (Version::HTTP_3, "https://a/", &[("te", "trailers")], Ok(None)),
            (
                Version::HTTP_3,
                "https://a/",
                &[("te", "gzip")],
                Err("te says something else than trailers"),
            ),
            (Version::HTTP_3, "https://a/", &[("content-length", "7")], Ok(Some(7))),
            (
                Version::HTTP_3,
                "https://a/",
                &[("content-length", "+7")],
                Err("a content-length that is no number"),
            ),
            (
                Version::HTTP_3,
                "https://a/",
                &[("content-length", "7"), ("content-length", "7")],
                Err("more than one content-length"),
            ),
            (
                Version::HTTP_3,
                "https://a/",
                &[("content-length", "99999999999999999999")],
                Err("a content-length beyond measure"),
            ),
            (Version::HTTP_11, "/", &[("host", "a")], Ok(None)),
            (Version::HTTP_11, "/", &[], Err("no host")),
            (Version::HTTP_10, "/", &[], Ok(None)),
            (Version::HTTP_11, "/", &[("host", "a"), ("host", "a")], Err("more than one host")),
            (
                Version::HTTP_11,
                "http://a/",
                &[("host", "b")],
                Err("host and the request's target differ"),
            ),
            (
                Version::HTTP_11,
                "/",
                &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
                Err("a transfer coding other than chunked"),
            ),
            (
                Version::HTTP_11,
                "/",
                &[("host", "a"), ("transfer-encoding", "x"), ("transfer-encoding", "chunked")],
                Err("a transfer coding other than chunked"),
            ),
            (Version::HTTP_11, "/", &[("host", "a"), ("transfer-encoding", "Chunked")], Ok(None)),
            (Version::HTTP_11, "/", &[("host", "a:0")], Err("a port that is none")),
            (Version::HTTP_11, "/", &[("host", "a:99999")], Err("a port that is none")),
            (Version::HTTP_11, "/", &[("host", "a/b")], Err("a host that is none")),
            (Version::HTTP_11, "/", &[("host", "a b")], Err("a host that is none")),
            (Version::HTTP_11, "/", &[("host", "")], Err("a host that is none")),
        ];
        for (version, uri, fields, expected) in rows {
            assert_eq!(checked(*version, uri, fields), *expected, "{version:?} {uri} {fields:?}");
        }
    }
}
