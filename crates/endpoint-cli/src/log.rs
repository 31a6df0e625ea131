//! What does the program log, and where?
//!
//! Lines on stderr with a time in RFC 3339, UTC, milliseconds; in colour only where `anstream`
//! would; with `--log-format json` an object a line. `serve` tells starts, stops and what an operator must
//! see; other commands only with `-v`.
//!
//! Always true: without `-v` no library writes a line that a stranger can make it write; what they warn of is
//! counted. `serve` waits for no reader of its log, also when it panics.

use std::{
    fmt, io,
    panic::PanicHookInfo,
    sync::atomic::{AtomicU64, Ordering},
};

use endpoint_core::clock::Clock;
use serde_json::json;
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{args::LogFormat, spool};

/// What is shown by default: ours, and what the store's driver warns of. Strangers reach every other library:
/// `h2` warns of each PING answer that nobody asked for.
const BY_DEFAULT: &str = "off,sqlx=warn,endpoint_core=info,endpoint_cli=info";

/// Warnings and errors of libraries since the start.
static LIBRARY_WARNINGS: AtomicU64 = AtomicU64::new(0);

/// Starts logging. `verbose` counts the `-v`.
pub(crate) fn start(serving: bool, verbose: u8, format: LogFormat) {
    let filter = match (serving, verbose) {
        (false, 0) => "off",
        (true, 0) => BY_DEFAULT,
        (_, 1) => "warn,endpoint_core=debug,endpoint_cli=debug",
        _ => "debug,endpoint_core=trace,endpoint_cli=trace",
    };
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Stderr)
        .with_timer(Utc)
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colour).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(EnvFilter::new(filter)))
        .with(serving.then(counting))
        .try_init();
    // Tests run several commands in one process; the first one's log stays.
    drop(started);
    if serving {
        std::panic::set_hook(Box::new(panicked));
    }
}

/// Warnings and errors of libraries since the start, shown or not.
pub(crate) fn library_warnings() -> u64 {
    LIBRARY_WARNINGS.load(Ordering::Relaxed)
}

/// What makes the line of the log that tells of lost ones.
pub(crate) fn lost_lines(format: LogFormat) -> spool::LossLine {
    match format {
        LogFormat::Text => |lines| {
            let mut line = String::new();
            // Writing to a string does not fail.
            let _written = Utc.format_time(&mut Writer::new(&mut line));
            line.push_str(&format!("  WARN {TARGET}: {lines} lines lost, nobody read them\n"));
            line.into_bytes()
        },
        LogFormat::Json => |lines| {
            let mut time = String::new();
            let _written = Utc.format_time(&mut Writer::new(&mut time));
            let object = json!({
                "timestamp": time,
                "level": "WARN",
                "message": "lines lost, nobody read them",
                "lines": lines,
                "target": TARGET,
            });
            format!("{object}\n").into_bytes()
        },
    }
}

const TARGET: &str = "endpoint_cli::log";

/// Counts what libraries warn of.
fn counting<S: Subscriber + for<'s> LookupSpan<'s>>() -> impl Layer<S> {
    let theirs = filter_fn(|event| {
        *event.level() <= Level::WARN && !event.target().starts_with("endpoint_")
    });
    Counting.with_filter(theirs.with_max_level_hint(Level::WARN))
}

struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        LIBRARY_WARNINGS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells of a panic as the log tells of everything: the standard hook would wait for a reader.
fn panicked(info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let reason = info.payload_as_str().unwrap_or("no text");
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        error!(thread, at, reason, %backtrace, "panicked");
    } else {
        error!(thread, at, reason, "panicked");
    }
}

const MAX_REASON_CHARS: usize = 200;

/// stderr, through its queue if it has one.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl io::Write for Stderr {
    /// Takes all of it: the log gives whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match spool::stderr() {
            Some(queue) => {
                queue.put(line.to_vec());
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
