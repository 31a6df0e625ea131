//! A site whose certificates look after themselves.
//!
//! ```text
//! cargo run --example acme --features acme,http3 -- 0.0.0.0:443 www.example.com
//! ```

#![allow(
    clippy::print_stdout,
    missing_docs,
    clippy::missing_errors_doc,
    unreachable_pub,
    reason = "an example prints, is read whole and runs as a module of a test"
)]

use std::error::Error;

use axum::{Router, routing::get};
use endpoint_core::{Access, Acme, AcmeDirectory, Endpoint, Identity, StoreConfig};

/// Serves `names` on `address` with certificates from the authority at `directory`, kept in `store`.
pub async fn serve(
    address: &str,
    names: &[&str],
    directory: AcmeDirectory,
    store: StoreConfig,
) -> Result<Endpoint, Box<dyn Error>> {
    serve_with(address, Acme::new(names.iter().copied()).directory(directory).store(store)).await
}

/// The same, with everything else that can be said about it.
pub async fn serve_with(address: &str, acme: Acme) -> Result<Endpoint, Box<dyn Error>> {
    let site = Router::new().route("/", get(|| async { "hello, world" }));
    let endpoint = Endpoint::builder(Identity::generate()?)
        .listen(address.parse()?)
        .acme(acme)
        .http(Access::Public, site)
        .bind()
        .await?;
    Ok(endpoint)
}

#[allow(dead_code, reason = "a test takes this file in as a module")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (address, names) = args.split_first().ok_or("give an address and the names")?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let endpoint = serve(address, &names, AcmeDirectory::Staging, StoreConfig::Memory).await?;
    let mut events = endpoint.events();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            println!("{event:?}");
        }
    });
    tokio::signal::ctrl_c().await?;
    endpoint.shutdown().await;
    Ok(())
}
