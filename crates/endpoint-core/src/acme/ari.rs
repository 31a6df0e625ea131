//! When does an authority want a certificate renewed? (RFC 9773)
//!
//! Two unsigned requests, so both engines share them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use super::{
    issuer::{IssueError, Window},
    problem::{Step, refused, retry_after, unavailable, unreached},
    rustls_acme::secure,
};
use crate::{clock::Clock, transport::fetch::Fetch};

/// The window for `leaf`; `None`: the authority has no opinion about it.
pub(super) async fn window(
    fetch: &Fetch,
    directory: &str,
    leaf: &CertificateDer<'static>,
    clock: &Clock,
) -> Result<Option<Window>, IssueError> {
    // A certificate without the key identifier of its authority cannot be asked about.
    let Some(id) = identifier(leaf) else { return Ok(None) };
    secure(Step::Directory, directory)?;
    let (_, found) = get(fetch, Step::Directory, directory, clock).await?;
    let found: Directory = read(Step::Directory, &found)?;
    let Some(url) = found.renewal_info else { return Ok(None) };
    secure(Step::Window, &url)?;
    let url = format!("{}/{id}", url.trim_end_matches('/'));
    let (ask_again, answer) = get(fetch, Step::Window, &url, clock).await?;
    let (start, end) = suggested(&answer)?;
    let ask_again = ask_again.unwrap_or(USUAL_PAUSE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    Ok(Some(Window { start, end, ask_again }))
}

/// From when to when the authority wants it renewed (RFC 9773 §4.2).
pub(crate) fn suggested(answer: &[u8]) -> Result<(Timestamp, Timestamp), IssueError> {
    let answer: RenewalInfo = read(Step::Window, answer)?;
    let time = |text: String| {
        text.parse::<Timestamp>()
            .map_err(|_| unavailable(Step::Window, &format!("`{text}` is no time")))
    };
    let Suggested { start, end } = answer.suggested_window;
    let (start, end) = (time(start)?, time(end)?);
    if end <= start {
        return Err(unavailable(Step::Window, &format!("the window {start} to {end} is empty")));
    }
    Ok((start, end))
}

/// How the authority knows the certificate (RFC 9773 §4.1).
pub(super) fn identifier(leaf: &CertificateDer<'static>) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(leaf).ok().map(CertificateIdentifier::into_owned)
}

async fn get(
    fetch: &Fetch,
    step: Step,
    url: &str,
    clock: &Clock,
) -> Result<(Option<Duration>, Bytes), IssueError> {
    let request = Request::get(url).header(header::USER_AGENT, USER_AGENT).body(Bytes::new());
    let request = request.map_err(|why| unavailable(step, &why.to_string()))?;
    let answer = fetch.send(request).await.map_err(|why| unreached(step, &why))?;
    let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|value| retry_after(value, clock.now()));
    if !answer.status().is_success() {
        let body = String::from_utf8_lossy(answer.body());
        return Err(refused(step, answer.status().as_u16(), &body, wait, clock.now()));
    }
    Ok((wait, answer.into_body()))
}

fn read<'a, T: Deserialize<'a>>(step: Step, body: &'a [u8]) -> Result<T, IssueError> {
    let no_acme =
        |why: serde_json::Error| unavailable(step, &format!("the answer is no ACME: {why}"));
    serde_json::from_slice(body).map_err(no_acme)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    renewal_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: Suggested,
}

#[derive(Deserialize)]
struct Suggested {
    start: String,
    end: String,
}

/// RFC 8555 §6.1 wants one.
pub(super) const USER_AGENT: &str = concat!("endpoint/", env!("CARGO_PKG_VERSION"));
/// Far above any answer of an authority.
pub(super) const BODY_BYTES: usize = 256 * 1024;

/// If the authority does not say when to ask again.
const USUAL_PAUSE: Duration = Duration::from_secs(6 * 3600);
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
