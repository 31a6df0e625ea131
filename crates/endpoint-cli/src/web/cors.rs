//! Which other pages may read an answer? (the CORS protocol of the Fetch standard)
//!
//! Always true: `*` is answered without credentials, and never on routes that ask for a peer.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority};

use super::{Request, Response};

/// The origins of one rule.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<String>,
    /// Whether a browser may send what it holds for the site.
    credentials: bool,
}

/// What a preflight allows.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

impl Cors {
    /// `None` without origins: then answers are left as they are.
    pub(super) fn new(origins: &[String], public: bool) -> Option<Self> {
        let credentials = public && !origins.iter().any(|origin| origin == "*");
        (!origins.is_empty()).then(|| Self { origins: origins.to_vec(), credentials })
    }

    /// The `access-control-allow-origin` for a request, if its origin is one of ours.
    pub(super) fn allowed(&self, request: &Request) -> Option<HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        if self.origins.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(text))
            .then(|| origin.clone())
    }

    /// Whether the request's origin is named, and not only by `*`.
    pub(super) fn lists(&self, request: &Request) -> bool {
        let origin = request.headers().get(header::ORIGIN).and_then(|value| value.to_str().ok());
        origin.is_some_and(|origin| self.origins.iter().any(|o| o.eq_ignore_ascii_case(origin)))
    }

    /// The answer to a preflight; `None` if the request is none.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if *request.method() != Method::OPTIONS || !asks {
            return None;
        }
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let allowed = self.allowed(request);
        if allowed.is_some() {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            if let Some(asked) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
        self.mark(response.headers_mut(), allowed);
        Some(response)
    }

    /// Marks an answer. What an upstream said of it gives way.
    pub(super) fn mark(&self, headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
        let said: Vec<HeaderName> = headers
            .keys()
            .filter(|name| {
                **name == header::ACCESS_CONTROL_ALLOW_ORIGIN
                    || **name == header::ACCESS_CONTROL_ALLOW_CREDENTIALS
            })
            .cloned()
            .collect();
        for name in said {
            headers.remove(name);
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.credentials {
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
    }
}

/// Whether a request may change something, or opens a tunnel through which others can.
pub(super) fn may_change(request: &Request) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        || request.headers().contains_key(header::UPGRADE)
}

/// Whether a page of another site made a browser ask (Fetch metadata; `origin` where there is none).
pub(crate) fn is_cross_site(request: &Request) -> bool {
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "none" | "same-origin");
    }
    let Some(origin) = text("origin") else { return false };
    let named = request.uri().authority().map(Authority::as_str);
    let host = text("host").or(named).unwrap_or_default();
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    own != Some(host)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    /// Origins of the rule; public; origin of the request; what is allowed; with credentials.
    type Row = (&'static [&'static str], bool, &'static str, Option<&'static str>, bool);

    #[test]
    fn allows_what_is_listed_and_never_everything_with_credentials() {
        let rows: &[Row] = &[
            (&["https://a.example"], true, "https://a.example", Some("https://a.example"), true),
            (&["https://a.example"], true, "https://A.example", Some("https://A.example"), true),
            (&["https://a.example"], true, "https://b.example", None, false),
            (&["https://a.example"], true, "https://a.example.evil", None, false),
            (&["https://a.example"], true, "http://a.example", None, false),
            (&["https://a.example"], true, "null", None, false),
            (&["https://a.example"], false, "https://a.example", Some("https://a.example"), false),
            (&["*"], true, "https://b.example", Some("*"), false),
            (&["*", "https://a.example"], true, "https://a.example", Some("*"), false),
        ];
        for (origins, public, origin, allowed, credentials) in rows {
            let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
            let cors = Cors::new(&origins, *public).unwrap();
            let request = http::Request::options("/")
                .header("origin", *origin)
                .header("access-control-request-method", "PUT")
                .body(Body::empty())
                .unwrap();
            let response = cors.preflight(&request).unwrap();
            let field =
                |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(field("access-control-allow-origin").as_deref(), *allowed, "{origin}");
            assert_eq!(
                field("access-control-allow-credentials").is_some(),
                *credentials,
                "{origin}"
            );
            assert_eq!(
                field("access-control-allow-methods").is_some(),
                allowed.is_some(),
                "{origin}"
            );
        }
        assert!(Cors::new(&[], true).is_none());
    }
}
