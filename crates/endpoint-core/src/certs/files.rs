//! Is the certificate in these files one that we can serve?
//!
//! Reads a chain and its key from PEM files and checks everything that would otherwise show up as a
//! failed handshake: the key belongs to the leaf, the dates hold, the names are covered.

#![allow(clippy::disallowed_methods, reason = "called by bind and apart")]

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    client::verify_server_name, crypto::CryptoProvider, server::ParsedCertificate,
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName,
    pem::{self, PemObject},
};

use super::validity::Validity;

/// A certificate that can be served, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) validity: Validity,
}

/// Reads the chain in `cert`, leaf first, and the key in `key` (PKCS#8, SEC 1 or PKCS#1), for
/// serving under `names`, whatever its dates are.
///
/// # Errors
/// [`CertFileError`] with the path, what is wrong and what to do.
pub(crate) fn load(
    cert: &Path,
    key: &Path,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<Loaded, CertFileError> {
    let chain = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| CertFileError::Pem { path: cert.into(), why: why.to_string() })?;
    if chain.is_empty() {
        return Err(CertFileError::NoCertificate { path: cert.into() });
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|why| match why {
        pem::Error::NoItemsFound => CertFileError::NoKey { path: key.into() },
        why => CertFileError::Pem { path: key.into(), why: why.to_string() },
    })?;
    let secret = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|why| CertFileError::Key { path: key.into(), why: why.to_string() })?;
    let certified = CertifiedKey::new(chain, secret);
    let validity = check(&certified, cert, key, names)?;
    Ok(Loaded { certified: Arc::new(certified), validity })
}

/// Whether the dates of what was loaded from `cert` hold.
///
/// # Errors
/// [`CertFileError::NotYet`] and [`CertFileError::Expired`].
pub(crate) fn dated(loaded: &Loaded, cert: &Path, now: Timestamp) -> Result<(), CertFileError> {
    let Validity { from, until } = loaded.validity;
    if now < from {
        return Err(CertFileError::NotYet { path: cert.into(), from });
    }
    if now > until {
        return Err(CertFileError::Expired { path: cert.into(), until });
    }
    Ok(())
}

/// Holds a chain against its key and its names.
fn check(
    certified: &CertifiedKey,
    cert: &Path,
    key: &Path,
    names: &[String],
) -> Result<Validity, CertFileError> {
    let pem = |why: String| CertFileError::Pem { path: cert.into(), why };
    certified.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            CertFileError::Mismatch { cert: cert.into(), key: key.into() }
        }
        error => pem(error.to_string()),
    })?;
    let leaf = certified.end_entity_cert().map_err(|error| pem(error.to_string()))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| pem(error.to_string()))?;
    for name in names {
        if !covers(&parsed, name) {
            return Err(CertFileError::NotCovered { path: cert.into(), name: name.clone() });
        }
    }
    Validity::of(leaf).ok_or_else(|| pem("its dates cannot be read".into()))
}

/// Whether a certificate is valid for a name; for `*.parent`, for some child of it.
pub(super) fn covers(certificate: &ParsedCertificate<'_>, name: &str) -> bool {
    let child = match name.strip_prefix("*.") {
        Some(parent) => format!("any.{parent}"),
        None => name.to_owned(),
    };
    ServerName::try_from(child).is_ok_and(|child| verify_server_name(certificate, &child).is_ok())
}

/// Reads a file of reasonable size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertFileError> {
    let failed = |why| CertFileError::Read { path: path.into(), why };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(io::Error::other("the file is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// Why a certificate in files cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertFileError {
    #[error(
        "the certificate in {} ended on {until}; renew it and replace the file", .path.display()
    )]
    Expired { path: PathBuf, until: Timestamp },
    #[error(
        "the private key in {} cannot be used: {why}; expected PKCS#8, SEC 1 or PKCS#1 with ECDSA, \
         Ed25519 or RSA", .path.display()
    )]
    Key { path: PathBuf, why: String },
    #[error(
        "the key in {} does not belong to the first certificate in {}; give the leaf first, and \
         the key it was issued for", .key.display(), .cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "{} holds no certificate; expected PEM with `-----BEGIN CERTIFICATE-----`, leaf first",
        .path.display()
    )]
    NoCertificate { path: PathBuf },
    #[error(
        "{} holds no private key; expected PEM with `-----BEGIN PRIVATE KEY-----`, not encrypted",
        .path.display()
    )]
    NoKey { path: PathBuf },
    #[error(
        "the certificate in {} is not valid for `{name}`; have it issued for that name, or remove \
         the name from the site", .path.display()
    )]
    NotCovered { path: PathBuf, name: String },
    #[error(
        "the certificate in {} begins on {from}; is the clock of this machine right?",
        .path.display()
    )]
    NotYet { path: PathBuf, from: Timestamp },
    #[error("{} cannot be read as PEM: {why}; was it cut when copied?", .path.display())]
    Pem { path: PathBuf, why: String },
    #[error("{} cannot be read: {why}; check the path and its mode", .path.display())]
    Read { path: PathBuf, why: io::Error },
}

