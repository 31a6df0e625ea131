//! Which challenges of certificate authorities are pending, and what is their answer?
//!
//! Written by `acme` while an order runs, read by handshakes (RFC 8737) and by the plain listener
//! (RFC 8555 §8.3). An order of another process has its answers in the store, where [`Elsewhere`] looks.
//!
//! Always true: an answer stands here only while its challenge is pending; QUIC handshakes read memory
//! only; at most [`ASKING`] callers wait for another process's answers at once.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;

/// Callers that may wait for the answer of another process at once.
const ASKING: usize = 64;
/// Characters of the longest token that is looked for.
const MAX_TOKEN_CHARS: usize = 256;

/// An answer that is being looked for.
pub(crate) type Seeking<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// Where the answers of other processes stand.
#[allow(dead_code, reason = "without TCP only HTTP-01 is asked for")]
pub(crate) trait Elsewhere: fmt::Debug + Send + Sync {
    /// The certificate that answers `acme-tls/1` for that server name.
    fn tls_alpn<'a>(&'a self, name: &'a str) -> Seeking<'a, Arc<CertifiedKey>>;
    /// The key authorization of that token.
    fn http<'a>(&'a self, token: &'a str) -> Seeking<'a, String>;
}

/// The answers to pending challenges, in memory.
#[derive(Debug)]
pub(crate) struct Challenges {
    tls_alpn: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
    http: ArcSwap<HashMap<String, String>>,
    elsewhere: OnceLock<Vec<Arc<dyn Elsewhere>>>,
    asking: Semaphore,
}

impl Default for Challenges {
    fn default() -> Self {
        Self {
            tls_alpn: ArcSwap::default(),
            http: ArcSwap::default(),
            elsewhere: OnceLock::new(),
            asking: Semaphore::new(ASKING),
        }
    }
}

#[allow(dead_code, reason = "without ACME nobody writes, without TCP nobody waits")]
impl Challenges {
    /// Looks there too, once and for all.
    pub(crate) fn look_elsewhere(&self, places: Vec<Arc<dyn Elsewhere>>) {
        let _ = self.elsewhere.set(places);
    }

    /// The certificate that answers `acme-tls/1` for that name, normalised, if one is pending.
    pub(crate) fn tls_alpn(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.tls_alpn.load().get(name).cloned()
    }

    /// The key authorization under `/.well-known/acme-challenge/` and that token, if one is pending.
    pub(crate) fn http(&self, token: &str) -> Option<String> {
        self.http.load().get(token).cloned()
    }

    /// The same as [`Self::tls_alpn`], also for the order of another process.
    pub(crate) async fn tls_alpn_anywhere(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(answer) = self.tls_alpn(name) {
            return Some(answer);
        }
        let places = self.elsewhere.get().filter(|places| !places.is_empty())?;
        let _one_of_few = self.asking.try_acquire().ok()?;
        for place in places {
            if let Some(answer) = place.tls_alpn(name).await {
                return Some(answer);
            }
        }
        None
    }

    /// The same as [`Self::http`], also for the order of another process. A text that cannot be a token
    /// (RFC 8555 §8.3: base64url) costs nothing.
    pub(crate) async fn http_anywhere(&self, token: &str) -> Option<String> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if token.is_empty() || token.len() > MAX_TOKEN_CHARS || !token.bytes().all(legal) {
            return None;
        }
        if let Some(answer) = self.http(token) {
            return Some(answer);
        }
        let places = self.elsewhere.get().filter(|places| !places.is_empty())?;
        let _one_of_few = self.asking.try_acquire().ok()?;
        for place in places {
            if let Some(answer) = place.http(token).await {
                return Some(answer);
            }
        }
        None
    }

    /// Answers `acme-tls/1` for that name from now on; `None`: no longer.
    pub(crate) fn set_tls_alpn(&self, name: &str, answer: Option<Arc<CertifiedKey>>) {
        set(&self.tls_alpn, name, answer);
    }

    /// Answers that token from now on; `None`: no longer.
    pub(crate) fn set_http(&self, token: &str, answer: Option<String>) {
        set(&self.http, token, answer);
    }
}

#[allow(dead_code, reason = "without ACME nobody writes")]
fn set<T: Clone>(table: &ArcSwap<HashMap<String, T>>, key: &str, value: Option<T>) {
    table.rcu(|table| {
        let mut table = HashMap::clone(table);
        match value.clone() {
            Some(value) => table.insert(key.to_owned(), value),
            None => table.remove(key),
        };
        table
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows one token; counts how often it was asked.
    #[derive(Debug, Default)]
    struct Other(std::sync::atomic::AtomicUsize);

    impl Elsewhere for Other {
        fn tls_alpn<'a>(&'a self, _: &'a str) -> Seeking<'a, Arc<CertifiedKey>> {
            Box::pin(async { None })
        }

        fn http<'a>(&'a self, token: &'a str) -> Seeking<'a, String> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Box::pin(async move { (token == "theirs").then(|| "theirs.x".to_owned()) })
        }
    }

    #[tokio::test]
    async fn asks_elsewhere_only_for_what_can_be_a_token_and_is_not_here() {
        let challenges = Challenges::default();
        let other = Arc::new(Other::default());
        challenges.look_elsewhere(vec![other.clone()]);
        challenges.set_http("ours", Some("ours.x".to_owned()));
        assert_eq!(challenges.http_anywhere("ours").await.as_deref(), Some("ours.x"));
        let long = "a".repeat(257);
        for wrong in ["", "../secret", "a b", "a%00", &long] {
            assert_eq!(challenges.http_anywhere(wrong).await, None, "{wrong:?}");
        }
        assert_eq!(other.0.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert_eq!(challenges.http_anywhere("theirs").await.as_deref(), Some("theirs.x"));
        challenges.set_http("ours", None);
        assert_eq!(challenges.http("ours"), None);
    }
}
