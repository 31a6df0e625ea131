//! The web server: which site answers a request, and how?
//!
//! One service for every way in: HTTP/3, HTTP/2 and HTTP/1.1 of the endpoint's port, and plain HTTP/1.1 on
//! loopback. A request takes four steps, one file each: `host` (which site), `path` (the one form that
//! rules and files see), `rule` (may it, and how much), then the content: `files`, `proxy`, `redirect`,
//! `welcome`. Without feature `http3` the file `web_off` stands here.

mod cors;
mod files;
mod host;
mod page;
mod path;
mod proxy;
mod redirect;
mod rule;
mod welcome;

use std::{
    borrow::Cow,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use endpoint_core::{
    config::Access,
    endpoint::Builder,
    http::{Answers as AnswerSum, RequestBody, Requester},
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tower::Service;

pub(crate) use self::{
    cors::is_cross_site,
    host::{Host, authority, host},
    page::{Refusal, dress, escaped, wanted as page_wanted},
    redirect::permanent,
};
use self::{
    host::{Hosts, Place},
    page::Ids,
    rule::Rule,
};
use crate::{
    config::{self, WebLimits, web::Content},
    error::Result,
};

/// Whether this build has the web server.
pub(crate) const BUILT_IN: bool = true;

/// A request inside of the web server.
pub(crate) type Request = http::Request<Body>;
/// An answer.
pub(crate) type Response = http::Response<Body>;

/// The field that names a request in answers, logs and at upstreams.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything that answers requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Web(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: Hosts,
    sites: Vec<Site>,
    ids: Ids,
    /// Of all ways in.
    answers: AnswerSum,
}

/// A site, ready to answer.
#[derive(Debug)]
struct Site {
    names: Vec<String>,
    /// Whether it has a certificate.
    shown: bool,
    content: Answers,
    headers: Vec<(HeaderName, HeaderValue)>,
    access_log: bool,
    /// The longest path first; the last one is for all that no other is for.
    rules: Vec<Rule>,
}

/// What a site answers with.
#[derive(Debug)]
enum Answers {
    Welcome,
    Files(Box<files::Files>),
    Proxy(proxy::Proxy),
    Redirect(redirect::Redirect),
}

/// What all sites have in common.
struct Shared<'s> {
    /// Addresses of ours.
    own: &'s [SocketAddr],
    room: rule::Room,
    compressor: files::Compressor,
    /// Sites that serve a folder.
    folders: usize,
    limits: &'s WebLimits,
}

impl Web {
    /// Checks what the sites need, folders and upstreams, before anything is bound. `own` are the addresses
    /// that will be.
    ///
    /// # Errors
    /// What is wrong and with which value. Exit code 2.
    pub(crate) fn prepare<'s>(
        sites: &'s [config::Site],
        own: &[SocketAddr],
        files: usize,
        limits: &WebLimits,
    ) -> Result<Self> {
        let serves_files = |site: &&config::Site| matches!(site.content, Content::Root { .. });
        let shared = Shared {
            folders: sites.iter().filter(serves_files).count(),
            own,
            room: rule::Room::new(files.max(1)),
            compressor: files::Compressor::new(limits),
            limits,
        };
        let names = |site: &'s config::Site| (site.names.as_slice(), site.certificate.is_some());
        let hosts = Hosts::new(sites.iter().map(names));
        let sites = sites.iter().map(|site| Site::prepare(site, &shared)).collect::<Result<_>>()?;
        let (ids, answers) = (Ids::new(), AnswerSum::default());
        Ok(Self(Arc::new(Inner { hosts, sites, ids, answers })))
    }

    /// Registers the web server with the endpoint.
    pub(crate) fn attach(&self, builder: Builder) -> Builder {
        builder.http_counted_in(Access::Public, self.clone(), &self.0.answers)
    }

    /// The sum of the answers that wait for their clients, over every way in.
    pub(crate) fn answers(&self) -> &AnswerSum {
        &self.0.answers
    }

    /// The addresses that a person can open: one for each site that is served over https.
    pub(crate) fn urls(&self, port: u16) -> Vec<String> {
        let suffix = if port == 443 { String::new() } else { format!(":{port}") };
        let shown = self.0.sites.iter().filter(|site| site.shown);
        let names = shown.filter_map(|site| site.names.iter().find(|name| !name.starts_with('*')));
        names.map(|name| format!("https://{name}{suffix}/")).collect()
    }

    /// Whether a site has this name and is served over https.
    pub(crate) fn serves(&self, name: &str) -> bool {
        self.0.hosts.find_shown(name).is_some()
    }

    /// Answers one request. The requester stands in its extensions.
    pub(crate) async fn answer(&self, mut request: Request) -> Response {
        let began = Instant::now();
        let Inner { hosts, sites, ids, .. } = &*self.0;
        let id = ids.next();
        let wants_page = page::wanted(&request);
        request.headers_mut().insert(REQUEST_ID, id.clone());
        let place = match request.extensions().get::<Requester>() {
            // No site tunnels elsewhere, and none tells a script what it was sent (RFC 9110 §9.3.6, §9.3.8).
            _ if matches!(*request.method(), Method::CONNECT | Method::TRACE) => {
                Err(page::Refusal::status(StatusCode::METHOD_NOT_ALLOWED))
            }
            Some(requester) => hosts.place(&request, requester),
            // Nobody vouches for where the request came from.
            None => Err(page::Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "no requester")),
        };
        let site = place.and_then(|Place(index)| {
            let nowhere = || page::Refusal::status(StatusCode::MISDIRECTED_REQUEST);
            sites.get(index).ok_or_else(nowhere)
        });
        // What a stranger asks of no site is no line of the log.
        let log = site.as_ref().is_ok_and(|site| site.access_log).then(|| Log::of(&request));
        let (mut response, site) = match site {
            Ok(site) => (site.answer(request).await, Some(site)),
            Err(refusal) => (refusal.into(), None),
        };
        page::dress(&mut response, wants_page, Some(&id));
        for (name, value) in site.iter().flat_map(|site| &site.headers) {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response.headers_mut().insert(REQUEST_ID, id.clone());
        if let Some(log) = log {
            log.tell(&response, &id, began);
        }
        response
    }
}

