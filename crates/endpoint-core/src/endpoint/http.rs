//! The builder's verb for HTTP.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::Builder;
use crate::{
    alpn::Alpn,
    config::Access,
    http::{BoxError, RequestBody, Web},
};

impl Builder {
    /// Serves HTTP/3, HTTP/2 and HTTP/1.1 with clones of `service`, such as an axum router. Each request
    /// carries a [`Requester`](crate::http::Requester), by which a route can ask for more than `access`
    /// asks of the connection.
    pub fn http<S, B>(self, access: Access, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let web = Web::new(service);
        [Alpn::H3, Alpn::H2, Alpn::HTTP_1_1]
            .into_iter()
            .fold(self, |builder, alpn| builder.handle(alpn, access.clone(), web.clone()))
    }
}
