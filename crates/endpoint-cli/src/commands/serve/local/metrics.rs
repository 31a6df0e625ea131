//! The endpoint in numbers, as Prometheus reads them.

use std::{collections::BTreeMap, fmt};

use axum::body::Body;
use endpoint_core::{Condition, alpn::Alpn, endpoint::CertificateInfo, facts::Carrier};
use http::{HeaderValue, StatusCode, header};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::Facts;
use crate::{
    log, spool,
    web::{Refusal, Response},
};

/// All metrics at this moment.
pub(super) fn text(facts: &Facts) -> Response {
    let mut registry = Registry::with_prefix("endpoint");
    registry.register_collector(Box::new(Snapshot(facts.clone())));
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        return Refusal::status(StatusCode::INTERNAL_SERVER_ERROR).into();
    }
    let mut response = Response::new(Body::from(text));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Reads the numbers when it is asked, so that counting costs nothing in between.
#[derive(Debug)]
struct Snapshot(Facts);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let endpoint = self.0.endpoint();
        let counters = serde_json::to_value(endpoint.counters()).unwrap_or_default();
        for (name, count) in counters.as_object().into_iter().flatten() {
            let counter = ConstCounter::new(count.as_u64().unwrap_or_default());
            let other = format!("{} since the start", name.replace('_', " "));
            let known = HELP.iter().find(|(of, _)| of == name);
            let help = known.map_or(other.as_str(), |(_, help)| help);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let answers = self.0.answers();
        for (name, help, count) in [
            ("log_lines_lost", "lines of stdout and stderr that nobody read", spool::lost()),
            (
                "library_warnings",
                "warnings and errors of libraries, which -v shows",
                log::library_warnings(),
            ),
            (
                "answers_given_up",
                "answers of which a client took nothing for answer_idle",
                answers.given_up(),
            ),
            (
                "answers_evicted",
                "answers given up because answer_bytes were exceeded, the longest blocked first",
                answers.evicted(),
            ),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        gauges(
            &mut encoder,
            "answers_held",
            "bytes of answers that wait for their clients, of at most answer_bytes",
            Some(&Unit::Bytes),
            [(Vec::new(), i64::try_from(answers.held_bytes()).unwrap_or(i64::MAX))],
        )?;
        // What could be connected stands there at 0, so that a graph has no holes.
        let mut live: BTreeMap<(String, String), i64> = BTreeMap::new();
        for (alpn, _) in endpoint.handlers() {
            for carrier in carriers(&alpn) {
                live.insert((alpn.to_string(), carrier.to_string()), 0);
            }
        }
        let (mut sent, mut received) = (0_u64, 0_u64);
        for info in endpoint.connections() {
            *live.entry((info.alpn, info.carrier.to_string())).or_default() += 1;
            sent = sent.saturating_add(info.bytes_sent);
            received = received.saturating_add(info.bytes_received);
        }
        gauges(
            &mut encoder,
            "connections",
            "connections that live now, by protocol and carrier",
            None,
            live.iter().map(|((alpn, carrier), count)| {
                (
                    vec![
                        ("alpn".to_owned(), alpn.clone()),
                        ("carrier".to_owned(), carrier.clone()),
                    ],
                    *count,
                )
            }),
        )?;
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let directions = [("sent", signed(sent)), ("received", signed(received))];
        gauges(
            &mut encoder,
            "connection",
            "bytes that the connections that live now have carried, by direction",
            Some(&Unit::Bytes),
            directions
                .map(|(name, count)| (vec![("direction".to_owned(), name.to_owned())], count)),
        )?;
        let certificates = endpoint.certificates();
        gauges(
            &mut encoder,
            "certificate_not_after",
            "when a certificate ends, in seconds since 1970",
            Some(&Unit::Seconds),
            certificates.iter().map(|info| (of(info), info.not_after.as_second())),
        )?;
        gauges(
            &mut encoder,
            "certificate_fallback",
            "1 while a self-signed certificate stands in for one that is not issued yet",
            None,
            certificates.iter().map(|info| (of(info), i64::from(info.fallback))),
        )?;
        let conditions = certificates.iter().flat_map(|info| {
            Condition::FAULTS.into_iter().map(|condition| {
                let mut labels = of(info);
                labels.push(("condition".to_owned(), condition.to_string()));
                (labels, i64::from(info.condition == condition))
            })
        });
        gauges(
            &mut encoder,
            "certificate_condition",
            "1 while the newest certificate is damaged, out of date, taken back, or in memory only",
            None,
            conditions,
        )?;
        gauges(
            &mut encoder,
            "certificate_failing",
            "1 while the last try to renew a certificate has failed",
            None,
            certificates.iter().map(|info| (of(info), i64::from(info.last_error.is_some()))),
        )?;
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        gauges(
            &mut encoder,
            "build_info",
            "always 1; the label says which version runs",
            None,
            [(version, 1)],
        )
    }
}

/// The labels of a certificate.
fn of(info: &CertificateInfo) -> Vec<(String, String)> {
    vec![("name".to_owned(), info.names.join(",")), ("source".to_owned(), info.source.to_owned())]
}

/// What the counters count.
const HELP: [(&str, &str); 19] = [
    ("arrivals", "first packets and TCP connections that arrived"),
    ("retries", "arrivals answered with a Retry packet, to see whether the address is real"),
    (
        "refused",
        "arrivals, and handshakes without room for a connection, refused: limit, penalty or shutdown",
    ),
    ("refused_full", "of those refused, because there was no room and nobody who could give way"),
    (
        "penalised",
        "refused because their address had failed, or had shown keys without a grant, too often",
    ),
    ("held", "arrivals that waited for their turn to shake hands"),
    ("gave_way", "strangers told to end because others needed the room"),
    ("handshakes", "handshakes finished"),
    ("handshake_failures", "handshakes that failed or came too late"),
    ("permitted", "connections that a handler was given"),
    ("denied", "connections whose key or address may not speak the protocol"),
    ("ended_by_policy", "live connections ended because they were no longer allowed"),
    ("kicked", "live connections ended by the operator"),
    ("retirement_floods", "connections whose peer retired connection ids faster than it may"),
    ("handler_errors", "handlers that ended with an error"),
    ("handler_panics", "handlers that panicked"),
    ("reloads", "times that the trust file was read anew"),
    ("task_failures", "tasks of the endpoint itself that died"),
    ("trust_alarms", "times that the trust file had faults or could not be read"),
];

/// What a protocol can come over.
fn carriers(alpn: &Alpn) -> &'static [Carrier] {
    if *alpn == Alpn::H3 {
        &[Carrier::Quic]
    } else if *alpn == Alpn::H2 || *alpn == Alpn::HTTP_1_1 {
        &[Carrier::Tcp]
    } else {
        &[Carrier::Quic, Carrier::Tcp]
    }
}

/// One metric with a value for each set of labels.
fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (Vec<(String, String)>, i64)>,
) -> Result<(), fmt::Error> {
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut metric = encoder.encode_descriptor(name, help, unit, kind)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
