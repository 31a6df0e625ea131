//! How does an authority come to know our key?
//!
//! newAccount (RFC 8555 §7.3), with contacts and an external account binding (§7.3.4), for a key of our
//! own: neither client can send all three at once. Asked again with the same key, an authority gives the
//! same account, so a registration whose answer was lost makes no second one.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{EcdsaKeyPair, KeyPair as _},
};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use http::{HeaderMap, Request, Response, header};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    ari::USER_AGENT,
    issuer::{AccountKey, Fault, IssueError},
    limits::Nonces,
    problem::{Problem, Step, refused, retry_after, unavailable, unreached},
    rustls_acme::secure,
};
use crate::{
    clock::Clock,
    transport::fetch::{Fetch, cut},
};

/// An external account binding, its key read.
pub(super) struct Binding {
    pub(super) kid: String,
    pub(super) hmac: Zeroizing<Vec<u8>>,
}

/// An authority, and what we tell it about us.
pub(super) struct Registration<'a> {
    pub(super) fetch: &'a Fetch,
    pub(super) directory: &'a str,
    pub(super) contact: &'a [String],
    pub(super) binding: Option<&'a Binding>,
    pub(super) clock: &'a Clock,
}

impl Registration<'_> {
    /// Registers the key, or finds its account. Gives the account's URL.
    pub(super) async fn of(&self, key: &AccountKey) -> Result<String, IssueError> {
        let failed = |why: &str| unavailable(Step::Register, why);
        let pair = key.pair().map_err(|why| failed(&why.to_string()))?;
        let directory = self.directory().await?;
        let jwk = jwk(&pair).ok_or_else(|| failed("the key's public half has another form"))?;
        let mut payload = json!({ "termsOfServiceAgreed": true, "contact": self.contact });
        if let (Some(binding), Some(fields)) = (self.binding, payload.as_object_mut()) {
            let bound = bind(binding, &jwk, &directory.new_account);
            fields.insert("externalAccountBinding".to_owned(), bound);
        }
        let mut nonces = Nonces::default();
        let mut nonce = self.nonce(&directory.new_nonce).await?;
        loop {
            let url = directory.new_account.as_str();
            let header = json!({ "alg": "ES256", "jwk": jwk, "nonce": nonce, "url": url });
            let body = signed(&header, &payload, |text| {
                let signature = pair.sign(&SystemRandom::new(), text).ok()?;
                Some(signature.as_ref().to_vec())
            });
            let body = body.ok_or_else(|| failed("the key does not sign"))?;
            let request = Request::post(url)
                .header(header::CONTENT_TYPE, "application/jose+json")
                .body(Bytes::from(body.to_string()));
            let answer = self.send(Step::Register, request).await?;
            if answer.status().is_success() {
                return field(answer.headers(), header::LOCATION.as_str())
                    .ok_or_else(|| failed("the answer names no account URL"));
            }
            let text = String::from_utf8_lossy(answer.body());
            let stale = Problem::read(&text).is_some_and(|why| why.kind() == Some("badNonce"));
            if !(stale && nonces.again()) {
                return Err(self.naming_the_binding(self.refused(Step::Register, &answer)));
            }
            nonce = match field(answer.headers(), NONCE) {
                Some(nonce) => nonce,
                None => self.nonce(&directory.new_nonce).await?,
            };
        }
    }

    /// An authority seldom says which binding it did not take.
    fn naming_the_binding(&self, mut error: IssueError) -> IssueError {
        if let (Fault::AccountRefused, Some(binding)) = (error.kind, self.binding) {
            error.detail = format!(
                "{}; the external account binding is kid `{}`: is the key in its `hmac_file` the one that \
                 the authority gave with it?",
                error.detail,
                cut(&binding.kid)
            );
        }
        error
    }

    async fn directory(&self) -> Result<Directory, IssueError> {
        secure(Step::Directory, self.directory)?;
        let request = Request::get(self.directory).body(Bytes::new());
        let answer = self.send(Step::Directory, request).await?;
        if !answer.status().is_success() {
            return Err(self.refused(Step::Directory, &answer));
        }
        let found: Directory = serde_json::from_slice(answer.body()).map_err(|why| {
            unavailable(Step::Directory, &format!("the answer is no ACME: {why}"))
        })?;
        secure(Step::Directory, &found.new_nonce)?;
        secure(Step::Directory, &found.new_account)?;
        if found.meta.external_account_required && self.binding.is_none() {
            let detail = format!(
                "{} failed: the authority asks for an external account binding; set `eab` with the \
                 key that it gave you",
                Step::Register
            );
            return Err(IssueError { kind: Fault::AccountRefused, detail, retry_after: None });
        }
        Ok(found)
    }

    async fn nonce(&self, url: &str) -> Result<String, IssueError> {
        let answer = self.send(Step::Register, Request::head(url).body(Bytes::new())).await?;
        if !answer.status().is_success() {
            return Err(self.refused(Step::Register, &answer));
        }
        field(answer.headers(), NONCE)
            .ok_or_else(|| unavailable(Step::Register, "the authority gave no nonce"))
    }

    async fn send(
        &self,
        step: Step,
        request: http::Result<Request<Bytes>>,
    ) -> Result<Response<Bytes>, IssueError> {
        let mut request = request.map_err(|why| unavailable(step, &why.to_string()))?;
        let agent = header::HeaderValue::from_static(USER_AGENT);
        request.headers_mut().insert(header::USER_AGENT, agent);
        self.fetch.send(request).await.map_err(|why| unreached(step, &why))
    }

    fn refused(&self, step: Step, answer: &Response<Bytes>) -> IssueError {
        let now = self.clock.now();
        let wait = field(answer.headers(), header::RETRY_AFTER.as_str());
        let wait = wait.and_then(|value| retry_after(&value, now));
        let body = String::from_utf8_lossy(answer.body());
        refused(step, answer.status().as_u16(), &body, wait, now)
    }
}

/// The key, signed with the key that the authority's operator gave (RFC 8555 §7.3.4).
fn bind(binding: &Binding, jwk: &Value, url: &str) -> Value {
    let header = json!({ "alg": "HS256", "kid": binding.kid, "url": url });
    let key = hmac::Key::new(hmac::HMAC_SHA256, &binding.hmac);
    signed(&header, jwk, |text| Some(hmac::sign(&key, text).as_ref().to_vec())).unwrap_or_default()
}

/// A flattened JWS (RFC 7515 §7.2.2).
fn signed(
    header: &Value,
    payload: &Value,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<Value> {
    let header = BASE64URL.encode(header.to_string().as_bytes());
    let payload = BASE64URL.encode(payload.to_string().as_bytes());
    let signature = sign(format!("{header}.{payload}").as_bytes())?;
    let signature = BASE64URL.encode(&signature);
    Some(json!({ "protected": header, "payload": payload, "signature": signature }))
}

/// The public half (RFC 7518 §6.2.1), from the uncompressed point.
fn jwk(pair: &EcdsaKeyPair) -> Option<Value> {
    let point = pair.public_key().as_ref();
    let (x, y) = (point.get(1..33)?, point.get(33..65)?);
    Some(json!({
        "crv": "P-256", "kty": "EC", "x": BASE64URL.encode(x), "y": BASE64URL.encode(y),
    }))
}

fn field(fields: &HeaderMap, name: &str) -> Option<String> {
    fields.get(name)?.to_str().ok().map(str::to_owned)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    external_account_required: bool,
}

const NONCE: &str = "replay-nonce";
