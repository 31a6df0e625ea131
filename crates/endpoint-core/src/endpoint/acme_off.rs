//! What stands here without feature `acme`: a name that is to be obtained over ACME is an error.

use std::{future::Ready, sync::Arc};

use jiff::Timestamp;

use crate::{
    certs::{
        challenges::{Challenges, Elsewhere},
        source::Source,
    },
    clock::Clock,
    config::Acme,
    store::Store,
};

/// Nobody orders.
#[derive(Debug, Default)]
pub(super) struct Orders(());

impl Orders {
    pub(super) async fn source(
        &mut self,
        _config: &Acme,
        _name: &str,
        _store: &Arc<dyn Store>,
        _challenges: &Arc<Challenges>,
        _clock: &Clock,
    ) -> Result<Arc<dyn Source>, String> {
        Err(MISSING.to_owned())
    }

    pub(super) fn elsewhere(&self) -> Vec<Arc<dyn Elsewhere>> {
        Vec::new()
    }

    pub(super) fn watches(self) -> Vec<Ready<()>> {
        Vec::new()
    }
}

pub(super) fn check(_config: &Acme) -> Result<(), String> {
    Err(MISSING.to_owned())
}

const MISSING: &str = "certificates over ACME need feature `acme`, which is not compiled in; build with it, \
                       or give files or a self-signed certificate";

/// Nothing is read of authorities.
#[derive(Clone, Copy, Debug)]
pub struct AcmeProbe;

impl AcmeProbe {
    /// Nothing was tried.
    #[must_use]
    pub fn history(_record: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// No window.
    #[must_use]
    pub fn window(_answer: &[u8]) -> Option<(Timestamp, Timestamp)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::{Acme, BindError, Endpoint, Identity, StoreConfig, TlsIdentity};

    #[tokio::test]
    async fn a_name_in_acme_is_refused_with_the_name_of_the_feature_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoint.db");
        let secret = crate::config::StoreSecret::File(folder.path().join("secret"));
        let acme = Acme::new(["a.example"]).store(StoreConfig::Sqlite { path, secret });
        let bound = Endpoint::builder(Identity::from_seed(&[1; 32]))
            .listen("127.0.0.1:0".parse().unwrap())
            .server_names(["a.example"], TlsIdentity::Acme(acme))
            .bind()
            .await;
        let refused: BindError = bound.expect_err("refused");
        let text = refused.to_string();
        assert!(text.contains("a.example") && text.contains("feature `acme`"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
