//! What is served when nobody has issued a certificate?
//!
//! A self-signed one: P-256, 365 days, for the names asked and, with `localhost`, for the loopback
//! addresses. It is kept across restarts, so that whoever pinned it still can, and made again when
//! its names change or its last month begins.
//!
//! Always true: the file is 0600 from its first byte, and whole: it replaces its predecessor by
//! rename.

#![allow(clippy::disallowed_methods, reason = "called by bind and apart")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::{crypto::CryptoProvider, server::ParsedCertificate, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tracing::warn;
use zeroize::Zeroizing;

use super::{
    files::{self, Loaded, covers},
    validity::Validity,
};

/// The self-signed certificate for `names`, DNS names or IP addresses: the one kept in `folder` if
/// it still will do, else a new one, which is then kept there. Without a folder, always a new one.
///
/// # Errors
/// [`SelfSignedError`] if a name cannot stand in a certificate or the folder cannot be written. A
/// kept file that is damaged is no error: it is replaced.
pub(crate) fn obtain(
    names: &[String],
    folder: Option<&Path>,
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<Loaded, SelfSignedError> {
    let names = all_names(names)?;
    let Some(folder) = folder else {
        let (loaded, _) = make(&names, provider, now)?;
        return Ok(loaded);
    };
    let path = folder.join(file_name(&names));
    match kept(&path, &names, provider, now) {
        Ok(Some(loaded)) => return Ok(loaded),
        Ok(None) => {}
        Err(why) => {
            warn!(path = %path.display(), why, "kept self-signed certificate replaced");
        }
    }
    let (loaded, pem) = make(&names, provider, now)?;
    keep(&path, &pem).map_err(|why| SelfSignedError::Keep { path, why })?;
    Ok(loaded)
}

/// The names as they are compared, with what belongs to them, in one order.
fn all_names(names: &[String]) -> Result<Vec<String>, SelfSignedError> {
    let mut all = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => super::normalized_name(name)
                .map_err(|_| SelfSignedError::Name(name.chars().take(64).collect())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() || all.iter().any(|name| name == "localhost") {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        all.push("localhost".to_owned());
        all.extend(loopback.iter().map(ToString::to_string));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Where the certificate for `names` is kept; `None` if one of them cannot stand in a certificate.
pub(crate) fn file(names: &[String], folder: &Path) -> Option<PathBuf> {
    Some(folder.join(file_name(&all_names(names).ok()?)))
}

/// A file of their own for each set of names.
fn file_name(names: &[String]) -> String {
    let first = names.iter().find(|name| name.parse::<IpAddr>().is_err());
    let first = first.or(names.first()).map_or("localhost", String::as_str);
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    // Sets that begin alike are told apart by all of their names.
    let digest = Sha256::digest(names.join("\n").as_bytes());
    let digest =
        digest.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("self-signed-{}-{digest}.pem", first.chars().map(safe).collect::<String>())
}

/// The kept certificate, if it covers exactly these names for a month more.
fn kept(
    path: &Path,
    names: &[String],
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<Option<Loaded>, String> {
    match fs::symlink_metadata(path) {
        Ok(found)
            if found.is_file()
                && found.permissions().mode() & 0o077 == 0
                && found.uid() == rustix::process::geteuid().as_raw() => {}
        Ok(_) => return Err("others may have read or made its key, or it is no file".to_owned()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why.to_string()),
    }
    let pem = Zeroizing::new(files::read(path).map_err(|why| why.to_string())?);
    if !pem.starts_with(header(names).as_bytes()) {
        return Ok(None);
    }
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|error| text(&error))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| text(&error))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| text(&error))?;
    let certified = CertifiedKey::new(vec![certificate], key);
    certified.keys_match().map_err(|error| text(&error))?;
    let leaf = certified.end_entity_cert().map_err(|error| text(&error))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| text(&error))?;
    let validity = Validity::of(leaf).ok_or("its dates cannot be read")?;
    let fresh = validity.from <= now && now < renewal(validity);
    if !fresh || !names.iter().all(|name| covers(&parsed, name)) {
        return Ok(None);
    }
    Ok(Some(Loaded { certified: Arc::new(certified), validity }))
}

/// When a self-signed certificate is made again: a month before its end.
pub(crate) fn renewal(validity: Validity) -> Timestamp {
    validity.until.checked_sub(Span::new().hours(30 * 24)).unwrap_or(validity.from)
}

/// Makes a certificate, and the text to keep it as.
fn make(
    names: &[String],
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<(Loaded, Zeroizing<String>), SelfSignedError> {
    let made = |why: rcgen::Error| SelfSignedError::Make(why.to_string());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
    let params = params(names, now)?;
    let certificate = params.self_signed(&key).map_err(made)?;
    let pem = Zeroizing::new(format!(
        "{}{}{}",
        header(names),
        certificate.pem(),
        *Zeroizing::new(key.serialize_pem())
    ));
    let secret = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|why| SelfSignedError::Make(why.to_owned()))?;
    let secret = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|why| SelfSignedError::Make(why.to_string()))?;
    let validity = Validity::of(certificate.der())
        .ok_or_else(|| SelfSignedError::Make("its dates cannot be read".into()))?;
    let certified = CertifiedKey::new(vec![certificate.der().clone()], secret);
    Ok((Loaded { certified: Arc::new(certified), validity }, pem))
}

