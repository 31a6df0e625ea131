//! Which client speaks to an authority for a name, and why?
//!
//! instant-acme, which says of a renewal what it replaces; rustls-acme where the issuer asks for it and the
//! name needs nothing that only the other has.

#![allow(clippy::disallowed_methods, reason = "called by bind, before the endpoint listens")]

use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc};

use data_encoding::{BASE64URL_NOPAD, Encoding};
use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

use super::{
    instant_acme::InstantAcme, issuer::Issuer, limits::Deadlines, register::Binding,
    rustls_acme::RustlsAcme,
};
use crate::{
    clock::Clock,
    config::{AcmeEngine, AcmeIssuer, CertificateKey, ExternalAccount},
    transport::fetch::{cut, web_tls},
};

/// The client for that name, and the reason in words. Pure.
pub(crate) fn pick(issuer: &AcmeIssuer, name: &str) -> (AcmeEngine, String) {
    let instant = |why: &str| (AcmeEngine::InstantAcme, why.to_owned());
    if issuer.eab.is_some() {
        return instant("the issuer has an external account binding");
    }
    if let Some(profile) = &issuer.profile {
        return instant(&format!("the issuer asks for the profile `{}`", cut(profile)));
    }
    if name.parse::<IpAddr>().is_ok() {
        return instant("the name is an IP address");
    }
    if issuer.key_type == CertificateKey::P384 {
        return instant("the issuer asks for P-384 keys");
    }
    match issuer.engine {
        Some(AcmeEngine::InstantAcme) => instant("the issuer asks for it"),
        Some(AcmeEngine::RustlsAcme) => {
            (AcmeEngine::RustlsAcme, "the issuer asks for it".to_owned())
        }
        // RFC 9773 §5: authorities may count such a renewal apart from their limits.
        None => instant("a renewal says what it replaces"),
    }
}

/// Makes the client. Reads the files that the issuer names; asks nobody.
///
/// # Errors
/// [`EngineError`] if a file cannot be used, or the directory is no https URL.
pub(crate) fn build(
    issuer: &AcmeIssuer,
    engine: AcmeEngine,
    provider: Arc<CryptoProvider>,
    clock: Clock,
) -> Result<Arc<dyn Issuer>, EngineError> {
    build_with(issuer, engine, provider, clock, Deadlines::default())
}

/// [`build`], with other deadlines.
pub(crate) fn build_with(
    issuer: &AcmeIssuer,
    engine: AcmeEngine,
    provider: Arc<CryptoProvider>,
    clock: Clock,
    deadlines: Deadlines,
) -> Result<Arc<dyn Issuer>, EngineError> {
    let directory = issuer.directory.url().to_owned();
    if super::rustls_acme::secure(super::problem::Step::Directory, &directory).is_err() {
        return Err(EngineError::Directory(cut(&directory)));
    }
    let pem = match &issuer.ca_root {
        Some(path) => Some(fs::read(path).map_err(|why| {
            let why = why.to_string();
            EngineError::Roots { path: path.clone(), why }
        })?),
        None => None,
    };
    let tls = web_tls(pem.as_deref(), Arc::clone(&provider)).map_err(|why| {
        match issuer.ca_root.clone() {
            Some(path) => EngineError::Roots { path, why },
            None => EngineError::Platform(why),
        }
    })?;
    let contact = issuer.contact.clone();
    Ok(match engine {
        AcmeEngine::RustlsAcme => {
            if issuer.eab.is_some() {
                return Err(EngineError::NoBinding);
            }
            Arc::new(RustlsAcme { directory, contact, tls, provider, deadlines, clock })
        }
        AcmeEngine::InstantAcme => {
            let binding = issuer.eab.as_ref().map(read_binding).transpose()?;
            Arc::new(InstantAcme { directory, contact, binding, tls, provider, deadlines, clock })
        }
    })
}

fn read_binding(account: &ExternalAccount) -> Result<Binding, EngineError> {
    let path = || account.hmac_file.clone();
    let text = fs::read(&account.hmac_file)
        .map_err(|why| EngineError::BindingFile { path: path(), why: Arc::new(why) })?;
    let text = Zeroizing::new(text);
    let trimmed = text.trim_ascii();
    if trimmed.is_empty() {
        return Err(EngineError::Binding { path: path(), why: "is empty" });
    }
    // Some authorities pad, some do not; a padding is never data.
    let bare = trimmed.strip_suffix(b"==").or(trimmed.strip_suffix(b"=")).unwrap_or(trimmed);
    let hmac = encoding()
        .decode(bare)
        .map_err(|_| EngineError::Binding { path: path(), why: "is no base64url text" })?;
    Ok(Binding { kid: account.kid.clone(), hmac: Zeroizing::new(hmac) })
}

/// Base64url without padding, whose last bits may be anything: authorities differ in them.
fn encoding() -> Encoding {
    let mut lenient = BASE64URL_NOPAD.specification();
    lenient.check_trailing_bits = false;
    lenient.encoding().unwrap_or(BASE64URL_NOPAD)
}

