//! Both engines against the real Pebble, through a proxy that errs as it is told.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use self::{
    faulty_ca::{Ari, Fault as Told, FaultyCa, Route},
    pebble::{Pebble, Settings},
};
use super::{
    answering::{Answering, is_for},
    engine::build_with,
    issuer::{Account, AccountKey, Answers, Fault, IssueError, Issued, Issuer, Order},
    limits::Deadlines,
};
use crate::{
    clock::Clock,
    config::{
        AcmeDirectory, AcmeEngine, AcmeIssuer, CertificateKey, ChallengeKind, ExternalAccount,
    },
};

mod both;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with other tests")]
#[path = "../../../../../tests/harness/faulty_ca.rs"]
mod faulty_ca;
mod instant;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with other tests")]
#[path = "../../../../../tests/harness/pebble.rs"]
mod pebble;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with other tests")]
#[path = "../../../../../tests/harness/ports.rs"]
mod ports;

const BOTH: [AcmeEngine; 2] = [AcmeEngine::RustlsAcme, AcmeEngine::InstantAcme];
/// Long enough for a machine that does much else at once.
const PATIENT: Deadlines = Deadlines {
    request: Duration::from_secs(60),
    decision: Duration::from_secs(60),
    order: Duration::from_secs(120),
};

/// An authority, and who answers its validations.
struct Scene {
    pebble: Pebble,
    proxy: FaultyCa,
    answering: Arc<Answering>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let answering = Answering::start().await;
        let (tls_port, http_port) = (answering.tls_port, answering.http_port);
        let pebble = Pebble::start(Settings { tls_port, http_port, ..settings }).await;
        let proxy = FaultyCa::before(&pebble).await;
        Self { pebble, proxy, answering }
    }

    fn config(&self) -> AcmeIssuer {
        AcmeIssuer {
            directory: AcmeDirectory::Custom(self.proxy.directory()),
            contact: vec!["mailto:admin@a.example".into()],
            ca_root: Some(self.pebble.server_root()),
            ..AcmeIssuer::default()
        }
    }

    fn issuer(&self, engine: AcmeEngine) -> Arc<dyn Issuer> {
        built(&self.config(), engine, PATIENT)
    }

    fn order(&self, name: &str) -> Order {
        Order {
            name: name.into(),
            challenges: vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01],
            key: CertificateKey::P256,
            profile: None,
            replaces: None,
            answers: Arc::clone(&self.answering) as Arc<dyn Answers>,
        }
    }

    /// Issues once, and checks that nothing is left pending.
    async fn issue(
        &self,
        issuer: &Arc<dyn Issuer>,
        account: &Account,
        order: &Order,
    ) -> Result<Issued, IssueError> {
        let issued = issuer.issue(account, order).await;
        assert_eq!(self.answering.pending(), 0, "an answer was left behind");
        issued
    }
}

fn built(config: &AcmeIssuer, engine: AcmeEngine, deadlines: Deadlines) -> Arc<dyn Issuer> {
    let provider = Arc::new(default_provider());
    build_with(config, engine, provider, Clock::system(), deadlines).unwrap()
}

async fn registered(issuer: &Arc<dyn Issuer>) -> Account {
    let key = AccountKey::generate().unwrap();
    let url = issuer.register(&key).await.unwrap();
    Account { key, url }
}
