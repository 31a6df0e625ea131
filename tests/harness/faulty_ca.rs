//! A certificate authority that errs as it is told: a TLS proxy before Pebble.
//!
//! Pebble makes its URLs from the `Host` that it is asked under, so behind a proxy that hands `Host` on
//! they lead to the proxy.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::pebble::{Pebble, send};

/// A resource of an authority.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Route {
    Directory,
    Nonce,
    NewAccount,
    NewOrder,
    Authorization,
    Challenge,
    Order,
    Finalize,
    Certificate,
    RenewalInfo,
    Other,
}

/// What goes wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Goes on when the proxy is told to heal, as if nothing had been.
    Held,
    /// 429 with a problem document and, if given, this `Retry-After`.
    RateLimited(Option<String>),
    /// The same without the header; the text names the moment, such as `2026-01-02 03:04:05`, in UTC.
    LimitedUntil(String),
    /// This status with a page of HTML.
    Status(u16),
    /// This status with a problem of this ACME type.
    Problem(u16, &'static str),
    /// No answer, ever.
    Silence,
    /// An answer of one byte in ten milliseconds, without end.
    Slow,
    /// Success with a page of HTML.
    WrongType,
}

/// Renewal information that is given for every certificate (RFC 9773).
#[derive(Clone, Debug)]
pub struct Ari {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// Left out if `None`.
    pub retry_after: Option<String>,
}

/// The proxy; ended when dropped.
#[derive(Debug)]
pub struct FaultyCa {
    address: SocketAddr,
    state: Arc<State>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    pebble: u16,
    tls: Arc<ClientConfig>,
    told: Mutex<Told>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Told {
    faults: Vec<(Route, Fault, Option<usize>)>,
    /// So many of so many POSTs are refused for their nonce.
    nonces: (usize, usize),
    ari: Option<Ari>,
    profiles: Vec<String>,
}

#[derive(Debug, Default)]
struct Seen {
    calls: HashMap<Route, Vec<Instant>>,
    accounts: HashSet<String>,
    orders: Vec<Value>,
    posts: usize,
    nonces_refused: usize,
    failed: HashSet<String>,
    renewal_paths: Vec<String>,
}

impl FaultyCa {
    /// Starts one before `pebble`, without faults.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn before(pebble: &Pebble) -> Self {
        Self::at(pebble, 0).await
    }

    /// The same on that port of loopback.
    ///
    /// # Panics
    /// If the port is taken.
    pub async fn at(pebble: &Pebble, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            pebble: pebble.port(),
            tls: pebble.client_tls(),
            told: Mutex::default(),
            seen: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(pebble.server_tls());
        let serving = tokio::spawn(serve(listener, acceptor, Arc::clone(&state)));
        Self { address, state, serving }
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// Errs so on that resource from now on; `times`: that often, then no more.
    pub fn fail(&self, route: Route, fault: Fault, times: Option<usize>) {
        self.told().faults.push((route, fault, times));
    }

    /// Errs no more.
    pub fn heal(&self) {
        let mut told = self.told();
        told.faults.clear();
        told.nonces = (0, 0);
    }

    /// Refuses the nonces of `bad` of each `of` POSTs, evenly.
    pub fn refuse_nonces(&self, bad: usize, of: usize) {
        self.told().nonces = (bad, of);
    }

    /// Offers renewal information, the same for every certificate.
    pub fn offer_ari(&self, ari: Ari) {
        self.told().ari = Some(ari);
    }

    /// Advertises these profiles.
    pub fn offer_profiles(&self, profiles: &[&str]) {
        self.told().profiles = profiles.iter().map(ToString::to_string).collect();
    }

    /// How often that resource was asked for.
    #[must_use]
    pub fn calls(&self, route: Route) -> usize {
        self.seen().calls.get(&route).map_or(0, Vec::len)
    }

    /// When that resource was asked for.
    #[must_use]
    pub fn times(&self, route: Route) -> Vec<Instant> {
        self.seen().calls.get(&route).cloned().unwrap_or_default()
    }

    /// How many accounts were made or found.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.seen().accounts.len()
    }

