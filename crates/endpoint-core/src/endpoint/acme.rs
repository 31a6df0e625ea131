//! Which names are obtained over ACME, and who orders for them?
//!
//! Without feature `acme` the file `acme_off` stands here.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    acme::{AcmeSource, Desk, engine, suggested},
    certs::{
        challenges::{Challenges, Elsewhere},
        history::History,
        source::Source,
    },
    clock::Clock,
    config::Acme,
    store::Store,
    tls,
};

/// One desk for each way of ordering, however many names share it.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(Acme, Arc<Desk>)>);

impl Orders {
    /// The source of one name.
    pub(super) async fn source(
        &mut self,
        config: &Acme,
        name: &str,
        store: &Arc<dyn Store>,
        challenges: &Arc<Challenges>,
        clock: &Clock,
    ) -> Result<Arc<dyn Source>, String> {
        let way = Acme { domains: Vec::new(), ..config.clone() };
        let known = self.0.iter().find(|(known, _)| *known == way);
        let desk = match known {
            Some((_, desk)) => Arc::clone(desk),
            None => {
                let store = Arc::clone(store);
                let desk =
                    Desk::new(&way, store, Arc::clone(challenges), tls::provider(), clock.clone());
                let desk = Arc::new(desk.await?);
                self.0.push((way, Arc::clone(&desk)));
                desk
            }
        };
        Ok(Arc::new(AcmeSource::new(desk, name)?))
    }

    /// Where the answers of other processes stand.
    pub(super) fn elsewhere(&self) -> Vec<Arc<dyn Elsewhere>> {
        self.0.iter().map(|(_, desk)| desk.elsewhere()).collect()
    }

    /// What follows the stores. Nobody's, where nothing is ordered: no task is started then.
    pub(super) fn watches(self) -> Vec<impl Future<Output = ()> + Send + 'static> {
        self.0.into_iter().map(|(_, desk)| desk.watch()).collect()
    }
}

/// Whether names can be served so in this build, and the configuration can be used. Reads the files that it
/// names; asks nobody.
pub(super) fn check(config: &Acme) -> Result<(), String> {
    if config.issuers.is_empty() {
        return Err("no authority is configured; name at least one directory".to_owned());
    }
    if config.challenges.is_empty() {
        return Err("no challenge is allowed; allow `tls-alpn-01`, `http-01` or both".to_owned());
    }
    for issuer in &config.issuers {
        let (engine, _) = engine::pick(issuer, "name.example");
        engine::build(issuer, engine, tls::provider(), Clock::system())
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What is read of authorities and of the store. For fuzzing, which stands outside of this crate.
#[derive(Clone, Copy, Debug)]
pub struct AcmeProbe;

impl AcmeProbe {
    /// What was tried for a name, as the store keeps it, read and written again.
    #[must_use]
    pub fn history(record: &[u8]) -> Option<Vec<u8>> {
        History::from_bytes(record).ok()?.to_bytes().ok()
    }

    /// From when to when an authority wants a certificate renewed (RFC 9773 §4.2).
    #[must_use]
    pub fn window(answer: &[u8]) -> Option<(Timestamp, Timestamp)> {
        suggested(answer).ok()
    }
}
