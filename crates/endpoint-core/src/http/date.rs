//! The `date` field (RFC 9110 §6.6.1), written once a second.

use std::sync::LazyLock;

use arc_swap::ArcSwap;
use http::HeaderValue;
use jiff::Timestamp;

use crate::clock::Clock;

static WRITTEN: LazyLock<ArcSwap<(i64, HeaderValue)>> =
    LazyLock::new(|| ArcSwap::from_pointee(write(Clock::system().now())));

/// The time now as a field value.
pub(super) fn now() -> HeaderValue {
    let now = Clock::system().now();
    let written = WRITTEN.load();
    if written.0 == now.as_second() {
        return written.1.clone();
    }
    let fresh = write(now);
    let value = fresh.1.clone();
    WRITTEN.store(std::sync::Arc::new(fresh));
    value
}

fn write(now: Timestamp) -> (i64, HeaderValue) {
    let text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    // English names, digits, blanks: always a field value.
    let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    (now.as_second(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_an_imf_fixdate() {
        let at = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(write(at).1, "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
