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
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        // The path begins with one slash, so it cannot change the host.
        let path = if path.starts_with('/') { path } else { "/" };
        match HeaderValue::from_str(&format!("{}{path}", self.0)) {
            Ok(location) => {
                let refusal = Refusal::new(StatusCode::PERMANENT_REDIRECT, "this has moved");
                let mut response = Response::from(refusal);
                response.headers_mut().insert(header::LOCATION, location);
                response
            }
            Err(_) => Refusal::status(StatusCode::BAD_REQUEST).into(),
        }
    }
}