/// What stands in the certificate. It begins yesterday, for clients whose clock is slow.
fn params(names: &[String], now: Timestamp) -> Result<CertificateParams, SelfSignedError> {
    let bad = |name: &String| SelfSignedError::Name(name.chars().take(64).collect());
    let mut params = CertificateParams::default();
    for name in names {
        let san = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| bad(name))?),
        };
        params.subject_alt_names.push(san);
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "endpoint, self-signed");
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

    let out_of_range = |_| SelfSignedError::Make("the clock is out of range".into());
    let yesterday = now.checked_sub(Span::new().hours(24)).map_err(out_of_range)?;
    let end = yesterday.checked_add(Span::new().hours(365 * 24)).map_err(out_of_range)?;
    let midnight = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        let number = |n: i8| u8::try_from(n).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), number(date.month()), number(date.day()))
    };
    params.not_before = midnight(yesterday);
    params.not_after = midnight(end);
    Ok(params)
}

/// The line before the PEM, which its readers skip: the names that it was made for.
fn header(names: &[String]) -> String {
    format!("# self-signed for {}\n", names.join(" "))
}

/// Writes beside, then renames over.
fn keep(path: &Path, pem: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file
        .write_all(pem.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Why there is no self-signed certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SelfSignedError {
    #[error(
        "the self-signed certificate cannot be kept in {}: {why}; make the folder writable, or \
         start without a state folder", .path.display()
    )]
    Keep { path: PathBuf, why: io::Error },
    #[error("the self-signed certificate cannot be made: {0}")]
    Make(String),
    #[error("`{}` cannot stand in a certificate; expected a DNS name or an address", .0.escape_debug())]
    Name(String),
}

