//! What does it cost to read a ClientHello? The choice itself is a walk over the handlers.

use std::{hint::black_box, sync::Arc};

use endpoint_core::tls::hello;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, version::TLS13};

use crate::{
    raw::{ALPN, NAME},
    report::{Figure, median},
    usage,
};

/// Hellos read in a round.
const READS: usize = 50_000;
/// Bytes of the header of a TLS record (RFC 8446 §5.1).
const RECORD_HEADER_BYTES: usize = 5;

/// Reads a hello of rustls as it would come from a browser: a name, one protocol, a post-quantum share.
pub fn measure(rounds: usize) -> Result<Figure, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = NAME.try_into().map_err(|_| "no server name")?;
    let mut client =
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut record = Vec::new();
    client.write_tls(&mut record).map_err(|error| error.to_string())?;
    let message = record.get(RECORD_HEADER_BYTES..).ok_or("no hello")?;
    hello::parse(message).map_err(|alert| format!("the hello is refused: {alert:?}"))?;
    let mut nanos = Vec::new();
    for _ in 0..=rounds {
        let before = usage::cpu();
        for _ in 0..READS {
            let _ = black_box(hello::parse(black_box(message)));
        }
        nanos.push((usage::cpu() - before).as_nanos() as f64 / READS as f64);
    }
    Ok(Figure {
        figure: "choose".to_owned(),
        subject: "endpoint",
        value: median(nanos.get(1..).unwrap_or_default()),
        unit: "ns_cpu_parse",
        ratio_to: Vec::new(),
        rounds,
        runs: READS,
    })
}
