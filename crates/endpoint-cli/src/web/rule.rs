//! May this request be answered here, and how much may it cost?

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes};
use endpoint_core::{
    config::Access,
    http::{RequestPermit, Requester},
    trust::Denial,
};
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Request, Response,
    cors::{self, Cors},
    page::Refusal,
    proxy::Terms,
};
use crate::config::{WebLimits, web::Route};

/// A route's rule, ready to judge.
#[derive(Debug)]
pub(super) struct Rule {
    /// Without a slash at its end.
    path: String,
    access: Access,
    body_limit: Option<u64>,
    timeout: Option<Duration>,
    files: Option<Room>,
    requests: Option<Room>,
    cors: Option<Cors>,
    trusted: Vec<IpNet>,
    /// Times for which an upstream and a tunnel may be silent.
    limits: WebLimits,
}

impl Rule {
    /// `files` has room for the requests of all sites that take an open file.
    pub(super) fn new(route: &Route, files: Option<Room>, limits: &WebLimits) -> Self {
        let limits = WebLimits {
            upstream_idle: route.upstream_idle.unwrap_or(limits.upstream_idle),
            tunnel_idle: route.tunnel_idle.unwrap_or(limits.tunnel_idle),
            ..*limits
        };
        Self {
            limits,
            files,
            path: route.path.trim_end_matches('/').to_owned(),
            access: route.access.clone(),
            body_limit: route.body_limit,
            timeout: route.timeout,
            requests: route.requests.map(Room::new),
            cors: Cors::new(&route.cors, route.access == Access::Public),
            trusted: route.trusted_proxies.clone(),
        }
    }

    /// Whether the rule is for this path, which is decoded. A rule that restricts holds for other cases of
    /// its letters too: some servers tell them apart, some do not.
    pub(super) fn covers(&self, path: &str) -> bool {
        let (Some(start), Some(rest)) = (path.get(..self.path.len()), path.get(self.path.len()..))
        else {
            return false;
        };
        let same = match self.access {
            Access::Public => start == self.path,
            _ => start.eq_ignore_ascii_case(&self.path),
        };
        same && (rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether the path's letters are those of the rule.
    pub(super) fn is_exact(&self, path: &str) -> bool {
        path.starts_with(&self.path)
    }

    /// Whether whoever asks is allowed what the rule is for.
    pub(super) fn permits(&self, request: &Request) -> bool {
        self.judge(request).is_some_and(|permit| permit.is_ok())
    }

    fn judge(&self, request: &Request) -> Option<Result<RequestPermit, Denial>> {
        let requester = request.extensions().get::<Requester>()?;
        let trusted =
            |host: IpAddr| self.trusted.iter().any(|net| net.contains(&host.to_canonical()));
        Some(match self.access {
            Access::Loopback if !requester.is_here(request.headers(), trusted) => {
                Err(Denial::NotLoopback)
            }
            _ => requester.permit(&self.access),
        })
    }

    /// How much of a path the rule says, in bytes.
    pub(super) fn length(&self) -> usize {
        self.path.len()
    }

    /// What holds for requests to an upstream.
    pub(super) fn terms(&self) -> Terms<'_> {
        Terms { trusted: &self.trusted, timeout: self.timeout, limits: self.limits }
    }

    /// Answers by `content` if the rule lets it.
    pub(super) async fn apply(
        &self,
        mut request: Request,
        content: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        // What a page of another site makes a browser send comes from this machine, but not from its user.
        let by_address = self.access == Access::Loopback
            || request.extensions().get::<Requester>().is_none_or(|r| r.carrier().is_none());
        if by_address
            && cors::may_change(&request)
            && cors::is_cross_site(&request)
            && !self.cors.as_ref().is_some_and(|cors| cors.lists(&request))
        {
            let sentence =
                "a page of another site may not send this here: list its origin in `cors`";
            return Refusal::new(StatusCode::FORBIDDEN, sentence).into();
        }
        let preflight = self.cors.as_ref().and_then(|cors| cors.preflight(&request));
        if let Some(response) = preflight {
            return response;
        }
        let allowed = self.cors.as_ref().and_then(|cors| cors.allowed(&request));
        let mut response = match self.judge(&request) {
            Some(Ok(permit)) => {
                request.extensions_mut().insert(permit.clone());
                self.permitted(request, permit, content).await
            }
            Some(Err(denial)) => {
                tracing::debug!(reason = %denial, "request denied");
                Refusal::status(StatusCode::FORBIDDEN).into()
            }
            None => Refusal::status(StatusCode::FORBIDDEN).into(),
        };
        if let Some(cors) = &self.cors {
            cors.mark(response.headers_mut(), allowed);
        }
        response
    }

    async fn permitted(
        &self,
        mut request: Request,
        permit: RequestPermit,
        content: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        let mut places = Vec::new();
        if let Some(requests) = &self.requests {
            let Some(place) = requests.take() else {
                let all = requests.all;
                return full(format!("this route answers {all} requests at one time; try again"));
            };
            places.push(place);
        }
        if let Some(files) = &self.files {
            let under_way = request.extensions().get().map_or(0, Requester::answers);
            let Some(place) = files.take_modestly(under_way) else {
                let sentence =
                    "this server answers as many requests as it has open files for; try again";
                return full(sentence);
            };
            places.push(place);
        }
        let slot = (!places.is_empty()).then(|| Slot(places.into()));
        if let Some(slot) = &slot {
            request.extensions_mut().insert(slot.clone());
        }
        permit.guard_request(&request);
        // An upload may go on for longer than its answer, and counts as long.
        let request = match &slot {
            Some(slot) if !request.body().is_end_stream() => {
                let slot = Some(slot.clone());
                request.map(|body| Body::new(Holding { body, _slot: slot }))
            }
            _ => request,
        };
        let (request, exceeded) = match self.limited(request) {
            Ok(limited) => limited,
            Err(refusal) => return refusal.into(),
        };
        let answered = async {
            match self.timeout {
                None => content(request).await,
                Some(limit) => match tokio::time::timeout(limit, content(request)).await {
                    Ok(response) => response,
                    Err(_) => {
                        let sentence =
                            format!("no answer within this route's time limit of {limit:?}");
                        Refusal::new(StatusCode::GATEWAY_TIMEOUT, sentence).into()
                    }
                },
            }
        };
        let response = match permit.ends() {
            false => answered.await,
            true => tokio::select! {
                response = answered => response,
                _ = permit.no_longer() => return Refusal::status(StatusCode::FORBIDDEN).into(),
            },
        };
        if exceeded.is_some_and(|exceeded| exceeded.load(Ordering::Acquire)) {
            return self.too_large().into();
        }
        match (permit.ends(), slot) {
            (false, None) => response,
            (_, slot) => response.map(|body| {
                let body = Body::new(permit.guard(body));
                Body::new(Holding { body, _slot: slot })
            }),
        }
    }

    /// The request with a body that fails beyond the limit, and where that is told.
    fn limited(&self, request: Request) -> Result<(Request, Option<Arc<AtomicBool>>), Refusal> {
        let Some(limit) = self.body_limit else { return Ok((request, None)) };
        if request.body().size_hint().lower() > limit {
            return Err(self.too_large());
        }
        let exceeded = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&exceeded);
        let request = request.map(|body| Body::new(Limited { body, left: limit, exceeded: told }));
        Ok((request, Some(exceeded)))
    }

