//! How much may answers cost? The part of `[limits]` that is the web server's.

use std::time::Duration;

use toml::de::DeTable;

use super::{
    Config,
    read::{Reader, Value},
    value,
};

/// Limits of the web server. All are for the whole program; a route may replace the times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WebLimits {
    /// Files that are compressed at one time; others are sent as they are meanwhile. Default 32.
    pub compressions: usize,
    /// Size in bytes above which a file is never compressed on its way out. Default 10 MiB.
    pub compress_up_to: u64,
    /// Silence of an upstream within its answer after which the answer breaks off. Default 10 min.
    pub upstream_idle: Duration,
    /// Time for which an upstream may take nothing of a request's body. Default 1 min.
    pub upstream_send_idle: Duration,
    /// Silence in both directions after which a tunnel (WebSocket) ends. Default 1 h.
    pub tunnel_idle: Duration,
}

impl Default for WebLimits {
    fn default() -> Self {
        Self {
            compressions: 32,
            compress_up_to: 10 << 20,
            upstream_idle: Duration::from_secs(600),
            upstream_send_idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(3_600),
        }
    }
}

/// Fields of `[limits]` that this file reads.
pub(super) const FIELDS: [&str; 7] = [
    "answer_bytes",
    "answer_idle",
    "compressions",
    "compress_up_to",
    "upstream_idle",
    "upstream_send_idle",
    "tunnel_idle",
];

/// Reads them.
pub(super) fn limits<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, config: &mut Config) {
    for name in FIELDS {
        let Some(value) = table.get(name) else { continue };
        match name {
            "answer_bytes" => {
                if let Some(bytes) = reader.parsed(value, SIZE, value::size) {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    config.limits = config.limits.clone().answer_bytes(bytes);
                }
            }
            "answer_idle" => {
                if let Some(idle) = time(reader, value) {
                    config.limits = config.limits.clone().request_answer_idle(idle);
                }
            }
            "compressions" => {
                if let Some(count) = reader.number(value, 1_000_000) {
                    config.web.compressions = count;
                }
            }
            "compress_up_to" => {
                if let Some(bytes) = reader.parsed(value, SIZE, value::size) {
                    config.web.compress_up_to = bytes;
                }
            }
            name => {
                let Some(idle) = time(reader, value) else { continue };
                match name {
                    "upstream_idle" => config.web.upstream_idle = idle,
                    "upstream_send_idle" => config.web.upstream_send_idle = idle,
                    _ => config.web.tunnel_idle = idle,
                }
            }
        }
    }
}

const SIZE: &str = "a size such as \"64MiB\"";

/// A time of silence: none at all would end everything.
pub(super) fn time<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> Option<Duration> {
    let parse = |text: &str| match value::duration(text)? {
        Duration::ZERO => Err("a silence of nothing ends everything".to_owned()),
        idle => Ok(idle),
    };
    reader.parsed(value, "a time such as \"10m\"", parse)
}
