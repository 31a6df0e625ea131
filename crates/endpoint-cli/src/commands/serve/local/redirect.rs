//! Port 80: the same address with https.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use endpoint_core::http::RequestBody;
use http::StatusCode;
use tower::Service;

use crate::web::{Host, Refusal, Request, Response, Web, dress, host, permanent};

/// Redirects configured names and nothing else, so that nobody is sent where the request says.
#[derive(Clone, Debug)]
pub(super) struct ToHttps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    web: Web,
    port: u16,
}

impl ToHttps {
    /// To port `port` of the name asked for.
    pub(super) fn new(web: &Web, port: u16) -> Self {
        Self(Arc::new(Inner { web: web.clone(), port }))
    }

    fn answer(&self, request: &Request) -> Response {
        let name = match host(request) {
            Ok(Some(Host::Name(name))) if self.0.web.serves(name.as_str()) => name,
            Ok(_) => return Refusal::status(StatusCode::MISDIRECTED_REQUEST).into(),
            Err(refusal) => return refusal.into(),
        };
        if request.method() == http::Method::CONNECT {
            return Refusal::status(StatusCode::METHOD_NOT_ALLOWED).into();
        }
        let port = match self.0.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let base = format!("https://{}{port}", name.as_str());
        permanent(&base, request, "this is served over https")
    }
}

impl Service<http::Request<RequestBody>> for ToHttps {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let mut response = self.answer(&request.map(Body::new));
        dress(&mut response, false, None);
        ready(Ok(response))
    }
}
