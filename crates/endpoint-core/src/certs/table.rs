//! The table of names: exact, one-label wildcard, default.
//!
//! Always true: a lookup costs two hash look-ups at most, whatever the number of names; readers never
//! wait for a writer; a name is compared in lower case and without a trailing dot.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use rustls_pki_types::DnsName;

use super::stored::Stored;
use crate::facts::Reach;

/// What is served under a name.
#[derive(Clone)]
pub(crate) enum Served {
    /// The endpoint's raw key only: a client that wants a certificate is refused.
    RawKey,
    /// A certificate chain and its key.
    X509(Arc<CertifiedKey>),
    /// The same, for connections within this machine only: a shared bundle.
    Loopback(Arc<CertifiedKey>),
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RawKey => "RawKey",
            Self::X509(_) => "X509",
            Self::Loopback(_) => "Loopback",
        })
    }
}

impl Served {
    /// The certificate, if there is one that a connection of that reach may see.
    pub(crate) fn certificate(self, reach: Reach) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::X509(certificate) => Some(certificate),
            Self::Loopback(certificate) if reach.sees(Reach::Loopback) => Some(certificate),
            Self::Loopback(_) | Self::RawKey => None,
        }
    }
}

/// The names served and what is served under each. What stands under a name can be swapped while
/// handshakes read.
#[derive(Debug, Default)]
pub(crate) struct CertTable {
    names: Names,
    stored: OnceLock<Arc<Stored>>,
}

impl CertTable {
    pub(crate) const fn new(names: Names) -> Self {
        Self { names, stored: OnceLock::new() }
    }

    /// Serves the certificates of the store too, under names that are not given here.
    pub(crate) fn serve_stored(&self, stored: Arc<Stored>) {
        let _ = self.stored.set(stored);
    }

    /// What is served under `name`: the exact name, else the wildcard of its parent, else what the store
    /// has, else the default. Without a name, the default.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<Served> {
        let names = &self.names;
        if let Some(name) = name {
            let given = names.exact.get(name);
            let given = given.or_else(|| names.wildcard.get(name.split_once('.')?.1));
            if let Some(slot) = given {
                return Some(Served::clone(&slot.0.load()));
            }
            if let Some(stored) = self.stored.get().and_then(|stored| stored.find(name)) {
                return Some(Served::X509(stored));
            }
        }
        names.default.as_ref().map(|slot| Served::clone(&slot.0.load()))
    }

    /// Whether a certificate for loopback only may stand here.
    pub(crate) fn has_loopback(&self) -> bool {
        self.names.loopback
    }

    /// Serves something else under a name that was inserted (`*.example` too; `None` is the default),
    /// and under every name of its group. Gives `false` if the name was not.
    pub(crate) fn swap(&self, name: Option<&str>, served: Served) -> bool {
        let names = &self.names;
        let name = match name.map(normalized_name).transpose() {
            Ok(name) => name,
            Err(_) => return false,
        };
        let slot = match name.as_deref().map(|name| (name, name.strip_prefix("*."))) {
            None => names.default.as_ref(),
            Some((_, Some(parent))) => names.wildcard.get(parent),
            Some((name, None)) => names.exact.get(name),
        };
        slot.map(|slot| slot.0.store(Arc::new(served))).is_some()
    }
}

/// The content of a [`CertTable`].
#[derive(Debug, Default)]
pub(crate) struct Names {
    exact: HashMap<Box<str>, Arc<Slot>>,
    wildcard: HashMap<Box<str>, Arc<Slot>>,
    default: Option<Arc<Slot>>,
    loopback: bool,
}

impl Names {
    /// Serves `served` under a group of names, each `host.example` or `*.example`.
    ///
    /// # Errors
    /// [`ServerNameError`] if a name is none, or stands in the table already.
    pub(crate) fn insert<'n>(
        &mut self,
        group: impl IntoIterator<Item = &'n str>,
        served: Served,
    ) -> Result<(), ServerNameError> {
        let slot = Arc::new(Slot(ArcSwap::from_pointee(served)));
        for name in group {
            let normal = normalized_name(name)?;
            let (map, key) = match normal.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, normal.as_str()),
            };
            if map.insert(key.into(), Arc::clone(&slot)).is_some() {
                return Err(ServerNameError::Twice(normal));
            }
        }
        Ok(())
    }

    /// Says that a certificate for loopback only will stand here, now or later. Without it none is seen.
    pub(crate) fn expect_loopback(&mut self) {
        self.loopback = true;
    }

    /// Serves `served` where no name is asked for, or one that no entry covers.
    pub(crate) fn set_default(&mut self, served: Served) {
        self.default = Some(Arc::new(Slot(ArcSwap::from_pointee(served))));
    }
}

