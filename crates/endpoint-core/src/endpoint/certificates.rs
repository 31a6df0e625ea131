//! Which certificates does this endpoint serve, and are they the newest?
//!
//! Obtained when the endpoint binds; files are looked at again once a second and on a reload, self-signed
//! ones are made anew a month before their end. The next handshake sees the new one; live connections stay.
//!
//! Always true: a certificate that cannot be used never replaces one that can.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use tracing::{info, warn};

use super::{BindError, reload::stamp};
use crate::{
    certs::{self, CertTable, Names, Served},
    config::TlsIdentity,
    tls,
};

/// A group of names and what is served under them.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    identity: TlsIdentity,
    /// The files as they were when last looked at.
    seen: Vec<Option<super::reload::Stamp>>,
    /// When a self-signed certificate is made anew.
    renew_at: Option<Timestamp>,
    /// From when until when the one that is served is good.
    validity: Option<(Timestamp, Timestamp)>,
}

/// What an operator sees of a certificate that is served.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The names that it is served under.
    pub names: Vec<String>,
    /// Where it comes from: `self-signed` or `files`.
    pub source: &'static str,
    /// The PEM file that holds it, if it is kept in one.
    pub file: Option<PathBuf>,
    /// Not good before.
    pub not_before: Timestamp,
    /// Not good after.
    pub not_after: Timestamp,
}

/// The certificates of an endpoint.
#[derive(Debug)]
pub(super) struct Certificates {
    table: Arc<CertTable>,
    groups: Mutex<Vec<Group>>,
    folder: Option<PathBuf>,
}

impl Certificates {
    /// Obtains every certificate. The first group also answers clients that ask for no name or another.
    pub(super) fn obtain(
        groups: Vec<(Vec<String>, TlsIdentity)>,
        folder: Option<PathBuf>,
        now: Timestamp,
    ) -> Result<Self, BindError> {
        let mut table = Names::default();
        let mut kept = Vec::new();
        for (names, identity) in groups {
            let wrong = |error: String| BindError::certificate(&names, error);
            let mut group = Group {
                seen: stamps(&identity),
                names: names.clone(),
                identity,
                renew_at: None,
                validity: None,
            };
            let served = group.load(folder.as_deref(), now).map_err(wrong)?;
            if kept.is_empty() {
                table.set_default(served.clone());
            }
            table.insert(group.server_names(), served).map_err(|error| wrong(error.to_string()))?;
            kept.push(group);
        }
        let table = Arc::new(CertTable::new(table));
        Ok(Self { table, groups: Mutex::new(kept), folder })
    }

    /// What is served now, in the order of the names given.
    pub(super) fn list(&self) -> Vec<CertificateInfo> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let info = |group: &Group| {
            let (not_before, not_after) = group.validity?;
            let (source, file) = match &group.identity {
                TlsIdentity::RawKey => return None,
                TlsIdentity::X509 { cert, .. } => ("files", Some(cert.clone())),
                TlsIdentity::SelfSigned => {
                    let folder = self.folder.as_deref();
                    let file = folder.and_then(|f| certs::self_signed::file(&group.names, f));
                    ("self-signed", file)
                }
            };
            Some(CertificateInfo {
                names: group.names.clone(),
                source,
                file,
                not_before,
                not_after,
            })
        };
        groups.iter().filter_map(info).collect()
    }

    pub(super) fn table(&self) -> Arc<CertTable> {
        Arc::clone(&self.table)
    }

    /// Whether a look may change something. Cheap enough for once a second.
    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.iter().any(|group| group.is_stale(now))
    }

    /// Looks again; reads files, so not for an async task. Gives how many groups got a new certificate.
    pub(super) fn refresh(&self, now: Timestamp) -> usize {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut swapped = 0;
        for (number, group) in groups.iter_mut().enumerate() {
            if !group.is_stale(now) {
                continue;
            }
            group.seen = stamps(&group.identity);
            match group.load(self.folder.as_deref(), now) {
                Ok(served) => {
                    if number == 0 {
                        self.table.swap(None, served.clone());
                    }
                    if let Some(name) = group.server_names().next() {
                        self.table.swap(Some(name), served);
                    }
                    swapped += 1;
                    info!(names = group.names.join(","), "certificate deployed");
                }
                Err(reason) => {
                    warn!(names = group.names.join(","), reason, "old certificate kept");
                }
            }
        }
        swapped
    }
}

impl Group {
    /// An address is no server name (RFC 6066 §3); its certificate answers as the default.
    fn server_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| name.parse::<IpAddr>().is_err())
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        self.renew_at.is_some_and(|at| now >= at) || stamps(&self.identity) != self.seen
    }

    fn load(&mut self, folder: Option<&Path>, now: Timestamp) -> Result<Served, String> {
        let provider = tls::provider();
        match &self.identity {
            TlsIdentity::RawKey => Ok(Served::RawKey),
            TlsIdentity::X509 { cert, key } => {
                let loaded = certs::files::load(cert, key, &self.names, &provider, now)
                    .map_err(|error| error.to_string())?;
                self.validity = Some((loaded.validity.from, loaded.validity.until));
                Ok(Served::X509(loaded.certified))
            }
            TlsIdentity::SelfSigned => {
                let made = certs::self_signed::obtain(&self.names, folder, &provider, now)
                    .map_err(|error| error.to_string())?;
                self.validity = Some((made.validity.from, made.validity.until));
                self.renew_at = Some(certs::self_signed::renewal(made.validity));
                Ok(Served::X509(made.certified))
            }
        }
    }
}

fn stamps(identity: &TlsIdentity) -> Vec<Option<super::reload::Stamp>> {
    match identity {
        TlsIdentity::X509 { cert, key } => vec![stamp(cert), stamp(key)],
        TlsIdentity::RawKey | TlsIdentity::SelfSigned => Vec::new(),
    }
}