    fn too_large(&self) -> Refusal {
        let limit = self.body_limit.unwrap_or_default();
        let sentence = format!("the body is larger than this route's limit of {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    }
}

fn full(sentence: impl Into<String>) -> Response {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence);
    let mut response = Response::from(refusal);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Room for so many requests at one time: of a route, or of all sites that take an open file for each.
#[derive(Clone, Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    all: usize,
}

/// Requests of one connection that have files open while there are few left.
const MODEST: usize = 8;

impl Room {
    pub(super) fn new(all: usize) -> Self {
        let all = all.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A place for a request of a connection that has so many answers under way. Once half of the room is
    /// taken only modest connections get more: a few that take all they can must not hold everybody up.
    fn take_modestly(&self, under_way: usize) -> Option<OwnedSemaphorePermit> {
        let crowded = self.free.available_permits() <= self.all / 2;
        if crowded && under_way > MODEST { None } else { self.take() }
    }
}

/// The places that a request takes: among those of its route, among those that have files open.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "held for its end")]
pub(super) struct Slot(Arc<[OwnedSemaphorePermit]>);

/// A body of at most so many bytes.
struct Limited {
    body: Body,
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let length = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => 0,
        };
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            None => {
                self.exceeded.store(true, Ordering::Release);
                Poll::Ready(Some(Err("the body is larger than its route's limit".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that holds its route's slot until it ends.
struct Holding {
    body: Body,
    _slot: Option<Slot>,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_whole_segments() {
        let rule = |path: &str| {
            let route = Route { path: path.into(), ..Route::default() };
            Rule::new(&route, None, &WebLimits::default())
        };
        for (route, path, covered) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/admin/", "/admin", true),
            ("/admin/", "/admin/", true),
            ("/admin/", "/admin/x", true),
            ("/admin", "/admin/x", true),
            ("/admin", "/administrator", false),
            ("/admin", "/x/admin", false),
        ] {
            assert_eq!(rule(route).covers(path), covered, "{route} {path}");
        }
    }

    #[test]
    fn a_few_greedy_connections_leave_room_for_modest_ones() {
        let room = Room::new(400);
        let mut held = Vec::new();
        for connection in 0..20 {
            for under_way in 1..=100 {
                held.extend(room.take_modestly(under_way));
            }
            assert!(room.take_modestly(1).is_some(), "after {connection} greedy ones");
        }
        assert_eq!(held.len(), 200 + 18 * MODEST);
        while room.take_modestly(1).map(|place| held.push(place)).is_some() {}
        assert!(held.len() == 400 && room.take_modestly(1).is_none());
        held.clear();
        assert!(room.take_modestly(100).is_some());
    }
}