/// Why there is no client for an authority.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EngineError {
    #[error(
        "the file {} of the external account binding {why}; expected the HMAC key as base64url, as \
         the authority gave it", .path.display()
    )]
    Binding { path: PathBuf, why: &'static str },
    #[error("the file {} of the external account binding cannot be read: {why}", .path.display())]
    BindingFile { path: PathBuf, why: Arc<io::Error> },
    #[error("the ACME directory `{0}` is no https URL; expected `https://HOST/PATH`")]
    Directory(String),
    #[error("rustls-acme knows no external account binding; use instant-acme for this issuer")]
    NoBinding,
    #[error("{0}")]
    Platform(String),
    #[error("the file {} of the authority's roots cannot be used: {why}", .path.display())]
    Roots { path: PathBuf, why: String },
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;
    use crate::config::AcmeDirectory;

    #[test]
    fn directories_are_those_that_both_engines_know() {
        use instant_acme::{LetsEncrypt, ZeroSsl};
        use rustls_acme::acme::{
            LETS_ENCRYPT_PRODUCTION_DIRECTORY, LETS_ENCRYPT_STAGING_DIRECTORY,
        };
        let (production, staging) = (AcmeDirectory::Production, AcmeDirectory::Staging);
        assert_eq!(production.url(), LETS_ENCRYPT_PRODUCTION_DIRECTORY);
        assert_eq!(production.url(), LetsEncrypt::Production.url());
        assert_eq!(staging.url(), LETS_ENCRYPT_STAGING_DIRECTORY);
        assert_eq!(staging.url(), LetsEncrypt::Staging.url());
        assert_eq!(AcmeDirectory::ZeroSsl.url(), ZeroSsl::Production.url());
        assert_eq!(AcmeDirectory::Custom("https://ca.example".into()).url(), "https://ca.example");
        assert_eq!(AcmeDirectory::default(), production);
    }

    #[test]
    fn instant_acme_is_picked_unless_the_other_is_asked_for_and_can() {
        let plain = AcmeIssuer::default;
        let eab = ExternalAccount { kid: "k".into(), hmac_file: "f".into() };
        for (issuer, name, why) in [
            (AcmeIssuer { eab: Some(eab), ..plain() }, "a.example", "external account"),
            (
                AcmeIssuer { profile: Some("shortlived".into()), ..plain() },
                "a.example",
                "shortlived",
            ),
            (plain(), "192.0.2.1", "IP address"),
            (plain(), "2001:db8::1", "IP address"),
            (AcmeIssuer { key_type: CertificateKey::P384, ..plain() }, "a.example", "P-384"),
            (AcmeIssuer { engine: Some(AcmeEngine::InstantAcme), ..plain() }, "a.example", "asks"),
            (plain(), "a.example", "replaces"),
            // What is needed outranks what is asked for.
            (AcmeIssuer { engine: Some(AcmeEngine::RustlsAcme), ..plain() }, "::1", "IP address"),
        ] {
            let (engine, reason) = pick(&issuer, name);
            assert_eq!(engine, AcmeEngine::InstantAcme, "{issuer:?} {name}");
            assert!(reason.contains(why), "{reason}");
        }
        let asked = AcmeIssuer { engine: Some(AcmeEngine::RustlsAcme), ..plain() };
        assert_eq!(pick(&asked, "a.example").0, AcmeEngine::RustlsAcme);
    }

    fn built(issuer: &AcmeIssuer) -> Result<Arc<dyn Issuer>, EngineError> {
        let (engine, _) = pick(issuer, "a.example");
        build(issuer, engine, Arc::new(default_provider()), Clock::system())
    }

    #[test]
    fn a_binding_is_read_with_and_without_padding_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hmac");
        let eab = Some(ExternalAccount { kid: "kid-1".into(), hmac_file: path.clone() });
        let issuer = AcmeIssuer { eab, ..AcmeIssuer::default() };
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_binding(issuer.eab.as_ref().unwrap()).map(|binding| binding.hmac.to_vec())
        };
        assert_eq!(read("c2VjcmV0").unwrap(), b"secret");
        assert_eq!(read(" c2VjcmV0cw==\n").unwrap(), b"secrets");
        assert_eq!(read("c2VjcmV0cw").unwrap(), b"secrets");
        assert_eq!(read("_-8").unwrap(), [0xff, 0xef]);
        for (bad, says) in [("", "is empty"), (" \n", "is empty"), ("a b$SECRET", "no base64url")] {
            let refused = read(bad).unwrap_err().to_string();
            assert!(refused.contains(says) && !refused.contains("SECRET"), "{refused}");
        }
        fs::write(&path, "c2VjcmV0").unwrap();
        let shown = format!("{:?}", built(&issuer).unwrap());
        assert!(shown.starts_with("InstantAcme(https://") && !shown.contains("secret"), "{shown}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(built(&issuer), Err(EngineError::BindingFile { .. })));
    }

    #[test]
    fn unusable_roots_and_directories_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let issuer = AcmeIssuer { ca_root: Some(path.clone()), ..AcmeIssuer::default() };
        let missing = built(&issuer).unwrap_err().to_string();
        assert!(missing.contains("roots.pem"), "{missing}");
        fs::write(&path, "hello").unwrap();
        let empty = built(&issuer).unwrap_err().to_string();
        assert!(empty.contains("no certificate stands in it"), "{empty}");
        let directory = AcmeDirectory::Custom("http://ca.example/dir".into());
        let plain = built(&AcmeIssuer { directory, ..AcmeIssuer::default() }).unwrap_err();
        assert!(matches!(plain, EngineError::Directory(_)), "{plain}");
    }
}
