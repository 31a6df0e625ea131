//! How does a refusal look? A sentence as text, or a small page where a browser asks.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use axum::body::Body;
use http::{HeaderValue, StatusCode, header};

use super::{Request, Response};

/// An answer that says no.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    status: StatusCode,
    sentence: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }

    /// With no more to say than the status does.
    pub(crate) fn status(status: StatusCode) -> Self {
        let sentence = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
        Self { status, sentence }
    }

    /// For a method that is none of reading, where only reading is allowed (RFC 9110 §15.5.6).
    pub(crate) fn reads_only() -> Response {
        let mut response = Response::from(Self::status(StatusCode::METHOD_NOT_ALLOWED));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> StatusCode {
        self.status
    }
}

/// Marks an answer that [`dress`] turns into text or a page.
#[derive(Clone, Debug)]
struct Bare(String);

impl From<Refusal> for Response {
    fn from(Refusal { status, sentence }: Refusal) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response.extensions_mut().insert(Bare(sentence));
        response
    }
}

/// Whether the request's sender reads HTML.
pub(crate) fn wanted(request: &Request) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Gives a refusal its body, which names the request if it has an id. Other answers stay as they are.
pub(crate) fn dress(response: &mut Response, page: bool, id: Option<&HeaderValue>) {
    let Some(Bare(sentence)) = response.extensions_mut().remove::<Bare>() else { return };
    let status = response.status();
    let id = id.and_then(|id| id.to_str().ok()).map(|id| format!("request {id}"));
    let (kind, body) = if page {
        let title =
            format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
        let sentence = format!("<p>{}.</p>", escaped(&sentence));
        ("text/html; charset=utf-8", html(&title, &sentence, id.as_deref().unwrap_or_default()))
    } else {
        let id = id.map_or_else(String::new, |id| format!(" ({id})"));
        ("text/plain; charset=utf-8", format!("{sentence}{id}\n"))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    *response.body_mut() = Body::from(body);
}

/// A small page in both colour schemes. `title` and `footer` are text, `body` is HTML: whole elements.
pub(super) fn html(title: &str, body: &str, footer: &str) -> String {
    let title = escaped(title);
    let footer = match footer {
        "" => String::new(),
        footer => format!("<footer>{}</footer>", escaped(footer)),
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
         <style>body{{font:1rem/1.6 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1.5rem}}\
         h1{{font-size:1.6rem;font-weight:600}}code{{font-size:.95em}}footer{{opacity:.6;font-size:.85rem}}\
         td{{padding:.15rem 1.5rem .15rem 0}}</style>\
         <h1>{title}</h1>{body}{footer}</html>\n"
    )
}

/// Text as HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// Names for requests: told apart within a start and, all but surely, between two.
#[derive(Debug)]
pub(super) struct Ids {
    start: u64,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { start: RandomState::new().build_hasher().finish(), next: AtomicU64::new(1) }
    }

    pub(super) fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{number:x}", self.start & 0xffff_ffff);
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dressed(page: bool, id: Option<&'static str>) -> String {
        let mut response = Response::from(Refusal::status(StatusCode::NOT_FOUND));
        dress(&mut response, page, id.map(HeaderValue::from_static).as_ref());
        let body = http_body_util::BodyExt::collect(response.into_body());
        let bytes = futures_util::FutureExt::now_or_never(body).unwrap().unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn names_the_request_where_it_has_a_name() {
        assert_eq!(dressed(false, Some("1-2")), "not found (request 1-2)\n");
        assert_eq!(dressed(false, None), "not found\n");
        let page = dressed(true, Some("1-2"));
        assert!(page.contains("<p>not found.</p><footer>request 1-2</footer></html>"), "{page}");
        assert!(dressed(true, None).ends_with("<p>not found.</p></html>\n"));
    }
}
