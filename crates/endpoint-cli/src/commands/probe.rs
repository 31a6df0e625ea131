//! What does a port offer?
//!
//! Shakes hands in every way and lists the identities and protocols that come back. Sends no
//! application data and trusts nothing that it sees.

use endpoint_core::{
    alpn::Alpn,
    endpoint::{ProbeReport, ProbedIdentity},
    target::HostPort,
};
use serde_json::{Value, json};

use super::{Context, connect};
use crate::{
    args::Probe,
    error::{CliError, ExitKind, Result},
};

pub(super) async fn run(args: Probe, context: &Context) -> Result<()> {
    let host: HostPort = args.port.parse().map_err(|error| {
        CliError::told("host-port", ExitKind::Usage, &error)
            .hint("such as: endpoint probe 127.0.0.1:4433")
    })?;
    let endpoint = connect::dialler(args.timeout, context).await?;
    let mut candidates: Vec<Alpn> = args.alpn;
    candidates.extend(KNOWN);
    candidates.dedup();
    // Four ways to shake hands, a few protocols each.
    let deadline = args.timeout.saturating_mul(16);
    let probe = endpoint.probe(&host, &candidates);
    let report = connect::patiently(probe, &args.port, false, deadline, context.output)
        .await?
        .map_err(|error| {
            connect::connect_fault(&error, &Alpn::DISCOVER_1, endpoint.fingerprint(), context)
        })?;
    let object = json!({
        "address": report.address.to_string(),
        "identities": report.identities.iter().map(identity).collect::<Vec<_>>(),
    });
    context.output.result(&object, &text(&report))
}

fn identity(identity: &ProbedIdentity) -> Value {
    json!({
        "certificate_type": identity.kind.to_string(),
        "fingerprint": identity.fingerprint.to_string(),
        "with_client_key": identity.with_client_key,
        "asks_client_key": identity.asks_client_key,
        "alpns": identity.alpns.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Each identity once, and under it what it offers to whom.
fn text(report: &ProbeReport) -> String {
    let mut lines = vec![format!("{} over QUIC", report.address)];
    let mut last = None;
    for identity in &report.identities {
        let shown = (identity.kind, identity.fingerprint);
        if last.replace(shown) != Some(shown) {
            lines.push(format!("{} {}", identity.kind, identity.fingerprint));
        }
        let who = match (identity.with_client_key, identity.asks_client_key) {
            (false, _) => "without a client key",
            (true, false) => "with a client key, not asked for",
            (true, true) => "with a client key, asked for",
        };
        let alpns: Vec<_> = identity.alpns.iter().map(ToString::to_string).collect();
        lines.push(format!("  {who}: {}", alpns.join(", ")));
    }
    lines.join("\n")
}

/// Protocols that an endpoint of any build may offer.
const KNOWN: [Alpn; 7] = [
    Alpn::DISCOVER_1,
    Alpn::PING_1,
    Alpn::ECHO_1,
    Alpn::ENROLL_1,
    Alpn::H3,
    Alpn::H2,
    Alpn::HTTP_1_1,
];
