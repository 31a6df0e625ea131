//! Where do the answers to challenges stand while an authority looks for them?
//!
//! In memory, where this process's handshakes find them, and in the store, so that any process that shares it
//! can answer: behind one name may stand several.
//!
//! Always true: what is looked for in the store is read only if it is pending there; a list that was read
//! before the last change of the store is not believed, because an authority looks at once and only a few
//! times. So strangers who ask for challenges cost one look at the store's version each, one at a time.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::debug;
use zeroize::Zeroizing;

use super::{
    challenge,
    issuer::{Answer, Answers, Asked, Fault, IssueError},
};
use crate::{
    certs::challenges::{Challenges, Elsewhere, Seeking},
    clock::Clock,
    config::ChallengeKind,
    store::{Change, Kind, Store, StoreError},
};

/// How long an answer stands if nobody takes it back. Authorities give up sooner.
const STANDS: Duration = Duration::from_secs(3600);

/// Publishes answers, and finds those of others.
pub(super) struct Board {
    store: Arc<dyn Store>,
    memory: Arc<Challenges>,
    provider: Arc<CryptoProvider>,
    clock: Clock,
    /// What was pending at that version of the store.
    pending: Mutex<Option<(u64, HashSet<String>)>>,
}

/// What stands in the store.
#[derive(Deserialize, Serialize)]
struct Text {
    name: String,
    key_authorization: String,
    /// Seconds since 1970.
    until: i64,
}

impl Board {
    pub(super) fn new(
        store: Arc<dyn Store>,
        memory: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
        clock: Clock,
    ) -> Self {
        Self { store, memory, provider, clock, pending: Mutex::new(None) }
    }

    /// The answer that stands in the store.
    async fn find(&self, id: &str) -> Option<Text> {
        if !self.is_pending(id).await {
            return None;
        }
        let record = self.store.read(Kind::Challenge, id).await.ok()??;
        let text: Text = serde_json::from_slice(&record.body).ok()?;
        (self.clock.now().as_second() <= text.until).then_some(text)
    }

    async fn is_pending(&self, id: &str) -> bool {
        // One asks, the others wait for what it learns.
        let mut pending = self.pending.lock().await;
        let Ok(version) = self.store.version().await else { return false };
        if pending.as_ref().is_none_or(|(of, _)| *of != version) {
            let Ok(list) = self.store.list(Kind::Challenge).await else { return false };
            // A change in between makes the next look list again.
            *pending = Some((version, list.into_iter().map(|(id, _)| id).collect()));
        }
        pending.as_ref().is_some_and(|(_, ids)| ids.contains(id))
    }

    /// Takes away what nobody took back in time.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub(super) async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut over = Vec::new();
        for (id, _) in self.store.list(Kind::Challenge).await? {
            let stands = match self.store.read(Kind::Challenge, &id).await {
                Ok(None) => continue,
                Ok(Some(record)) => serde_json::from_slice::<Text>(&record.body)
                    .is_ok_and(|text| text.until >= now.as_second()),
                // Of no use to anybody, and it must not keep the others from being swept away.
                Err(StoreError::Damaged { .. }) => false,
                Err(error) => return Err(error),
            };
            if !stands {
                over.push(Change::Delete(Kind::Challenge, id));
            }
        }
        if over.is_empty() { Ok(()) } else { self.store.write(over, now).await }
    }

    fn remember(&self, answer: &Answer, present: bool) -> Result<(), String> {
        match answer.kind {
            ChallengeKind::TlsAlpn01 => {
                let made = if present {
                    let text = &answer.key_authorization;
                    Some(challenge::certificate(&answer.name, text, &self.provider)?)
                } else {
                    None
                };
                self.memory.set_tls_alpn(&challenge::server_name(&answer.name), made);
            }
            ChallengeKind::Http01 => {
                let text = present.then(|| answer.key_authorization.clone());
                self.memory.set_http(&answer.token, text);
            }
        }
        Ok(())
    }

    async fn write(&self, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
        let text = Text {
            name: answer.name.clone(),
            key_authorization: answer.key_authorization.clone(),
            until: now.as_second().saturating_add(STANDS.as_secs().cast_signed()),
        };
        let body = serde_json::to_vec(&text).map_err(|error| StoreError::Unusable {
            place: self.store.place(),
            why: error.to_string(),
        })?;
        let change = Change::Replace(Kind::Challenge, id(answer), None, Zeroizing::new(body));
        self.store.write(vec![change], now).await
    }
}

/// The record's id: the proof, and what an authority asks for.
fn id(answer: &Answer) -> String {
    match answer.kind {
        ChallengeKind::TlsAlpn01 => tls_alpn_id(&challenge::server_name(&answer.name)),
        ChallengeKind::Http01 => http_id(&answer.token),
    }
}

fn tls_alpn_id(server_name: &str) -> String {
    format!("tls-alpn-01 {server_name}")
}

fn http_id(token: &str) -> String {
    format!("http-01 {token}")
}

impl Answers for Board {
    fn publish(&self, answer: Answer) -> Asked<'_, ()> {
        Box::pin(async move {
            let failed = |detail: String| IssueError {
                kind: Fault::Store,
                detail: format!("the answer to a challenge cannot be published: {detail}"),
                retry_after: None,
            };
            self.remember(&answer, true).map_err(failed)?;
            match self.write(&answer, self.clock.now()).await {
                // A full disk must not end the order: this process answers from memory.
                Err(error) if error.is_of_the_store() => {
                    debug!(%error, "the answer to a challenge stands in memory only");
                    Ok(())
                }
                written => written.map_err(|error| {
                    let _ = self.remember(&answer, false);
                    failed(error.to_string())
                }),
            }
        })
    }

    fn withdraw(&self, answer: Answer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let _ = self.remember(&answer, false);
            let change = Change::Delete(Kind::Challenge, id(&answer));
            let _ = self.store.write(vec![change], self.clock.now()).await;
        })
    }
}

impl Elsewhere for Board {
    fn tls_alpn<'a>(&'a self, name: &'a str) -> Seeking<'a, Arc<CertifiedKey>> {
        Box::pin(async move {
            let text = self.find(&tls_alpn_id(name)).await?;
            challenge::certificate(&text.name, &text.key_authorization, &self.provider).ok()
        })
    }

    fn http<'a>(&'a self, token: &'a str) -> Seeking<'a, String> {
        Box::pin(async move { Some(self.find(&http_id(token)).await?.key_authorization) })
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({})", self.store.place())
    }
}
