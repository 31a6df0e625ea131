//! How long is the way to another endpoint?
//!
//! Speaks `ping/1`: probes on one stream, each comes back as it went.

use std::time::Duration;

use endpoint_core::{
    alpn::Alpn, error::LinkError, facts::Carrier, handler::PROBE_BYTES, identity::Fingerprint,
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{Context, connect, milliseconds};
use crate::{args::Ping, error::Result};

pub(super) async fn run(args: Ping, context: &Context) -> Result<()> {
    let alpn = Alpn::PING_1;
    let dialled = connect::connect(&args.peer, &alpn, context).await?;
    let connection = &dialled.connection;
    let handshake = connection.handshake_time();
    let kind = connection.server_key_kind();
    let shown = connection.peer_key().fingerprint();
    let remote = connection.remote();
    let peer = match shown {
        Some(key) => format!("peer://{}@{remote}", hex(key)),
        None => args.peer.peer.clone(),
    };
    let carrier = match connection.carrier() {
        Carrier::Quic => "QUIC",
        Carrier::Tcp => "TCP",
    };
    context.output.say(&format!(
        "{remote} is {} ({kind}), {alpn} over {carrier}, handshake {} ms",
        shown.map_or_else(|| "nameless".to_owned(), |key| key.to_string()),
        milliseconds(handshake)
    ));
    let measured = measure(&args, &dialled, context).await;
    let times = match measured {
        Ok(times) => times,
        Err(error) => return Err(dialled.fault(error, &alpn).await),
    };
    dialled.end().await;
    let total: Duration = times.iter().sum();
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX).max(1);
    let low = times.iter().min().copied().unwrap_or_default();
    let high = times.iter().max().copied().unwrap_or_default();
    let mean = total.checked_div(count).unwrap_or_default();
    let [low, mean, high] = [low, mean, high].map(milliseconds);
    let object = json!({
        "peer": peer,
        "fingerprint": shown.map(|key| key.to_string()),
        "alpn": alpn.to_string(),
        "carrier": carrier.to_lowercase(),
        "certificate_type": kind.to_string(),
        "handshake_ms": milliseconds(handshake),
        "rtt_ms": {"min": low, "avg": mean, "max": high, "count": times.len()},
        // Nothing outlives the process that a later one could resume with.
        "resumed": false,
    });
    let trips = if count == 1 { "round trip" } else { "round trips" };
    let text = format!("{count} {trips} to {peer}: min {low} ms, avg {mean} ms, max {high} ms");
    context.output.result(&object, &text)
}

async fn measure(
    args: &Ping,
    dialled: &connect::Dialled,
    context: &Context,
) -> Result<Vec<Duration>, LinkError> {
    let (mut send, mut receive) = dialled.connection.open_bi().await?;
    let mut times = Vec::new();
    for number in 1..=args.count {
        let mut probe = [0; PROBE_BYTES];
        for (byte, digit) in probe.iter_mut().zip(number.to_be_bytes()) {
            *byte = digit;
        }
        let started = Instant::now();
        send.write_all(&probe).await?;
        send.flush().await?;
        let mut back = [0; PROBE_BYTES];
        match timeout(args.peer.timeout, receive.read_exact(&mut back)).await {
            Ok(read) => read?,
            Err(_) => return Err(LinkError::TimedOut),
        }
        if back != probe {
            return Err(LinkError::Lost("another probe came back than went".into()));
        }
        times.push(started.elapsed());
        if context.output.shows_progress() {
            let time = milliseconds(started.elapsed());
            context.output.say(&format!("round trip {number}: {time} ms"));
        }
        if number < args.count {
            sleep(args.interval).await;
        }
    }
    send.finish().await?;
    Ok(times)
}

fn hex(key: Fingerprint) -> String {
    data_encoding::HEXLOWER.encode(key.as_bytes())
}