    /// What the new orders asked for that were handed on to the authority.
    #[must_use]
    pub fn orders(&self) -> Vec<Value> {
        self.seen().orders.clone()
    }

    /// How many of them were for that name.
    #[must_use]
    pub fn orders_for(&self, name: &str) -> usize {
        let orders = self.orders();
        orders.iter().filter(|order| order["identifiers"][0]["value"] == name).count()
    }

    /// How many requests there were.
    #[must_use]
    pub fn total(&self) -> usize {
        self.seen().calls.values().map(Vec::len).sum()
    }

    /// How many authorizations turned out invalid.
    #[must_use]
    pub fn failed_validations(&self) -> usize {
        self.seen().failed.len()
    }

    /// How many nonces were refused.
    #[must_use]
    pub fn nonces_refused(&self) -> usize {
        self.seen().nonces_refused
    }

    /// What the last new order asked for.
    #[must_use]
    pub fn last_order(&self) -> Option<Value> {
        self.seen().orders.last().cloned()
    }

    /// The identifiers of the certificates that renewal information was asked for.
    #[must_use]
    pub fn renewal_ids(&self) -> Vec<String> {
        self.seen().renewal_paths.clone()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.state.told.lock().expect("no panic holds it")
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.state.seen.lock().expect("no panic holds it")
    }
}

