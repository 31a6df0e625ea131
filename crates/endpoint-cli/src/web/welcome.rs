//! The page of an endpoint that has no site yet.

use axum::body::Body;
use http::{HeaderValue, StatusCode, header};

use super::{Response, page};

/// Says what runs here and what to do next.
pub(super) fn page(path: &str) -> Response {
    if path != "/" {
        return page::Refusal::status(StatusCode::NOT_FOUND).into();
    }
    let body = "<p>This page came over TLS from an <strong>endpoint</strong>: one port for browsers and for \
                peers known by their key.</p><table>\
                <tr><td>a folder<td><code>endpoint serve --root DIR</code>\
                <tr><td>a program<td><code>endpoint serve --proxy http://127.0.0.1:3000</code>\
                <tr><td>a peer<td><code>endpoint trust add KEY</code>\
                <tr><td>more<td><code>endpoint serve --help</code></table>";
    let text = page::html("It works", body, "There is no site here yet.");
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    #[test]
    fn holds_its_table_in_no_paragraph() {
        let body = super::page("/").into_body().collect().now_or_never().unwrap().unwrap();
        let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        assert_eq!(text.matches("<p>").count(), text.matches("</p>").count(), "{text}");
        assert!(text.contains("</p><table>") && text.contains("</table><footer>"), "{text}");
    }
}
