//! Which certificate has tailscaled for a name of its tailnet?
//!
//! Asks the daemon of this machine over its local socket, ahead of expiry and never inside a handshake. The
//! daemon orders, renews and keeps the certificate; here it is only fetched and checked.
//!
//! Always true: nothing is given whose key does not match, whose names do not cover ours or whose dates do
//! not hold; whatever fails, what is served stays.

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use rustix::process::geteuid;
use rustls::{crypto::CryptoProvider, server::ParsedCertificate, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;

use super::{
    ask::{Answer, Web},
    files::{Loaded, covers},
    normalized_name, pace,
    source::{Looked, Looking, Source, Standing},
    validity::Validity,
};
use crate::{apart::apart, config::Tailscale};

/// The certificate of one name, from tailscaled.
#[derive(Debug)]
pub(crate) struct TailscaleSource {
    config: Tailscale,
    /// Lower case, without a trailing dot: fit for a path.
    name: String,
    web: Web,
    provider: Arc<CryptoProvider>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The leaf that is served, and its dates.
    served: Option<(CertificateDer<'static>, Validity)>,
    failures: u32,
    standing: Standing,
}

/// What went wrong, and before when the daemon wants no further question.
struct Fault {
    why: String,
    not_before: Option<Timestamp>,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self { why, not_before: None }
    }
}

impl TailscaleSource {
    /// The source for the one name of a site.
    ///
    /// # Errors
    /// A sentence, if there is not exactly one name, it is none that tailscaled has certificates for, or the
    /// build has no HTTP client.
    pub(crate) fn new(
        config: &Tailscale,
        names: &[String],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let web = Web::plain(Arc::clone(&provider), MAX_ANSWER_BYTES);
        Self::with(config, names, provider, web?)
    }

    fn with(
        config: &Tailscale,
        names: &[String],
        provider: Arc<CryptoProvider>,
        web: Web,
    ) -> Result<Self, String> {
        let [name] = names else {
            return Err(format!(
                "a certificate of tailscaled is for one name, and the site has {} ({}); make a site for \
                 each",
                names.len(),
                names.join(", ")
            ));
        };
        let normal = normalized_name(name).map_err(|error| error.to_string())?;
        if normal.starts_with("*.") {
            return Err(format!(
                "tailscaled has no certificate for `{normal}`; give the machine's own name, which \
                 `tailscale status --json` lists under CertDomains"
            ));
        }
        let standing = Standing { issuer: Some("tailscaled".to_owned()), ..Standing::default() };
        let state = Mutex::new(State { standing, ..State::default() });
        Ok(Self { config: config.clone(), name: normal, web, provider, state })
    }

    async fn search(&self, now: Timestamp) -> Looked {
        let served = self.state().served.as_ref().map(|(_, validity)| *validity);
        let found = self.obtain(served, now).await;
        let mut state = self.state();
        let (fresh, again, fault) = match found {
            Ok(found) => {
                let leaf = found.certified.cert.first().cloned();
                let same = state.served.as_ref().map(|(leaf, _)| leaf) == leaf.as_ref();
                // Tailscaled cannot renew it: asked for ever, it would ask the authority for ever.
                state.failures = match same && now >= last_third(found.validity) {
                    true => state.failures.saturating_add(1),
                    false => 0,
                };
                let again = next_look(found.validity, state.failures, now);
                state.served = leaf.map(|leaf| (leaf, found.validity));
                ((!same).then_some(found), again, None)
            }
            Err(fault) => {
                state.failures = state.failures.saturating_add(1);
                let again = pace::spread(now, pace::after_failures(state.failures));
                let again = fault.not_before.map_or(again, |not_before| again.max(not_before));
                (None, again, Some(fault.why))
            }
        };
        state.standing.next = Some(("ask tailscaled".to_owned(), again));
        state.standing.last_error.clone_from(&fault);
        Looked { fresh, again: Some(again), fault }
    }

    async fn obtain(&self, served: Option<Validity>, now: Timestamp) -> Result<Loaded, Fault> {
        let socket = self.config.socket.clone();
        apart(move || check_socket(&socket)).await?;
        self.check_domain(now).await?;
        let least = go_duration(served.map_or(FIRST_LEAST, third));
        let target = format!("/localapi/v0/cert/{}?type=pair&min_validity={least}", self.name);
        let answer = self.ask(&target).await?;
        if answer.status() != 200 {
            return Err(self.refused(&answer, now));
        }
        Ok(read(answer.body(), &self.name, now, &self.provider)?)
    }

    /// Whether tailscaled has certificates for our name at all.
    async fn check_domain(&self, now: Timestamp) -> Result<(), Fault> {
        let answer = self.ask("/localapi/v0/status?peers=false").await?;
        if answer.status() != 200 {
            return Err(self.refused(&answer, now));
        }
        let status: Status = serde_json::from_slice(answer.body()).map_err(|_| {
            format!(
                "{} does not answer as tailscaled does; name its socket",
                self.config.socket.display()
            )
        })?;
        if status.backend_state != "Running" {
            let state = cut(&status.backend_state);
            return Err(format!("tailscaled is not connected (`{state}`); `tailscale up`").into());
        }
        let domains = status.cert_domains.unwrap_or_default();
        let ours =
            |domain: &String| normalized_name(domain).is_ok_and(|domain| domain == self.name);
        if domains.iter().any(ours) {
            return Ok(());
        }
        let known = if domains.is_empty() { "none".to_owned() } else { cut(&domains.join(", ")) };
        Err(format!(
            "tailscaled has no certificates for {}, only for: {known}; enable HTTPS certificates for the \
             tailnet, or name the site as tailscaled does",
            self.name
        )
        .into())
    }

    async fn ask(&self, target: &str) -> Result<Answer, String> {
        self.web.get_over_unix(&self.config.socket, HOST, target).await.map_err(|why| {
            format!("tailscaled gave no answer: {why}; `tailscale status` says whether it is well")
        })
    }

    /// What a status other than 200 means, and what to do.
    fn refused(&self, answer: &Answer, now: Timestamp) -> Fault {
        let said = cut(&String::from_utf8_lossy(answer.body()));
        let why = match answer.status() {
            403 => format!(
                "tailscaled gives no certificates to user {}: {said}; set TS_PERMIT_CERT_UID to that user \
                 in /etc/default/tailscaled and restart tailscaled",
                geteuid().as_raw()
            ),
            429 => format!(
                "tailscaled is asked too often by this machine: {said}; it is asked again later"
            ),
            status => format!(
                "tailscaled answered with status {status}: {said}; `tailscale cert {}` says more",
                self.name
            ),
        };
        let not_before = match (answer.status(), answer.retry_at(now)) {
            (429, None) => Some(pace::later(now, SignedDuration::from_hours(1))),
            (_, asked) => asked,
        };
        Fault { why, not_before }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for TailscaleSource {
    fn name(&self) -> &'static str {
        "tailscale"
    }

    /// Nothing: tailscaled keeps it, and asking could take a minute.
    fn kept<'a>(&'a self, now: Timestamp) -> Looking<'a> {
        Box::pin(async move { Looked { fresh: None, again: Some(now), fault: None } })
    }

    fn look<'a>(&'a self, now: Timestamp, _forced: bool) -> Looking<'a> {
        Box::pin(self.search(now))
    }

    fn standing(&self) -> Standing {
        self.state().standing.clone()
    }
}

