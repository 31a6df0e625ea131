//! What is in a folder without an index?

use std::{io::ErrorKind, path::PathBuf};

use axum::body::Body;
use http::{HeaderValue, StatusCode, header};

use super::{
    super::{Response, page},
    beneath::Beneath,
    no_answer,
};

/// Names in one list.
const NAMES: usize = 10_000;

/// The list of a folder; `path` is decoded and ends with a slash.
pub(super) async fn page(beneath: &Beneath, path: &str, head: bool) -> Response {
    let (folder, place) = (beneath.clone(), PathBuf::from(path.trim_start_matches('/')));
    let names = match beneath.disk().ask(move || folder.names(&place, NAMES)).await {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::TimedOut => return no_answer(),
        Err(_) => return page::Refusal::status(StatusCode::NOT_FOUND).into(),
    };
    let up = if path == "/" { "" } else { "<tr><td><a href=\"../\">../</a>" };
    let mut rows = format!("<table>{up}");
    for name in &names {
        let text = page::escaped(name);
        rows.push_str(&format!("<tr><td><a href=\"./{}\">{text}</a>", link(name)));
    }
    rows.push_str("</table>");
    let mut response = Response::new(Body::empty());
    let html = page::html(path, &rows, &format!("{} entries", names.len()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, html.len().into());
    if !head {
        *response.body_mut() = Body::from(html);
    }
    response
}

/// A name as a relative reference: all but unreserved characters escaped (RFC 3986 §2.3).
fn link(name: &str) -> String {
    let mut link = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                link.push(char::from(byte));
            }
            _ => link.push_str(&format!("%{byte:02X}")),
        }
    }
    link
}
