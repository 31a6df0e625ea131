//! The files of a folder, and nothing outside of it.
//!
//! tower-http does ranges, conditions, precompressed variants and types; [`beneath`] opens files for it so
//! that no name, link or escape leads out of the folder; `disk` calls the disk so that one that hangs stops
//! requests for its files alone.
//!
//! Always true: names that begin with a dot are not served, `.well-known` excepted (RFC 8615).

mod beneath;
mod body;
mod compress;
mod disk;
mod listing;
mod opened;

use std::{path::Path, time::SystemTime};

use axum::body::Body;
use endpoint_core::http::Requester;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower::ServiceExt;
use tower_http::services::ServeDir;

pub(super) use self::compress::Compressor;
use self::{
    beneath::{Asked, Beneath},
    disk::Disk,
    opened::Note,
};
use super::{Request, Response, page::Refusal};
use crate::error::{CliError, ExitKind, Result};

/// A folder, ready to serve.
#[derive(Clone, Debug)]
pub(super) struct Files {
    beneath: Beneath,
    compressor: Compressor,
    listing: bool,
}

impl Files {
    /// Opens the folder, one of `folders`.
    ///
    /// # Errors
    /// It is none, or cannot be read. Exit code 2.
    pub(super) fn open(
        folder: &Path,
        folders: usize,
        listing: bool,
        compressor: Compressor,
    ) -> Result<Self> {
        let beneath = Beneath::open(folder, Disk::of(folders)).map_err(|error| {
            let mut fault = CliError::io("serve the folder", folder, &error);
            fault.exit = ExitKind::Usage;
            fault.code = "root";
            fault
        })?;
        Ok(Self { beneath, compressor, listing })
    }

    /// Answers with a file. `path` is the request's path, decoded and in its one form.
    pub(super) async fn answer(&self, mut request: Request, path: &str) -> Response {
        let hidden = |name: &str| name.starts_with('.') && name != ".well-known";
        if path.split('/').any(hidden) {
            return Refusal::status(StatusCode::NOT_FOUND).into();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Refusal::reads_only();
        }
        // RFC 9110 §13.1.3: `if-none-match` takes the place of `if-modified-since`.
        let known = request.headers_mut().remove(header::IF_NONE_MATCH);
        if known.is_some() {
            request.headers_mut().remove(header::IF_MODIFIED_SINCE);
        }
        let head = *request.method() == Method::HEAD;
        // RFC 9110 §13.1.5: our tags are weak, so none of them lets a range be added to what a client has.
        let unchanged = request
            .headers_mut()
            .remove(header::IF_RANGE)
            .map(|value| value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok()));
        if unchanged == Some(None) {
            request.headers_mut().remove(header::RANGE);
        }
        let whole = unchanged.flatten().map(|date| {
            let mut whole = Request::new(Body::empty());
            *whole.method_mut() = request.method().clone();
            *whole.uri_mut() = request.uri().clone();
            *whole.headers_mut() = request.headers().clone();
            whole.headers_mut().remove(header::RANGE);
            (date, whole)
        });
        let requester = request.extensions().get::<Requester>().cloned();
        let asked = request.headers().clone();
        let served = async |request| self.find(request, requester.clone(), &asked).await;
        let mut response = served(request).await;
        if let Some((date, whole)) = whole
            && response.status() != StatusCode::OK
            && changed(response.headers()) != Some(date)
        {
            response = served(whole).await;
        }
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            StatusCode::NOT_FOUND if self.listing && path.ends_with('/') => {
                return listing::page(&self.beneath, path, head).await;
            }
            StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {
                // A name that the file system cannot take is no name of a file.
                return Refusal::status(StatusCode::NOT_FOUND).into();
            }
            _ => return response,
        }
        response
            .headers_mut()
            .entry(header::X_CONTENT_TYPE_OPTIONS)
            .or_insert(HeaderValue::from_static("nosniff"));
        if let Some(tag) = tag(response.headers()) {
            let matches = known.is_some_and(|known| is_among(&tag, &known));
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            if matches && response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::empty();
                for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING]
                {
                    response.headers_mut().remove(name);
                }
            }
        }
        response
    }

    /// The answer that tower-http has for a request, with the file as its body.
    async fn find(
        &self,
        request: Request,
        requester: Option<Requester>,
        asked: &HeaderMap,
    ) -> Response {
        let note = Note::default();
        let seen = Asked { beneath: self.beneath.clone(), note: note.clone() };
        let service = ServeDir::with_backend("", seen)
            .append_index_html_on_directories(true)
            .precompressed_br()
            .precompressed_gzip()
            .precompressed_zstd();
        let answer = match service.oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        if note.is_late() {
            return no_answer();
        }
        if !matches!(answer.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return answer.map(Body::new);
        }
        let length = answer.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let file = note.take().zip(length).map(|((file, position), length)| {
            body::FileBody::new(file, position, length, requester)
        });
        self.compressor.apply(asked, answer.map(drop), file).await
    }
}

/// For a file whose disk does not answer.
fn no_answer() -> Response {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the file cannot be read at the moment").into()
}

/// The names, beside its own, of what may be read for a path: an index, compressed forms, and the file of
/// which this is one. Each may have a rule of its own.
pub(super) fn names(path: &str) -> Vec<String> {
    let index = path.ends_with('/').then(|| format!("{path}index.html"));
    let read = index.as_deref().unwrap_or(path);
    let forms = COMPRESSED.iter().map(|end| format!("{read}{end}"));
    let plain = COMPRESSED.iter().find_map(|end| path.strip_suffix(end)).map(str::to_owned);
    forms.chain(plain).chain(index.clone()).collect()
}

/// What the names of precompressed files end in.
const COMPRESSED: [&str; 3] = [".br", ".gz", ".zst"];

/// A weak tag: the time of the last change and the encoding (RFC 9110 §8.8.3).
fn tag(headers: &HeaderMap) -> Option<String> {
    let seconds = changed(headers)?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    let whole = match headers.get(header::CONTENT_RANGE) {
        Some(range) => range.to_str().ok()?.rsplit('/').next()?.to_owned(),
        None => headers
            .get(header::CONTENT_LENGTH)
            .and_then(|n| n.to_str().ok())
            .unwrap_or("-")
            .to_owned(),
    };
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    Some(format!("W/\"{seconds:x}-{whole}-{}\"", encoding.unwrap_or("id")))
}

/// When the file was changed last.
fn changed(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(header::LAST_MODIFIED)?.to_str().ok()?).ok()
}

/// Whether `if-none-match` names the tag; compared weakly (RFC 9110 §13.1.2).
fn is_among(tag: &str, known: &HeaderValue) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(known) = known.to_str() else { return false };
    known.trim() == "*" || known.split(',').any(|other| bare(other) == bare(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_tags_weakly() {
        let known = |text: &str| HeaderValue::from_str(text).unwrap();
        assert!(is_among("W/\"a\"", &known("\"b\", W/\"a\"")));
        assert!(is_among("W/\"a\"", &known("\"a\"")));
        assert!(is_among("W/\"a\"", &known("*")));
        assert!(!is_among("W/\"a\"", &known("\"b\"")));
    }
}
