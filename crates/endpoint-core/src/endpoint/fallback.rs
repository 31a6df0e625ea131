//! What is served while the right certificate is not at hand?
//!
//! A self-signed one of our own making, and an operator is told so.

use std::path::PathBuf;

use jiff::Timestamp;
use tracing::warn;

use super::Shared;
use crate::{
    apart::apart,
    certs::{self, files::Loaded},
    event::Event,
    tls,
};

/// A certificate of our own making, for the time without a better one.
pub(super) async fn fallback(
    names: &[String],
    folder: Option<PathBuf>,
    now: Timestamp,
) -> Result<Loaded, String> {
    let names = names.to_vec();
    let make = move || {
        let obtain = |folder| certs::self_signed::obtain(&names, folder, &tls::provider(), now);
        // One that cannot be kept, on a full disk, is better than none.
        obtain(folder.as_deref()).or_else(|_| obtain(None))
    };
    apart(make).await
}

impl Shared {
    /// Tells of the names that begin with a certificate of our own making.
    pub(super) fn tell_fallbacks(&self) {
        for group in self.certificates.groups() {
            let Some(source) = group.member.source.as_ref() else { continue };
            let names = group.member.names.clone();
            let (fallback, fault) = {
                let state = group.state();
                (state.fallback, state.fault.clone())
            };
            if let Some(reason) = fault.filter(|_| source.is_local()) {
                warn!(names = names.join(","), reason, "certificate cannot be served as it is");
                let (names, source) = (names.clone(), source.name());
                self.observer.tell(|| Event::CertificateFailed { names, source, reason });
            }
            if !fallback {
                continue;
            }
            warn!(
                names = names.join(","),
                source = source.name(),
                "self-signed certificate served until the right one is at hand"
            );
            self.observer.tell(|| Event::CertificateFallback { names, source: source.name() });
        }
    }
}