/// What a group of names shares.
#[derive(Debug)]
struct Slot(ArcSwap<Served>);

/// A server name as it is compared: lower case, no trailing dot, `*.` at most in front.
///
/// # Errors
/// [`ServerNameError::Invalid`] if it is no DNS name in ASCII.
pub(crate) fn normalized_name(name: &str) -> Result<String, ServerNameError> {
    let invalid = || ServerNameError::Invalid(name.chars().take(64).collect());
    let (star, host) = match name.strip_prefix("*.") {
        Some(parent) => ("*.", parent),
        None => ("", name),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    DnsName::try_from(host).map_err(|_| invalid())?;
    Ok(format!("{star}{}", host.to_ascii_lowercase()))
}

/// Why a text cannot be a server name in the table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServerNameError {
    #[error(
        "`{}` is no server name: expected `host.example` or `*.example` in ASCII; \
         names in other scripts are written in their `xn--` form",
        .0.escape_debug()
    )]
    Invalid(String),
    #[error("the server name `{0}` is configured twice; remove one of the two")]
    Twice(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(served: Option<Served>) -> bool {
        matches!(served, Some(Served::RawKey))
    }

    fn certificate() -> Served {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let chain = vec![made.cert.der().clone()];
        Served::X509(Arc::new(CertifiedKey::from_der(chain, key, &provider).unwrap()))
    }

    #[test]
    fn prefers_the_exact_name_to_the_wildcard_to_the_default() {
        let mut names = Names::default();
        names.insert(["a.example", "*.A.example."], Served::RawKey).unwrap();
        names.insert(["b.a.example"], certificate()).unwrap();
        let table = CertTable::new(names);
        assert!(raw(table.find(Some("a.example"))));
        assert!(raw(table.find(Some("x.a.example"))));
        assert!(matches!(table.find(Some("b.a.example")), Some(Served::X509(_))));
        for name in [None, Some("x.y.a.example"), Some("example"), Some("other.example")] {
            assert!(table.find(name).is_none(), "{name:?}");
        }
        let mut names = Names::default();
        names.set_default(Served::RawKey);
        let table = CertTable::new(names);
        for name in [None, Some("a.example"), Some("localhost")] {
            assert!(raw(table.find(name)), "{name:?}");
        }
    }

    #[test]
    fn swaps_what_a_whole_group_serves() {
        let mut names = Names::default();
        names.insert(["a.example", "*.b.example"], certificate()).unwrap();
        names.set_default(certificate());
        let table = CertTable::new(names);
        assert!(table.swap(Some("*.B.example."), Served::RawKey));
        assert!(raw(table.find(Some("a.example"))));
        assert!(!raw(table.find(None)));
        assert!(table.swap(None, Served::RawKey));
        assert!(raw(table.find(None)));
        assert!(!table.swap(Some("x.b.example"), Served::RawKey));
    }

    #[test]
    fn refuses_names_that_are_none_and_names_given_twice() {
        let mut names = Names::default();
        names.insert(["a.example"], Served::RawKey).unwrap();
        for twice in ["a.example", "A.EXAMPLE", "a.example."] {
            let error = names.insert([twice], Served::RawKey).unwrap_err();
            assert_eq!(error, ServerNameError::Twice("a.example".to_owned()));
        }
        for none in ["", "*", "*.", "a..b", "a b", "*.*.a", "b\u{fc}cher.example", "127.0.0.1"] {
            let error = names.insert([none], Served::RawKey).unwrap_err();
            assert!(matches!(error, ServerNameError::Invalid(_)), "{none}");
        }
    }

    #[test]
    fn finds_one_of_a_hundred_thousand_names_as_fast_as_one_of_ten() {
        let table = |count: usize| {
            let mut names = Names::default();
            for i in 0..count {
                names.insert([format!("host-{i}.example").as_str()], Served::RawKey).unwrap();
            }
            CertTable::new(names)
        };
        let time = |table: &CertTable| {
            let start = std::time::Instant::now();
            for i in 0..20_000 {
                let name = format!("host-{}.example", i % 10);
                assert!(raw(table.find(Some(&name))));
                assert!(table.find(Some("missing.other.example")).is_none());
            }
            start.elapsed()
        };
        let (few, many) = (table(10), table(100_000));
        let best = |table| (0..5).map(|_| time(table)).min().unwrap();
        let (few, many) = (best(&few), best(&many));
        assert!(many < few * 20, "{few:?} for 10 names, {many:?} for 100 000");
    }
}
