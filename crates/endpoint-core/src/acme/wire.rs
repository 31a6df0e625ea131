//! How does instant-acme reach an authority?
//!
//! Through the one web client, so with a deadline, a limit and our own trust; and what instant-acme does
//! not hand on of an answer, its status, `Retry-After` and `Location`, is noted here.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use super::{problem::retry_after, rustls_acme::secure};
use crate::{
    acme::problem::Step,
    clock::Clock,
    transport::fetch::{Fetch, FetchError, cut},
};

/// The way to one authority for one order.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) fetch: Fetch,
    pub(super) clock: Clock,
    last: Arc<Mutex<Seen>>,
}

/// What is known of the last answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// 0: there was none.
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
}

impl Wire {
    pub(super) fn new(fetch: Fetch, clock: Clock) -> Self {
        Self { fetch, clock, last: Arc::default() }
    }

    /// What is known of the last answer.
    pub(super) fn seen(&self) -> Seen {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, seen: Seen) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, Error> {
        self.note(Seen::default());
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        if secure(Step::Directory, &url).is_err() {
            return Err(Error::Other(Box::new(FetchError::Url(cut(&url)))));
        }
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_else(|never| match never {});
        let answer = self.fetch.send(Request::from_parts(parts, body)).await;
        let answer = answer.map_err(|why| Error::Other(Box::new(why)))?;
        let text = |name| field(answer.headers(), name);
        let wait = text(header::RETRY_AFTER);
        self.note(Seen {
            status: answer.status().as_u16(),
            retry_after: wait.and_then(|value| retry_after(&value, self.clock.now())),
            location: text(header::LOCATION),
        });
        Ok(answer)
    }
}

impl HttpClient for Wire {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let wire = self.clone();
        Box::pin(async move {
            let answer = wire.send(request).await?;
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

fn field(fields: &HeaderMap, name: header::HeaderName) -> Option<String> {
    fields.get(name)?.to_str().ok().map(str::to_owned)
}
