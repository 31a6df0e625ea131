//! Port 80: the answers to challenges of certificate authorities, and the same address with https.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use endpoint_core::{endpoint::Endpoint, http::RequestBody};
use http::{HeaderValue, Method, StatusCode, header};
use tower::Service;

use crate::web::{Host, Refusal, Request, Response, Web, dress, host, permanent};

/// Redirects configured names and nothing else, so that nobody is sent where the request says.
#[derive(Clone, Debug)]
pub(super) struct ToHttps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    web: Web,
    port: u16,
    endpoint: Endpoint,
}

/// Where authorities look for answers (RFC 8555 §8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

impl ToHttps {
    /// To port `port` of the name asked for.
    pub(super) fn new(web: &Web, port: u16, endpoint: Endpoint) -> Self {
        Self(Arc::new(Inner { web: web.clone(), port, endpoint }))
    }

    fn redirect(&self, request: &Request) -> Response {
        let name = match host(request) {
            Ok(Some(Host::Name(name))) if self.0.web.serves(name.as_str()) => name,
            Ok(_) => return Refusal::status(StatusCode::MISDIRECTED_REQUEST).into(),
            Err(refusal) => return refusal.into(),
        };
        if request.method() == Method::CONNECT {
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
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let request = request.map(Body::new);
        let token = token(&request).map(str::to_owned);
        let redirect = self.redirect(&request);
        let endpoint = self.0.endpoint.clone();
        Box::pin(async move {
            // Whoever knows the token may have the answer, under whichever name: an authority that proves an
            // address asks for none.
            let answer = match token {
                Some(token) => endpoint.challenge_response(&token).await,
                None => None,
            };
            let mut response = answer.map_or(redirect, challenge);
            dress(&mut response, false, None);
            Ok(response)
        })
    }
}

/// The token of a challenge that is asked for.
fn token(request: &Request) -> Option<&str> {
    let token = request.uri().path().strip_prefix(CHALLENGES)?;
    // RFC 8555 §8.3: base64url.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let fits = (1..=128).contains(&token.len()) && token.bytes().all(legal);
    (request.method() == Method::GET && fits).then_some(token)
}

/// The answer to a pending challenge (RFC 8555 §8.3).
fn challenge(answer: String) -> Response {
    let mut response = Response::new(Body::from(answer));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
