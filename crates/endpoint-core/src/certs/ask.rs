//! How do certificate sources ask over HTTP?
//!
//! The one file of `certs` that knows the HTTP client; its twin `ask_off.rs` stands in builds without one.
//!
//! Always true: a body is wiped when dropped, because it may hold a key.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Method, Request,
    header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER},
};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use zeroize::{Zeroize, Zeroizing};

use super::pace;
use crate::transport::fetch::{Fetch, web_tls};

/// A client for a few small requests.
#[derive(Clone, Debug)]
pub(crate) struct Web(Fetch);

/// What was answered.
pub(crate) struct Answer {
    status: u16,
    body: Zeroizing<Vec<u8>>,
    retry_after: Option<String>,
}

impl Web {
    /// `roots` (PEM) or the platform's for `https`; a minute for each answer, of at most `limit` bytes.
    pub(crate) fn new(
        roots: Option<&[u8]>,
        provider: Arc<CryptoProvider>,
        limit: usize,
    ) -> Result<Self, String> {
        let tls = web_tls(roots, provider)?;
        Ok(Self(Fetch { tls, deadline: DEADLINE, body_limit: limit }))
    }

    /// For local sockets and plain `http` only.
    pub(crate) fn plain(provider: Arc<CryptoProvider>, limit: usize) -> Result<Self, String> {
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Ok(Self(Fetch { tls: Arc::new(tls), deadline: DEADLINE, body_limit: limit }))
    }

    /// The same with less time for an answer.
    #[cfg(test)]
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.0.deadline = deadline;
        self
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Answer, String> {
        let request = Request::builder().method(Method::GET).uri(url).body(Bytes::new());
        self.send(request).await
    }

    pub(crate) async fn post(
        &self,
        url: &str,
        kind: (&str, &str),
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, kind.0)
            .header(ACCEPT, kind.1)
            .body(Bytes::from(body));
        self.send(request).await
    }

    /// Asks over a local socket; `target` is path and query.
    pub(crate) async fn get_over_unix(
        &self,
        socket: &Path,
        host: &str,
        target: &str,
    ) -> Result<Answer, String> {
        let request = Request::builder().uri(target).header(HOST, host).body(Bytes::new());
        let request = request.map_err(|why| why.to_string())?;
        let answer = self.0.send_over_unix(socket, request).await;
        answer.map(Answer::of).map_err(|why| why.to_string())
    }

    async fn send(&self, request: http::Result<Request<Bytes>>) -> Result<Answer, String> {
        let request = request.map_err(|why| why.to_string())?;
        self.0.send(request).await.map(Answer::of).map_err(|why| why.to_string())
    }
}

impl Answer {
    fn of(answer: http::Response<Bytes>) -> Self {
        let (parts, body) = answer.into_parts();
        let kept = Zeroizing::new(body.to_vec());
        if let Ok(mut body) = body.try_into_mut() {
            body.zeroize();
        }
        let retry_after = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Self {
            status: parts.status.as_u16(),
            body: kept,
            retry_after: retry_after.map(str::to_owned),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn into_body(self) -> Zeroizing<Vec<u8>> {
        self.body
    }

    /// Not before when to ask again (RFC 9110 §10.2.3), a month from now at most.
    pub(crate) fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let text = self.retry_after.as_deref()?.trim();
        let most = pace::later(now, SignedDuration::from_hours(30 * 24));
        let at = match text.parse::<u32>() {
            Ok(seconds) => pace::later(now, SignedDuration::from_secs(i64::from(seconds))),
            Err(_) => rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?,
        };
        Some(at.clamp(now, most))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
