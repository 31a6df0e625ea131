//! A web site with a part for peers alone, and both kinds of visitors to it.
//!
//! ```text
//! cargo run --example web --features http3
//! ```

#![allow(
    clippy::print_stdout,
    missing_docs,
    clippy::missing_errors_doc,
    unreachable_pub,
    reason = "an example prints, is read whole and runs as a module of a test"
)]

use std::error::Error;

use axum::{Extension, Router, routing::get};
use bytes::Bytes;
use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Endpoint, Identity, Scope, Target,
    http::{Authorize, HttpClient, Requester},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};

/// The site: `/` for everybody, `/peers` for keys that are authorised.
pub fn site() -> Router {
    let peers =
        Router::new().route("/peers", get(greet)).layer(Authorize::new(Access::Peer(Scope::ANY)));
    Router::new().route("/", get(|| async { "hello, world" })).merge(peers)
}

/// Every request says who sent it.
async fn greet(Extension(requester): Extension<Requester>) -> String {
    match requester.key().fingerprint() {
        Some(key) => format!("hello, {key}"),
        None => "hello, stranger".into(),
    }
}

/// Serves the site on `address`, over HTTP/3, HTTP/2 and HTTP/1.1; the key of this name is a peer.
pub async fn serve(address: &str, peer: &str) -> Result<Endpoint, Box<dyn Error>> {
    let endpoint = Endpoint::builder(Identity::generate()?)
        .listen(address.parse()?)
        .authorized(AuthorizedPeers::from_text(peer)?)
        .http(Access::Public, site())
        .bind()
        .await?;
    Ok(endpoint)
}

/// Asks `server` for a page over HTTP/3, showing the key of `identity`.
pub async fn ask(
    identity: Identity,
    server: &Target,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn Error>> {
    let endpoint = Endpoint::builder(identity).bind().await?;
    let connection = endpoint.connect(server, Alpn::H3).await?;
    let mut client = HttpClient::new(&connection).await?;
    let request = Request::get(format!("https://localhost{path}")).body(Empty::<Bytes>::new())?;
    let answer = client.send(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.close();
    endpoint.shutdown().await;
    Ok((status, String::from_utf8(body.to_vec())?))
}

#[allow(dead_code, reason = "a test takes this file in as a module")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let peer = Identity::generate()?;
    let server = serve("127.0.0.1:0", &peer.fingerprint().to_string()).await?;
    let addresses = server.local_addrs();
    let address = addresses.first().ok_or("no address")?;
    let target: Target = format!("peer://{}@{address}", server.fingerprint().hex()).parse()?;
    for (who, identity) in [("the peer", peer), ("a stranger", Identity::generate()?)] {
        for path in ["/", "/peers"] {
            let (status, text) = ask(identity.clone(), &target, path).await?;
            println!("{who} at {path}: {status} {text}");
        }
    }
    server.shutdown().await;
    Ok(())
}
