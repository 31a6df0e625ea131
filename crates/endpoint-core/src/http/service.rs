//! The handler that serves `h3`, `h2` and `http/1.1` with one service.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{Answers, BoxError, RequestBody, Requester, http3, tcp};
use crate::{
    alpn::Alpn,
    handler::{Connection, Handler, HandlerError, Permit},
};

/// What every version asks of a service and of the bodies of its answers.
pub(super) trait HttpService:
    Service<
        Request<RequestBody>,
        Response = Response<Self::Body>,
        Future: Send,
        Error: Into<BoxError>,
    > + Clone
    + Send
    + Sync
    + 'static
{
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>, Future: Send, Error: Into<BoxError>>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// Serves HTTP connections with one `tower::Service`.
pub struct Web<S>(Arc<S>, Answers);

impl<S> Web<S> {
    /// Serves requests with clones of `service`.
    pub fn new(service: S) -> Self {
        Self(Arc::new(service), Answers::default())
    }

    /// Counts answers that wait for their clients in this sum, instead of one of its own.
    #[must_use]
    pub fn counted_in(self, answers: &Answers) -> Self {
        Self(self.0, answers.clone())
    }
}

impl<S> Clone for Web<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), self.1.clone())
    }
}

impl<S> fmt::Debug for Web<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Web")
    }
}

impl<S: HttpService> Handler for Web<S> {
    async fn serve(&self, connection: Connection, permit: Permit) -> Result<(), HandlerError> {
        let (Some(watch), Some(activity)) = (connection.watch(), connection.activity()) else {
            return Err("HTTP is served on accepted connections".into());
        };
        let requester = Requester::live(watch.clone(), activity.clone());
        match connection.alpn() {
            alpn if *alpn == Alpn::H3 => {
                let wide = permit.has_grant();
                http3::serve(&self.0, connection, requester, wide, &self.1).await
            }
            alpn if *alpn == Alpn::H2 => {
                tcp::serve_http2(&self.0, connection, requester, &self.1).await
            }
            _ => tcp::serve_http1(&self.0, connection, requester, &self.1).await,
        }
    }

    fn takes_tcp(&self) -> bool {
        true
    }
}
