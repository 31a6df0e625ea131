//! What does it mean when an authority says no?
//!
//! Turns problem documents (RFC 8555 §6.7), statuses and silence into the faults that `schedule` counts.
//! Pure: the time is an argument.
//!
//! Always true: what an authority wrote stands in a detail escaped and cut.

use std::{fmt, time::Duration};

use jiff::{Timestamp, fmt::rfc2822};
use serde::Deserialize;

use super::issuer::{Fault, IssueError};
use crate::transport::fetch::{FetchError, cut};

/// What was being done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Directory,
    Register,
    Order,
    Authorization,
    Announce,
    Validate,
    Finalize,
    Certificate,
    Window,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "reading the authority's directory",
            Self::Register => "registering the account",
            Self::Order => "placing the order",
            Self::Authorization => "reading the authorization",
            Self::Announce => "announcing the challenge's answer",
            Self::Validate => "validation",
            Self::Finalize => "finalizing the order",
            Self::Certificate => "fetching the certificate",
            Self::Window => "asking when to renew",
        })
    }
}

/// A problem document.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) detail: Option<String>,
    #[serde(default)]
    pub(super) subproblems: Vec<Sub>,
}

/// What is wrong with one identifier of several (RFC 8555 §6.7.1).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sub {
    #[serde(default)]
    pub(super) detail: Option<String>,
}

impl Problem {
    /// Reads a body; `None`: it is no problem document.
    pub(super) fn read(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok().filter(|problem: &Self| problem.kind.is_some())
    }

    /// Its type without the prefix of ACME's own.
    pub(super) fn kind(&self) -> Option<&str> {
        self.kind.as_deref()?.strip_prefix("urn:ietf:params:acme:error:")
    }

    /// What the authority said, escaped and cut.
    pub(super) fn said(&self) -> String {
        let mut said = self.detail.clone().unwrap_or_default();
        for sub in self.subproblems.iter().take(SUBS).filter_map(|sub| sub.detail.as_deref()) {
            if !said.contains(sub) {
                said = format!("{said}; {sub}");
            }
        }
        match &self.kind {
            Some(kind) => format!("{} ({})", cut(&said), cut(self.kind().unwrap_or(kind))),
            None => cut(&said),
        }
    }
}

/// An answer that is no success: its status and body, and what its header said about waiting.
pub(super) fn refused(
    step: Step,
    status: u16,
    body: &str,
    header: Option<Duration>,
    now: Timestamp,
) -> IssueError {
    let Some(problem) = Problem::read(body) else {
        let kind = if status == 429 { Fault::RateLimited } else { Fault::Unavailable };
        let detail = format!("{step} failed: the authority answered with status {status} alone");
        return IssueError { kind, detail, retry_after: header };
    };
    told(step, status, &problem, header, now)
}

/// A problem that the authority told, as an answer or in an authorization or order ([`Step::Validate`]).
pub(super) fn told(
    step: Step,
    status: u16,
    problem: &Problem,
    header: Option<Duration>,
    now: Timestamp,
) -> IssueError {
    let kind = match problem.kind() {
        Some("rateLimited") => Fault::RateLimited,
        _ if status == 429 => Fault::RateLimited,
        _ if step == Step::Validate => Fault::Refused,
        Some("accountDoesNotExist") => Fault::AccountUnknown,
        Some("badNonce" | "serverInternal") => Fault::Unavailable,
        _ if status >= 500 => Fault::Unavailable,
        Some(
            "externalAccountRequired"
            | "userActionRequired"
            | "invalidContact"
            | "unsupportedContact",
        ) => Fault::AccountRefused,
        // Later, it is a name for which the account has no authorization.
        Some("unauthorized") if matches!(step, Step::Register | Step::Order) => {
            Fault::AccountRefused
        }
        _ if step == Step::Register => Fault::AccountRefused,
        _ => Fault::Refused,
    };
    let in_text = || problem.detail.as_deref().and_then(|detail| wait_in_text(detail, now));
    let retry_after = header.or_else(|| if kind == Fault::RateLimited { in_text() } else { None });
    IssueError { kind, detail: format!("{step} failed: {}", problem.said()), retry_after }
}

/// No answer that could be read.
pub(super) fn unavailable(step: Step, why: &str) -> IssueError {
    let detail = format!("{step} failed: {}", cut(why));
    IssueError { kind: Fault::Unavailable, detail, retry_after: None }
}

/// The authority's own certificate is of an issuer that is not known here.
pub(super) fn untrusted(step: Step) -> IssueError {
    let why = "the certificate of the authority's own server is not trusted: its issuer is unknown";
    let detail =
        format!("{step} failed: {why}; if the authority is yours, name its roots in `ca_root`");
    IssueError { kind: Fault::Unavailable, detail, retry_after: None }
}

/// No answer at all.
pub(super) fn unreached(step: Step, why: &FetchError) -> IssueError {
    if matches!(why, FetchError::Tls { why, .. } if why.contains("UnknownIssuer")) {
        return untrusted(step);
    }
    // Cut already, where it says something of a peer's.
    let detail = format!("{step} failed: {why}");
    IssueError { kind: Fault::Unavailable, detail, retry_after: None }
}

/// The value of `Retry-After`: seconds, or a date (RFC 9110 §10.2.3). A date in the past is no wait.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(until(date, now))
}

