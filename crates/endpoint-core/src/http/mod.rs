//! How are requests served? A part of step 6.
//!
//! One `tower::Service`, such as an axum router, behind HTTP/3 (RFC 9114), HTTP/2 (RFC 9113) and HTTP/1.1
//! (RFC 9112) of one port number: [`Builder::http`](crate::endpoint::Builder::http). Every request carries a
//! [`Requester`], which says who asks and judges a route's own access rule. [`HttpClient`] sends requests over
//! a connection that [`Endpoint::connect`](crate::endpoint::Endpoint::connect) made.
//!
//! ```no_run
//! use axum::{Extension, Router, routing::get};
//! use endpoint_core::{
//!     Access, AuthorizedPeers, Endpoint, Identity, Scope,
//!     http::{Authorize, Requester},
//! };
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! async fn greet(Extension(requester): Extension<Requester>) -> String {
//!     format!("hello, {:?}", requester.key())
//! }
//! let peers = Router::new()
//!     .route("/peers", get(greet))
//!     .layer(Authorize::new(Access::Peer(Scope::ANY))); // only keys in that file
//! let endpoint = Endpoint::builder(Identity::load_or_create("identity.key")?)
//!     .listen("[::]:4433".parse()?)
//!     .authorized(AuthorizedPeers::watch("authorized_peers")?)
//!     .http(Access::Public, Router::new().route("/", get(|| async { "hello" })).merge(peers))
//!     .bind()
//!     .await?;
//! # endpoint.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Always true: a key that a request knows of is a key whose possession the handshake proved; what a peer
//! makes us hold has a bound before it is held.

mod answers;
mod body;
mod body_pace;
mod check;
mod client;
mod date;
mod guard;
mod http3;
mod http3_answer;
mod http3_body;
mod http3_exchange;
mod http3_fields;
mod limits;
mod linger;
mod meter;
mod passed_on;
mod plain;
mod quic;
mod requester;
mod resets;
mod service;
mod tapped;
mod tcp;

use std::error::Error;

pub use self::{
    answers::Answers,
    body::RequestBody,
    client::{HttpClient, HttpError, ResponseBody, http2_client},
    guard::{Authorize, Authorized, GuardedBody},
    passed_on::{folded, is_of_forwarding},
    plain::{PlainOptions, serve_plain},
    requester::{RequestPermit, Requester},
    service::Web,
};
// For the fuzz targets, which stand outside of this crate: no part of the interface.
#[doc(hidden)]
pub use self::meter::probe::MeterProbe;
// For the proxy of the program: no part of the interface.
#[doc(hidden)]
pub use self::tapped::{Tap, Tapped};

/// Any error of a service or a body.
pub type BoxError = Box<dyn Error + Send + Sync>;
