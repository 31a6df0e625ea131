//! Dials a peer by the name of its key and says something.
//!
//! ```text
//! cargo run --example pinned_dial -- peer://<fingerprint>@127.0.0.1:4433 hello
//! ```

#![allow(
    clippy::print_stdout,
    missing_docs,
    clippy::missing_errors_doc,
    unreachable_pub,
    reason = "an example prints, is read whole and runs as a module of a test"
)]

use std::error::Error;

use endpoint_core::{ConnectError, Endpoint, Identity, Target};

/// Says `text` to `target` on `shout/1` and gives the answer.
pub async fn say(identity: Identity, target: &str, text: &str) -> Result<String, Box<dyn Error>> {
    let target: Target = target.parse()?;
    let endpoint = Endpoint::builder(identity).bind().await?;
    let connection = match endpoint.connect(&target, b"shout/1").await {
        Err(ConnectError::NotAuthorized { .. }) => {
            return Err(format!("the other side must trust {}", endpoint.fingerprint()).into());
        }
        connected => connected?,
    };
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(text.as_bytes()).await?;
    send.finish().await?;
    let answer = recv.read_to_end(64 * 1024).await?;
    connection.close();
    endpoint.shutdown().await;
    Ok(String::from_utf8(answer)?)
}

#[allow(dead_code, reason = "a test takes this file in as a module")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(target), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: pinned_dial peer://FINGERPRINT@HOST:PORT TEXT".into());
    };
    println!("{}", say(Identity::generate()?, &target, &text).await?);
    Ok(())
}