/// Let's Encrypt's `… retry after 2026-01-02 03:04:05 UTC: see …`.
fn wait_in_text(detail: &str, now: Timestamp) -> Option<Duration> {
    let detail = detail.to_ascii_lowercase();
    let (_, rest) = detail.split_once("retry after ")?;
    let date = rest.get(..10)?;
    let time = rest.get(11..19)?;
    let date: Timestamp = format!("{date}T{time}Z").parse().ok()?;
    Some(until(date, now))
}

fn until(date: Timestamp, now: Timestamp) -> Duration {
    let wait = Duration::try_from(date.duration_since(now)).unwrap_or_default();
    wait.min(LONGEST_WAIT)
}

/// No authority means more.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Identifiers whose problems are told: each is held against all before it.
const SUBS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:00:00Z".parse().unwrap()
    }

    fn fault(step: Step, status: u16, kind: &str) -> Fault {
        let body = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"x"}}"#);
        refused(step, status, &body, None, now()).kind
    }

    #[test]
    fn counts_as_what_it_is() {
        use Fault::{AccountRefused, AccountUnknown, RateLimited, Refused, Unavailable};
        for (step, status, kind, expected) in [
            (Step::Register, 403, "unauthorized", AccountRefused),
            (Step::Register, 403, "externalAccountRequired", AccountRefused),
            (Step::Register, 400, "malformed", AccountRefused),
            (Step::Register, 500, "serverInternal", Unavailable),
            (Step::Order, 403, "unauthorized", AccountRefused),
            (Step::Order, 400, "accountDoesNotExist", AccountUnknown),
            (Step::Order, 429, "rateLimited", RateLimited),
            (Step::Order, 400, "rejectedIdentifier", Refused),
            (Step::Order, 400, "badNonce", Unavailable),
            (Step::Order, 503, "rateLimited", RateLimited),
            (Step::Validate, 0, "unauthorized", Refused),
            (Step::Validate, 0, "connection", Refused),
            (Step::Validate, 0, "serverInternal", Refused),
            (Step::Finalize, 403, "unauthorized", Refused),
            (Step::Finalize, 400, "badCSR", Refused),
        ] {
            assert_eq!(fault(step, status, kind), expected, "{step:?} {status} {kind}");
        }
        for (status, expected) in
            [(200, Unavailable), (404, Unavailable), (503, Unavailable), (429, RateLimited)]
        {
            let body = "<html>\u{1b}</html>";
            let error = refused(Step::Order, status, body, None, now());
            assert_eq!(error.kind, expected, "{status}");
            assert!(!error.detail.contains("html"), "{error}");
        }
    }

    #[test]
    fn reads_when_to_come_back() {
        let seconds = |text| retry_after(text, now()).map(|wait| wait.as_secs());
        assert_eq!(seconds(" 3600 "), Some(3600));
        assert_eq!(seconds("Fri, 02 Jan 2026 03:00:30 GMT"), Some(30));
        assert_eq!(seconds("Fri, 02 Jan 2026 02:00:00 GMT"), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(30 * 24 * 3600));
        for bad in ["", "soon", "-5", "1.5", "Fri, 99 Jan 2026 03:00:30 GMT"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":
            "too many certificates (5), retry after 2026-01-02 03:04:05 UTC: see https://x"}"#;
        let error = refused(Step::Order, 429, body, None, now());
        assert_eq!(error.retry_after, Some(Duration::from_secs(245)));
        let header = Some(Duration::from_secs(7));
        assert_eq!(refused(Step::Order, 429, body, header, now()).retry_after, header);
        for bad in ["retry after", "retry after é", "retry after tomorrow, please, not today"] {
            assert_eq!(wait_in_text(bad, now()), None, "{bad}");
        }
    }

    #[test]
    fn an_unknown_issuer_names_the_field_that_mends_it() {
        let why = "invalid peer certificate: UnknownIssuer".to_owned();
        let tls = FetchError::Tls { server: "ca.example:443".into(), why };
        assert!(unreached(Step::Directory, &tls).detail.contains("`ca_root`"));
        let other = FetchError::Tls { server: "ca.example:443".into(), why: "expired".into() };
        assert!(!unreached(Step::Directory, &other).detail.contains("`ca_root`"));
    }

    #[test]
    fn thousands_of_subproblems_are_not_all_held_against_each_other() {
        let subs: Vec<_> = (100..20_000).map(|i| format!(r#"{{"detail":"{i}"}}"#)).collect();
        let body = format!(
            r#"{{"type":"urn:ietf:params:acme:error:dns","detail":"x","subproblems":[{}]}}"#,
            subs.join(",")
        );
        let text = refused(Step::Validate, 0, &body, None, now()).detail;
        assert!(text.contains("; 115") && !text.contains("; 116"), "{text}");
    }

    #[test]
    fn says_what_the_authority_said_escaped_and_cut() {
        let long = "\\u001b[31m".repeat(300);
        let body = format!(
            r#"{{"type":"urn:ietf:params:acme:error:dns","detail":"{long}",
                "subproblems":[{{"detail":"no A record"}}]}}"#
        );
        let text = refused(Step::Validate, 0, &body, None, now()).detail;
        assert!(text.starts_with("validation failed: \\u{1b}[31m"), "{text}");
        assert!(text.len() < 300 && text.ends_with("(dns)"), "{text}");
    }
}