impl Drop for FaultyCa {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    // Dropped with this future, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(state.answer(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let route = route(&path);
        self.seen.lock().expect("no panic").calls.entry(route).or_default().push(Instant::now());
        match self.fault(route) {
            Some(Fault::Held) => self.released(route).await,
            Some(fault) => return fault.answer().await,
            None => {}
        }
        if route == Route::RenewalInfo {
            return self.renewal_info(&path);
        }
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Fault::Status(400).answer().await };
        let body = body.to_bytes();
        if parts.method == Method::POST {
            if let Some(refused) = self.refuse_nonce(&body) {
                return refused;
            }
            if route == Route::NewOrder {
                self.seen.lock().expect("no panic").orders.extend(part(&body, "payload"));
            }
        }
        let host = parts.headers.get(header::HOST).cloned();
        let request = Request::from_parts(parts, Full::from(body));
        let Ok(answer) = send(&self.tls, self.pebble, request).await else {
            return Fault::Status(502).answer().await;
        };
        let (mut parts, body) = answer.into_parts();
        if let (Route::NewAccount, Some(url)) = (route, parts.headers.get(header::LOCATION)) {
            let url = String::from_utf8_lossy(url.as_bytes()).into_owned();
            self.seen.lock().expect("no panic").accounts.insert(url);
        }
        let body = match route {
            Route::Directory => self.directory(&body, host.as_ref()),
            Route::Authorization => self.authorization(&path, body),
            _ => body,
        };
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Full::from(body).boxed_unsync())
    }

    fn fault(&self, route: Route) -> Option<Fault> {
        let mut told = self.told.lock().expect("no panic");
        let at = told.faults.iter().position(|(of, _, left)| *of == route && *left != Some(0))?;
        let (_, fault, left) = told.faults.get_mut(at)?;
        if let Some(left) = left {
            *left -= 1;
        }
        Some(fault.clone())
    }

    async fn released(&self, route: Route) {
        let held = (route, Fault::Held, None);
        while self.told.lock().expect("no panic").faults.contains(&held) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn refuse_nonce(&self, body: &[u8]) -> Option<Answer> {
        let (bad, of) = self.told.lock().expect("no panic").nonces;
        let mut seen = self.seen.lock().expect("no panic");
        let post = seen.posts;
        seen.posts += 1;
        if of == 0 || (post + 1) * bad / of == post * bad / of {
            return None;
        }
        seen.nonces_refused += 1;
        // Never shown to Pebble, so it is good for the next try.
        let nonce = part(body, "protected")?.get("nonce")?.as_str()?.to_owned();
        let mut answer = problem(400, "badNonce");
        answer.headers_mut().insert("replay-nonce", HeaderValue::try_from(nonce).ok()?);
        Some(answer)
    }

    fn directory(&self, body: &[u8], host: Option<&HeaderValue>) -> Bytes {
        let told = self.told.lock().expect("no panic");
        let mut directory: Value = serde_json::from_slice(body).expect("a directory");
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        if told.ari.is_some() {
            directory["renewalInfo"] = json!(format!("https://{host}/renewal-info"));
        }
        for profile in &told.profiles {
            directory["meta"]["profiles"][profile] = json!("a profile");
        }
        directory.to_string().into()
    }

    fn authorization(&self, path: &str, body: Bytes) -> Bytes {
        let found: Value = serde_json::from_slice(&body).unwrap_or_default();
        if found["status"] == "invalid" {
            self.seen.lock().expect("no panic").failed.insert(path.to_owned());
        }
        body
    }

    fn renewal_info(&self, path: &str) -> Answer {
        let id = path.trim_start_matches("/renewal-info/").to_owned();
        self.seen.lock().expect("no panic").renewal_paths.push(id);
        let told = self.told.lock().expect("no panic");
        let Some(ari) = &told.ari else { return problem(404, "malformed") };
        let body = json!({ "suggestedWindow": { "start": ari.start, "end": ari.end } });
        let mut answer = whole(200, "application/json", body.to_string());
        if let Some(wait) = &ari.retry_after {
            let wait = HeaderValue::try_from(wait).expect("a header");
            answer.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        answer
    }
}

impl Fault {
    async fn answer(self) -> Answer {
        match self {
            Self::RateLimited(wait) => {
                let mut answer = problem(429, "rateLimited");
                if let Some(wait) = wait {
                    let wait = HeaderValue::try_from(wait).expect("a header");
                    answer.headers_mut().insert(header::RETRY_AFTER, wait);
                }
                answer
            }
            Self::LimitedUntil(time) => {
                let detail = format!("too many certificates, retry after {time} UTC: see nowhere");
                problem_with(429, "rateLimited", &detail)
            }
            Self::Status(status) => whole(status, "text/html", "<html>out of order</html>".into()),
            Self::Problem(status, kind) => problem(status, kind),
            Self::Silence | Self::Held => std::future::pending().await,
            Self::Slow => {
                let drops = stream::unfold((), |()| async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
                });
                Response::new(StreamBody::new(drops).boxed_unsync())
            }
            Self::WrongType => whole(200, "text/html", "<html>sign in</html>".into()),
        }
    }
}

fn problem(status: u16, kind: &str) -> Answer {
    problem_with(status, kind, "as told")
}

fn problem_with(status: u16, kind: &str, detail: &str) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    let body = json!({ "type": kind, "detail": detail, "status": status });
    whole(status, "application/problem+json", body.to_string())
}

fn whole(status: u16, kind: &str, body: String) -> Answer {
    let answer = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    answer.body(Full::from(body).boxed_unsync()).expect("an answer")
}

/// A part of a JWS: `protected` or `payload`.
fn part(body: &[u8], name: &str) -> Option<Value> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let part = BASE64URL.decode(body.get(name)?.as_str()?.as_bytes()).ok()?;
    serde_json::from_slice(&part).ok()
}

/// Pebble's paths.
fn route(path: &str) -> Route {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "dir" => Route::Directory,
        "nonce-plz" => Route::Nonce,
        "sign-me-up" => Route::NewAccount,
        "order-plz" => Route::NewOrder,
        "authZ" => Route::Authorization,
        "chalZ" => Route::Challenge,
        "my-order" => Route::Order,
        "finalize-order" => Route::Finalize,
        "certZ" => Route::Certificate,
        "renewal-info" => Route::RenewalInfo,
        _ => Route::Other,
    }
}
