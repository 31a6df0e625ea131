//! What does the program log, and where?
//!
//! Lines on stderr with a time in RFC 3339, UTC, milliseconds; in colour only where `anstream`
//! would; with `--log-format json` an object a line. `serve` tells starts, stops and what an operator must see; other commands only with `-v`.

use std::fmt;

use crate::args::LogFormat;
use endpoint_core::clock::Clock;
use tracing_subscriber::{EnvFilter, fmt::format::Writer, fmt::time::FormatTime};

/// Starts logging. `verbose` counts the `-v`.
pub(crate) fn start(serving: bool, verbose: u8, format: LogFormat) {
    let filter = match (serving, verbose) {
        (false, 0) => "off",
        (true, 0) => "warn,endpoint_core=info,endpoint_cli=info",
        (_, 1) => "warn,endpoint_core=debug,endpoint_cli=debug",
        _ => "debug,endpoint_core=trace,endpoint_cli=trace",
    };
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_timer(Utc)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(colour).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // Tests run several commands in one process; the first one's log stays.
    drop(started);
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Clock::system().now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_in_rfc_3339_with_milliseconds() {
        let mut text = String::new();
        Utc.format_time(&mut Writer::new(&mut text)).unwrap();
        assert_eq!(text.len(), "2026-11-22T10:00:00.000Z".len(), "{text}");
        assert!(text.parse::<jiff::Timestamp>().is_ok(), "{text}");
    }
}
