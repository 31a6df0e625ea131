//! What stands behind a proxied site.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request as Asked,
    routing::any,
};
use futures_util::{StreamExt, stream};
use tokio::{runtime::Runtime, sync::Notify};

/// An upstream that tells what it was sent, in a runtime of its own.
pub struct Upstream {
    pub address: SocketAddr,
    /// Lets an answer of `/breaks` break.
    pub breaks: Arc<Notify>,
    runtime: Option<Runtime>,
}

impl Upstream {
    pub fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let breaks = Arc::new(Notify::new());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::clone(&breaks)));
        Self { address, breaks, runtime: Some(runtime) }
    }

    /// Ends it with all of its connections; it has ended when this returns.
    pub async fn end(mut self) {
        let runtime = self.runtime.take().unwrap();
        let end = move || runtime.shutdown_timeout(Duration::from_secs(10));
        tokio::task::spawn_blocking(end).await.unwrap();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: std::net::TcpListener, broken: Arc<Notify>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let echo = |request: Asked| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
        }
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
        if let Some(trailers) = body.trailers() {
            for (name, value) in trailers {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
            }
        }
        text.push_str(&format!("body {}\n", body.to_bytes().len()));
        text
    };
    let breaks = async move || {
        let half = stream::iter([Ok(Bytes::from_static(b"half"))]);
        let breaks = stream::once(async move {
            broken.notified().await;
            Err("broken")
        });
        Body::from_stream(half.chain(breaks))
    };
    let router = Router::new()
        .route("/breaks", any(breaks))
        .route("/hangs", any(std::future::pending::<()>))
        .fallback(any(echo));
    axum::serve(listener, router).await.unwrap();
}
