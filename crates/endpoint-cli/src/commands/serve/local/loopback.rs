//! Plain HTTP for programs on this machine: sites by their names, status by the machine's own.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use endpoint_core::http::{RequestBody, Requester};
use http::{HeaderValue, Method, StatusCode, header, uri::Authority};
use tower::Service;

use super::{Facts, metrics, page};
use crate::web::{Refusal, Request, Response, Web, authority, dress, is_cross_site, page_wanted};

/// The service of the loopback listener.
#[derive(Clone, Debug)]
pub(super) struct Loopback(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    web: Web,
    address: SocketAddr,
    facts: Facts,
}

impl Loopback {
    pub(super) fn new(web: Web, address: SocketAddr, facts: Facts) -> Self {
        Self(Arc::new(Inner { web, address, facts }))
    }

    async fn answer(&self, request: Request) -> Response {
        let wants_page = page_wanted(&request);
        let mut response = match self.is_ours(&request) {
            false => return self.0.web.answer(request).await,
            true => self.status(&request),
        };
        dress(&mut response, wants_page, None);
        response
    }

    /// Whether the request is for this machine's own names. Anything else is a site's, or nobody's: a name
    /// that somebody else lets point here gets nothing (DNS rebinding).
    fn is_ours(&self, request: &Request) -> bool {
        authority(request).is_some_and(|authority| is_own(&authority, self.0.address.port()))
    }

    fn status(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Refusal::reads_only();
        }
        // What a proxy passed on does not come from this machine, whoever set it up.
        let requester = request.extensions().get::<Requester>();
        if !requester.is_some_and(|requester| requester.is_here(request.headers(), |_| false)) {
            let sentence = "this page is for this machine alone, not through a proxy";
            return Refusal::new(StatusCode::FORBIDDEN, sentence).into();
        }
        if is_cross_site(request) {
            let sentence = "another site may not look at this page: open it in a tab of its own";
            return Refusal::new(StatusCode::FORBIDDEN, sentence).into();
        }
        let facts = &self.0.facts;
        let mut response = match request.uri().path() {
            "/" => page::page(facts),
            "/style.css" => page::style(),
            "/script.js" => page::script(),
            "/status.json" => page::json(facts),
            "/events" => page::events(facts),
            "/metrics" => metrics::text(facts),
            _ => Refusal::status(StatusCode::NOT_FOUND).into(),
        };
        if *request.method() == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        let fixed = [
            (header::CONTENT_SECURITY_POLICY, page::POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        for (name, value) in fixed {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Whether this is a name of this machine, with the listener's port.
fn is_own(authority: &Authority, port: u16) -> bool {
    // Clients leave the scheme's own port out (RFC 9110 §4.2.1).
    let own_port = authority.port_u16().unwrap_or(80) == port;
    match authority.host().to_ascii_lowercase().as_str() {
        "endpoint.localhost" => own_port || authority.port().is_none(),
        "127.0.0.1" | "[::1]" | "localhost" => own_port,
        _ => false,
    }
}

impl Service<http::Request<RequestBody>> for Loopback {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request.map(Body::new)).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_names_with_its_port_and_80_where_none_stands() {
        for (authority, port, expected) in [
            ("127.0.0.1:8080", 8080, true),
            ("127.0.0.1", 8080, false),
            ("127.0.0.1", 80, true),
            ("[::1]", 80, true),
            ("LOCALHOST", 80, true),
            ("localhost:80", 80, true),
            ("localhost:8080", 80, false),
            ("endpoint.localhost", 8080, true),
            ("endpoint.localhost:81", 8080, false),
            ("evil.test", 80, false),
        ] {
            let authority: Authority = authority.parse().unwrap();
            assert_eq!(is_own(&authority, port), expected, "{authority} {port}");
        }
    }
}