/// Whoever owns the socket hands us keys: it must be the system or ourselves.
#[allow(clippy::disallowed_methods, reason = "called apart")]
fn check_socket(path: &Path) -> Result<(), String> {
    let socket = path.display();
    let found = path.symlink_metadata().map_err(|why| {
        format!("tailscaled's socket {socket} is not there: {why}; is tailscaled running?")
    })?;
    if !found.file_type().is_socket() {
        return Err(format!("{socket} is no socket; name the one of tailscaled"));
    }
    let user = geteuid().as_raw();
    if found.uid() != 0 && found.uid() != user {
        return Err(format!(
            "{socket} belongs to user {}, who could hand out keys of his own; expected root or user \
             {user}",
            found.uid()
        ));
    }
    Ok(())
}

/// Reads a key and its chain, in this order, and holds them against all that is known.
pub(super) fn read(
    body: &[u8],
    name: &str,
    now: Timestamp,
    provider: &CryptoProvider,
) -> Result<Loaded, String> {
    let garbled = |what: &dyn std::fmt::Display| {
        format!(
            "what tailscaled gave for {name} is no key with its certificate: {what}; \
             `tailscale cert {name}` shows it"
        )
    };
    let end = body.windows(END.len()).position(|window| window == END);
    let end = end.ok_or_else(|| garbled(&"there are not two PEM blocks"))?;
    let (key, chain) = body.split_at(end + 3);
    if chain.windows(SECRET.len()).any(|window| window == SECRET) {
        return Err(garbled(&"a private key stands among the certificates"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|why| garbled(&why))?;
    let key = provider.key_provider.load_private_key(key).map_err(|why| garbled(&why))?;
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| garbled(&why))?;
    if chain.is_empty() {
        return Err(garbled(&"there is no certificate"));
    }
    if key.public_key().is_none() {
        return Err(garbled(&"the key cannot be held against the certificate"));
    }
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|why| match why {
        rustls::Error::InconsistentKeys(_) => {
            garbled(&"the key does not belong to the certificate")
        }
        why => garbled(&why),
    })?;
    let leaf = certified.end_entity_cert().map_err(|why| garbled(&why))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|why| garbled(&why))?;
    if !covers(&parsed, name) {
        return Err(garbled(&"the certificate is for another name"));
    }
    let validity = Validity::of(leaf).ok_or_else(|| garbled(&"its dates cannot be read"))?;
    if now < validity.from {
        let from = validity.from;
        return Err(garbled(&format!("it begins on {from}; is the clock of this machine right?")));
    }
    if now > validity.until {
        return Err(garbled(&format!("it ended on {}", validity.until)));
    }
    Ok(Loaded { certified: Arc::new(certified), validity })
}

