//! The builder's verb for HTTP.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::Builder;
use crate::{
    alpn::Alpn,
    config::Access,
    http::{Answers, BoxError, RequestBody, Web},
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
        self.http_counted_in(access, service, &Answers::default())
    }

    /// The same, and answers that wait for their clients are counted in this sum: whoever has it can look, and
    /// give it to [`PlainOptions`](crate::http::PlainOptions) too.
    pub fn http_counted_in<S, B>(self, access: Access, service: S, answers: &Answers) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let web = Web::new(service).counted_in(answers);
        [Alpn::H3, Alpn::H2, Alpn::HTTP_1_1]
            .into_iter()
            .fold(self, |builder, alpn| builder.handle(alpn, access.clone(), web.clone()))
    }
}
