//! A server for authorised peers, with a handler of its own in ten lines.
//!
//! ```text
//! cargo run --example echo -- 127.0.0.1:4433 sha256:<fingerprint of a client>
//! ```

#![allow(
    clippy::print_stdout,
    missing_docs,
    clippy::missing_errors_doc,
    unreachable_pub,
    reason = "an example prints, is read whole and runs as a module of a test"
)]

use std::error::Error;

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Connection, Endpoint, Handler, HandlerError, Identity, Permit,
};

/// Sends back each stream in capitals.
struct Shout;

impl Handler for Shout {
    async fn serve(&self, connection: Connection, permit: Permit) -> Result<(), HandlerError> {
        println!("serving {:?}", permit.fingerprint());
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let text = recv.read_to_end(64 * 1024).await?;
            send.write_all(&text.to_ascii_uppercase()).await?;
            send.finish_and_wait().await?;
        }
        Ok(())
    }
}

/// Listens on `address` for the peer whose key has this name.
pub async fn serve(address: &str, client: &str) -> Result<Endpoint, Box<dyn Error>> {
    let endpoint = Endpoint::builder(Identity::generate()?)
        .listen(address.parse()?)
        .authorized(AuthorizedPeers::from_text(client)?)
        .handle(Alpn::new(b"shout/1")?, Access::default(), Shout)
        .bind()
        .await?;
    Ok(endpoint)
}

#[allow(dead_code, reason = "a test takes this file in as a module")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(client)) = (args.next(), args.next()) else {
        return Err("usage: echo ADDRESS sha256:FINGERPRINT".into());
    };
    let endpoint = serve(&address, &client).await?;
    for address in endpoint.local_addrs() {
        println!("listening: peer://{}@{address}", endpoint.fingerprint().hex());
    }
    tokio::signal::ctrl_c().await?;
    endpoint.shutdown().await;
    Ok(())
}