impl Site {
    fn prepare(site: &config::Site, shared: &Shared<'_>) -> Result<Self> {
        let Shared { own, room, compressor, folders, limits } = shared;
        let content = match &site.content {
            Content::Welcome => Answers::Welcome,
            Content::Root { folder, listing } => {
                let compressor = compressor.clone();
                Answers::Files(Box::new(files::Files::open(
                    folder, *folders, *listing, compressor,
                )?))
            }
            Content::Proxy(upstreams) => {
                Answers::Proxy(proxy::Proxy::prepare(upstreams, own, limits)?)
            }
            Content::Redirect(to) => Answers::Redirect(redirect::Redirect::to(to.clone())),
        };
        let headers = site.headers.iter().filter_map(|(name, value)| {
            Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?))
        });
        let room = matches!(content, Answers::Files(_) | Answers::Proxy(_)).then_some(room);
        let mut rules: Vec<Rule> =
            site.routes.iter().map(|route| Rule::new(route, room.cloned(), limits)).collect();
        rules.push(Rule::new(&config::web::Route::default(), room.cloned(), limits));
        Ok(Self {
            names: site.names.clone(),
            shown: site.certificate.is_some(),
            content,
            headers: headers.collect(),
            access_log: site.access_log,
            rules,
        })
    }

    /// The rule that says most of a path; of two that differ in the case of letters the one that is meant.
    fn rule(&self, path: &str) -> Option<&Rule> {
        let first = self.rules.iter().find(|rule| rule.covers(path))?;
        let alike = self.rules.iter().filter(|rule| rule.length() == first.length());
        alike.filter(|rule| rule.covers(path)).find(|rule| rule.is_exact(path)).or(Some(first))
    }

    async fn answer(&self, request: Request) -> Response {
        let path = match path::decoded(request.uri().path()) {
            Ok(path) => path,
            Err(refusal) => return refusal.into(),
        };
        let Some(rule) = self.rule(&path) else {
            return page::Refusal::status(StatusCode::NOT_FOUND).into();
        };
        if let Cow::Owned(bare) = path::without_parameters(&path)
            && !self.rule(&bare).is_some_and(|other| std::ptr::eq(rule, other))
        {
            return path::ambiguous().into();
        }
        if let Answers::Files(_) = &self.content
            // Beside the default there is one.
            && self.rules.len() > 1
            && !files::names(&path)
                .iter()
                .filter_map(|name| self.rule(name))
                .all(|other| std::ptr::eq(rule, other) || other.permits(&request))
        {
            return page::Refusal::status(StatusCode::FORBIDDEN).into();
        }
        rule.apply(request, async |request| match &self.content {
            Answers::Welcome => welcome::page(&path),
            Answers::Files(files) => files.answer(request, &path).await,
            Answers::Proxy(proxy) => proxy.answer(request, rule.terms()).await,
            Answers::Redirect(redirect) => redirect.answer(&request),
        })
        .await
    }
}

/// What the access log says of a request.
struct Log {
    method: Method,
    uri: String,
    version: http::Version,
    requester: Option<Requester>,
}

impl Log {
    fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().path().chars().take(256).collect(),
            version: request.version(),
            requester: request.extensions().get().cloned(),
        }
    }

    fn tell(&self, response: &Response, id: &HeaderValue, began: Instant) {
        let Self { method, uri, version, requester } = self;
        let remote = requester.as_ref().map(|requester| requester.remote().to_string());
        let peer = requester.as_ref().and_then(|requester| requester.key().fingerprint());
        tracing::info!(
            target: "endpoint_cli::access",
            %method,
            uri = %uri.escape_debug(),
            ?version,
            status = response.status().as_u16(),
            ms = began.elapsed().as_millis(),
            remote = remote.as_deref().unwrap_or("-"),
            peer = peer.map_or_else(|| "-".to_owned(), |peer| peer.short().to_string()),
            id = id.to_str().unwrap_or("-"),
            "request"
        );
    }
}

impl Service<http::Request<RequestBody>> for Web {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let web = self.clone();
        Box::pin(async move { Ok(web.answer(request.map(Body::new)).await) })
    }
}
