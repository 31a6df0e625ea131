//! Where has a site gone?

use http::{HeaderValue, StatusCode, header};

use super::{Request, Response, page::Refusal};

/// Sends every request to the same path elsewhere.
#[derive(Debug)]
pub(crate) struct Redirect(String);

impl Redirect {
    /// To an address without a slash at its end.
    pub(crate) fn to(address: String) -> Self {
        Self(address)
    }

    pub(crate) fn answer(&self, request: &Request) -> Response {
        permanent(&self.0, request, "this has moved")
    }
}

/// Sends a request to its path at `base`, for good; `why` is for who does not follow.
pub(crate) fn permanent(base: &str, request: &Request, why: &str) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // The path begins with one slash, so it cannot change the host.
    let path = if path.starts_with('/') { path } else { "/" };
    match HeaderValue::from_str(&format!("{base}{path}")) {
        Ok(location) => {
            let mut response = Response::from(Refusal::new(StatusCode::PERMANENT_REDIRECT, why));
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => Refusal::status(StatusCode::BAD_REQUEST).into(),
    }
}
