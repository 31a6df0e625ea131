//! Where does each certificate come from?
//!
//! Turns the identities that the builder was given into sources, and opens the stores that they need, each
//! once.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use super::{BindError, Shared, acme, certificates::Member};
use crate::{
    certs::{
        bundle::{BundleSource, check_listen},
        challenges::Challenges,
        local::{FilesSource, SelfSignedSource},
        source::Source,
        staple::Stapler,
        stored::{Shelf, Stored, VaultShelf, Wanted},
        tailscale::TailscaleSource,
    },
    clock::Clock,
    config::{Acme, BundleLocation, StoreConfig, TlsIdentity},
    event::Part,
    facts::Reach,
    store::{self, Store},
    tls,
};

/// What certificates come from, before any is obtained.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) members: Vec<Member>,
    pub(super) folder: Option<PathBuf>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) stored: Option<Arc<Stored>>,
    pub(super) stapler: Stapler,
    pub(super) background: Background,
}

/// What runs beside the sources. Empty where every certificate is at hand at once.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// Certificates of the store under names that are given nowhere.
    pub(super) shelf: Option<(Arc<Stored>, Wanted, Arc<dyn Shelf>)>,
    pub(super) orders: acme::Orders,
}

impl Sources {
    /// Prepares a source for each group of names.
    ///
    /// # Errors
    /// [`BindError`] if a store cannot be opened, an authority's configuration cannot be used, or the build
    /// lacks what a name needs.
    pub(super) async fn prepare(
        groups: Vec<(Vec<String>, TlsIdentity)>,
        folder: Option<PathBuf>,
        extra: Option<StoreConfig>,
        clock: &Clock,
        listen: &[SocketAddr],
    ) -> Result<Self, BindError> {
        let challenges = Arc::new(Challenges::default());
        let mut stores = Stores::default();
        let mut orders = acme::Orders::default();
        let mut members = Vec::new();
        for (names, identity) in groups {
            let member =
                |names, source, file| Member { names, source, file, reach: Reach::Everywhere };
            match identity {
                TlsIdentity::RawKey => members.push(member(names, None, None)),
                TlsIdentity::X509 { cert, key } => {
                    let file = Some(cert.clone());
                    let source = FilesSource::new(cert, key, names.clone(), tls::provider());
                    members.push(member(names, Some(Arc::new(source)), file));
                }
                TlsIdentity::SelfSigned => {
                    let source =
                        SelfSignedSource::new(names.clone(), folder.clone(), tls::provider());
                    let file = source.file();
                    members.push(member(names, Some(Arc::new(source)), file));
                }
                TlsIdentity::Bundle(config) => {
                    let wrong = |reason: String| BindError::certificate(&names, reason);
                    check_listen(&names, &config.location, listen).map_err(wrong)?;
                    let folder = folder.as_deref();
                    let source = BundleSource::new(&config, &names, folder, tls::provider());
                    let source: Arc<dyn Source> = Arc::new(source.map_err(wrong)?);
                    let reach = Reach::Loopback;
                    let file = match config.location {
                        BundleLocation::File(file) => Some(file),
                        BundleLocation::Url(_) => None,
                    };
                    members.push(Member { reach, ..member(names, Some(source), file) });
                }
                TlsIdentity::Tailscale(config) => {
                    let wrong = |reason: String| BindError::certificate(&names, reason);
                    let source = TailscaleSource::new(&config, &names, tls::provider());
                    let source: Arc<dyn Source> = Arc::new(source.map_err(wrong)?);
                    members.push(member(names, Some(source), None));
                }
                TlsIdentity::Acme(config) => {
                    let wrong = |reason: String| BindError::certificate(&names, reason);
                    acme::check(&config).map_err(wrong)?;
                    if own_names(&names, &config).is_empty() {
                        return Err(wrong("no domain is given to order for; name one".to_owned()));
                    }
                    let store = stores.open(&config.store).await?;
                    // One order for each name, so that one that cannot be proved holds up no other.
                    for name in own_names(&names, &config) {
                        let source: Arc<dyn Source> = orders
                            .source(&config, &name, &store, &challenges, clock)
                            .await
                            .map_err(wrong)?;
                        members.push(member(vec![name], Some(source), None));
                    }
                }
            }
        }
        let mut shelf = None;
        if let Some(config) = &extra {
            let store = stores.open(config).await?;
            let (stored, wanted) = Stored::new();
            let kept: Arc<dyn Shelf> = Arc::new(VaultShelf::new(store, tls::provider()));
            shelf = Some((stored, wanted, kept));
        }
        challenges.look_elsewhere(orders.elsewhere());
        let any = stores.0.first().map(|(_, store)| Arc::clone(store));
        let stapler = Stapler::new(any, tls::provider()).map_err(BindError::Tls)?;
        Ok(Self {
            members,
            folder,
            challenges,
            stored: shelf.as_ref().map(|(stored, ..)| Arc::clone(stored)),
            stapler,
            background: Background { shelf, orders },
        })
    }
}

impl Background {
    /// Starts what there is; where every certificate is at hand at once, nothing.
    pub(super) fn start(self, shared: &Arc<Shared>, clock: &Clock) {
        let ended = || shared.ended.clone().cancelled_owned();
        if let Some((stored, wanted, shelf)) = self.shelf {
            let fill = stored.fill(wanted, shelf, clock.clone());
            let ended = ended();
            shared.supervise(Part::CertificateHelper, async move {
                tokio::select! { () = ended => {} () = fill => {} }
            });
        }
        for watch in self.orders.watches() {
            let ended = ended();
            shared.supervise(Part::CertificateHelper, async move {
                tokio::select! { () = ended => {} () = watch => {} }
            });
        }
    }
}

/// The names given beside the identity, or those in it.
fn own_names(names: &[String], config: &Acme) -> Vec<String> {
    if names.is_empty() { config.domains.clone() } else { names.to_vec() }
}

/// Stores by their configuration: one handle each, however many names share it.
#[derive(Debug, Default)]
struct Stores(Vec<(StoreConfig, Arc<dyn Store>)>);

impl Stores {
    async fn open(&mut self, config: &StoreConfig) -> Result<Arc<dyn Store>, BindError> {
        if let Some((_, open)) = self.0.iter().find(|(known, _)| known == config) {
            return Ok(Arc::clone(open));
        }
        let open = store::open(config).await.map_err(BindError::Store)?;
        self.0.push((config.clone(), Arc::clone(&open)));
        Ok(open)
    }
}
