//! How does a revocation reach a request that is already being answered?

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{BoxError, RequestPermit, Requester, body::BodyGuard};
use crate::{config::Access, trust::Denial};

/// Waits for the end of a permit.
pub(super) type Ended = Pin<Box<dyn Future<Output = Denial> + Send>>;

impl RequestPermit {
    /// A body that fails as soon as the requester is no longer allowed: the answer is cut off, so that it
    /// cannot look whole.
    pub fn guard<B>(&self, body: B) -> GuardedBody<B> {
        GuardedBody { body, ended: self.ended() }
    }

    /// Makes the body of the request itself fail too when the requester is no longer allowed: whoever reads
    /// it may do so for longer than the answer lasts.
    pub fn guard_request<B>(&self, request: &Request<B>) {
        if let (Some(guard), Some(ended)) = (request.extensions().get::<BodyGuard>(), self.ended())
        {
            guard.add(ended);
        }
    }

    fn ended(&self) -> Option<Ended> {
        self.ends().then(|| {
            let permit = self.clone();
            let ended: Ended = Box::pin(async move { permit.no_longer().await });
            ended
        })
    }
}

pin_project! {
    /// The body of an answer that ends with its requester's permit.
    pub struct GuardedBody<B> {
        #[pin]
        body: B,
        ended: Option<Ended>,
    }
}

impl<B> std::fmt::Debug for GuardedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuardedBody")
    }
}

impl<B> Body for GuardedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if let Some(ended) = this.ended
            && let Poll::Ready(denial) = ended.as_mut().poll(cx)
        {
            return Poll::Ready(Some(Err(denial.into())));
        }
        this.body.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A layer that lets through only requesters whom `access` allows. Others get 403 and no reason. What a proxy
/// passed on is not taken for a request of this machine ([`Requester::is_here`]). A request
/// that is being answered, or whose body is still being read, when its requester loses the permit is cut
/// off. The inner service finds the [`RequestPermit`] in the request's extensions.
#[derive(Clone, Debug)]
pub struct Authorize(Access);

impl Authorize {
    /// Asks for `access`.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }
}

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, access: self.0.clone() }
    }
}

/// What [`Authorize`] makes of a service.
#[derive(Clone, Debug)]
pub struct Authorized<S> {
    inner: S,
    access: Access,
}

impl<S, R, B> Service<Request<R>> for Authorized<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Default + 'static,
{
    type Response = Response<GuardedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        // Without a requester nobody vouches for anything.
        let permit = request
            .extensions()
            .get::<Requester>()
            .filter(|requester| {
                self.access != Access::Loopback || requester.is_here(request.headers(), |_| false)
            })
            .and_then(|requester| requester.permit(&self.access).ok());
        let Some(permit) = permit else { return Box::pin(async { Ok(forbidden()) }) };
        request.extensions_mut().insert(permit.clone());
        permit.guard_request(&request);
        let answered = self.inner.call(request);
        Box::pin(async move {
            if !permit.ends() {
                return Ok(answered.await?.map(|body| permit.guard(body)));
            }
            tokio::select! {
                _ = permit.no_longer() => Ok(forbidden()),
                answered = answered => Ok(answered?.map(|body| permit.guard(body))),
            }
        })
    }
}

fn forbidden<B: Default>() -> Response<GuardedBody<B>> {
    let mut response = Response::new(GuardedBody { body: B::default(), ended: None });
    *response.status_mut() = http::StatusCode::FORBIDDEN;
    response
}