const MAX_FILE_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";

    /// A folder with a certificate for `a.example` of the year 2026 and its key.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            let (cert, key) = issued();
            fs::write(folder.cert(), cert).unwrap();
            fs::write(folder.key(), key).unwrap();
            folder
        }

        fn cert(&self) -> PathBuf {
            self.0.path().join("cert.pem")
        }

        fn key(&self) -> PathBuf {
            self.0.path().join("key.pem")
        }

        fn load(&self, names: &[&str], now: &str) -> Result<Loaded, CertFileError> {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let now = now.parse().unwrap();
            let loaded = load(&self.cert(), &self.key(), &names, &default_provider())?;
            dated(&loaded, &self.cert(), now)?;
            Ok(loaded)
        }

        /// The error, which must name the file at fault.
        fn error(&self, at_fault: &Path) -> CertFileError {
            let error = self.load(&["a.example"], NOW).unwrap_err();
            assert!(error.to_string().contains(at_fault.to_str().unwrap()), "{error}");
            error
        }
    }

    fn issued() -> (String, String) {
        let names = ["a.example", "*.b.example"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn loads_a_chain_and_its_key() {
        let folder = Folder::new();
        let chain = fs::read_to_string(folder.cert()).unwrap() + &issued().0;
        fs::write(folder.cert(), chain).unwrap();
        let loaded = folder.load(&["a.example", "*.b.example", "x.b.example"], NOW).unwrap();
        assert_eq!(loaded.certified.cert.len(), 2);
        assert_eq!(loaded.validity.until, "2027-01-01T00:00:00Z".parse().unwrap());
        assert!(folder.load(&[], NOW).is_ok());
    }

    #[test]
    fn says_which_name_is_not_covered_and_when_the_dates_do_not_hold() {
        let folder = Folder::new();
        for name in ["c.example", "x.a.example", "*.a.example", "b.example"] {
            let error = folder.load(&["a.example", name], NOW).unwrap_err();
            assert!(matches!(&error, CertFileError::NotCovered { name: n, .. } if n == name));
        }
        let early = folder.load(&["a.example"], "2025-12-31T23:59:59Z").unwrap_err();
        assert!(matches!(early, CertFileError::NotYet { .. }));
        let late = folder.load(&["a.example"], "2027-01-01T00:00:01Z").unwrap_err();
        assert!(matches!(late, CertFileError::Expired { .. }));
    }

    #[test]
    fn says_which_file_is_at_fault() {
        use CertFileError as E;
        let folder = Folder::new();
        let (cert, key) = (folder.cert(), folder.key());
        let good = (fs::read(&cert).unwrap(), fs::read(&key).unwrap());
        let restore = || {
            fs::write(&cert, &good.0).unwrap();
            fs::write(&key, &good.1).unwrap();
        };

        fs::write(&key, issued().1).unwrap();
        assert!(matches!(folder.error(&key), E::Mismatch { .. }));
        restore();
        fs::write(&cert, &good.1).unwrap();
        assert!(matches!(folder.error(&cert), E::NoCertificate { .. }));
        restore();
        fs::write(&key, &good.0).unwrap();
        assert!(matches!(folder.error(&key), E::NoKey { .. }));
        restore();
        fs::write(&cert, &good.0[..good.0.len() / 2]).unwrap();
        assert!(matches!(folder.error(&cert), E::Pem { .. } | E::NoCertificate { .. }));
        restore();
        fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(folder.error(&cert), E::Pem { .. }));
        restore();
        fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(folder.error(&key), E::Key { .. }));
        restore();
        fs::write(&cert, vec![b'a'; 2 * 1024 * 1024]).unwrap();
        assert!(matches!(folder.error(&cert), E::Read { .. }));
        restore();
        fs::remove_file(&key).unwrap();
        assert!(matches!(folder.error(&key), E::Read { .. }));
    }
}