/// What is read of `/localapi/v0/status`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    backend_state: String,
    #[serde(default)]
    cert_domains: Option<Vec<String>>,
}

fn third(validity: Validity) -> SignedDuration {
    validity.until.duration_since(validity.from) / 3
}

/// From when on a newer one is asked for.
fn last_third(validity: Validity) -> Timestamp {
    validity.until.checked_sub(third(validity)).unwrap_or(validity.from)
}

/// When the last third begins, and twice a day, because tailscaled may have a newer one before.
fn next_look(validity: Validity, failures: u32, now: Timestamp) -> Timestamp {
    let soonest = pace::after_failures(failures).max(SignedDuration::from_mins(1));
    let latest = pace::spread(now, SignedDuration::from_hours(12));
    last_third(validity).max(pace::spread(now, soonest)).min(latest)
}

/// A time as Go reads it: `720h0m0s`.
fn go_duration(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(1);
    format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The daemon's words, as they may stand in a log.
fn cut(text: &str) -> String {
    text.trim().chars().flat_map(char::escape_debug).take(200).collect()
}

/// While no lifetime is known: the certificate that tailscaled has, unless it ends within a day.
const FIRST_LEAST: SignedDuration = SignedDuration::from_hours(24);
const HOST: &str = "local-tailscaled.sock";
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
const END: &[u8] = b"--\n--";
const SECRET: &[u8] = b" PRIVATE KEY-----";

#[cfg(test)]
#[cfg(any(feature = "acme", feature = "http3"))]
#[path = "tailscale_tests.rs"]
mod tests;