/// A certificate of the identity's own key: one key, one fingerprint, in another form.
#[cfg(test)]
pub(crate) fn of_identity(identity: &crate::identity::Identity) -> CertificateDer<'static> {
    struct Own(crate::identity::Identity, [u8; 44]);

    impl rcgen::PublicKeyData for Own {
        fn der_bytes(&self) -> &[u8] {
            &self.1[12..]
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ED25519
        }
    }

    impl rcgen::SigningKey for Own {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            Ok(self.0.sign(message).to_vec())
        }
    }

    let own = Own(identity.clone(), identity.spki());
    let params = CertificateParams::new(vec!["peer.example".to_owned()]).unwrap();
    params.self_signed(&own).unwrap().der().clone()
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;
    use crate::identity::Fingerprint;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn key_of(loaded: &Loaded) -> Fingerprint {
        Fingerprint::of_spki(loaded.certified.key.public_key().unwrap().as_ref())
    }

    fn valid_for(loaded: &Loaded, name: &str) -> bool {
        let leaf = loaded.certified.end_entity_cert().unwrap();
        covers(&ParsedCertificate::try_from(leaf).unwrap(), name)
    }

    #[test]
    fn covers_localhost_and_the_loopback_addresses_for_a_year() {
        let made = obtain(&[], None, &default_provider(), at(NOW)).unwrap();
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(valid_for(&made, name), "{name}");
        }
        assert!(!valid_for(&made, "example.com"));
        assert!(!valid_for(&made, "127.0.0.2"));
        assert_eq!(made.validity.from, at("2026-11-21T00:00:00Z"));
        assert_eq!(made.validity.until, at("2027-11-21T00:00:00Z"));

        let other = names(&["Example.COM.", "*.example.com", "192.0.2.1"]);
        let made = obtain(&other, None, &default_provider(), at(NOW)).unwrap();
        for name in ["example.com", "x.example.com", "192.0.2.1"] {
            assert!(valid_for(&made, name), "{name}");
        }
        assert!(!valid_for(&made, "localhost"));
    }

    #[test]
    fn is_kept_until_its_names_change_or_its_last_month_begins() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("certs");
        let get = |wanted: &[&str], now: &str| {
            let loaded = obtain(&names(wanted), Some(&state), &default_provider(), at(now));
            key_of(&loaded.unwrap())
        };
        let first = get(&["localhost"], NOW);
        assert_eq!(get(&["localhost"], NOW), first);
        assert_eq!(get(&["LOCALHOST."], "2027-10-21T23:59:59Z"), first);
        let second = get(&["localhost"], "2027-10-22T00:00:00Z");
        assert_ne!(second, first, "the last month has begun");
        let third = get(&["localhost", "b.localhost"], "2027-10-22T00:00:00Z");
        assert_ne!(third, second);
        // A clock that was set back, too: nobody would take a certificate that begins later.
        assert_ne!(get(&["localhost", "b.localhost"], "2026-01-01T00:00:00Z"), third);
    }

    #[test]
    fn is_kept_for_its_owner_alone_and_replaced_when_damaged_or_readable_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("certs");
        let get = || {
            let loaded = obtain(&names(&["localhost"]), Some(&state), &default_provider(), at(NOW));
            key_of(&loaded.unwrap())
        };
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let first = get();
        let path = file(&names(&["localhost"]), &state).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&state), 0o700);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");

        let good = fs::read(&path).unwrap();
        for cut in [0, 10, good.len() / 2, good.len() - 30] {
            fs::write(&path, &good[..cut]).unwrap();
            assert_ne!(get(), first, "cut at {cut}");
        }
        let second = get();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(get(), second);
        assert_eq!(mode(&path), 0o600);
        let third = get();
        fs::rename(&path, state.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(state.join("elsewhere"), &path).unwrap();
        assert_ne!(get(), third, "a link is not followed");
    }

    #[test]
    fn refuses_what_cannot_stand_in_a_certificate() {
        for name in ["", "a b", "*.*.example", "bücher.example", "a\u{1b}[1m"] {
            let refused = obtain(&names(&[name]), None, &default_provider(), at(NOW));
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("cannot stand in a certificate"), "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn gives_an_identity_one_fingerprint_in_both_forms() {
        let identity = crate::identity::Identity::from_seed(&[9; 32]);
        let certificate = of_identity(&identity);
        let parsed = ParsedCertificate::try_from(&certificate).unwrap();
        assert_eq!(
            Fingerprint::of_spki(parsed.subject_public_key_info().as_ref()),
            identity.fingerprint()
        );
    }
}
