//! Which authority issues, by which proofs, and where is it kept? `[acme]`, `[[acme.fallback]]`, `[store]`.

use std::{net::IpAddr, path::PathBuf};

use endpoint_core::config::{
    Acme, AcmeDirectory, AcmeEngine, AcmeIssuer, CertificateKey, ChallengeKind, ExternalAccount,
    StoreConfig, StoreSecret,
};
use toml::de::DeTable;

use super::{
    read::{Reader, Value},
    value,
};

/// What certificates by ACME have in common; the sites say for which names.
pub(super) fn acme<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> Acme {
    let own = ["challenges", "renew_before", "fallback"];
    let known: Vec<&str> = ISSUER_FIELDS.into_iter().chain(own).collect();
    reader.names(table, " in [acme]", &known, &[]);
    let mut acme = common();
    acme.issuers = vec![issuer(reader, table)];
    if let Some(list) = table.get("fallback") {
        for value in reader.array(list, "tables: [[acme.fallback]]") {
            let Some(table) = reader.table(value, "a table: [[acme.fallback]]") else { continue };
            reader.names(table, " in [[acme.fallback]]", &ISSUER_FIELDS, &[]);
            if !table.contains_key("directory") {
                reader.fault(value.span(), "a fallback lacks `directory`", "this authority");
            }
            acme.issuers.push(issuer(reader, table));
        }
    }
    if let Some(list) = table.get("challenges") {
        acme.challenges = challenges(reader, list);
    }
    if let Some(value) = table.get("renew_before") {
        acme.renew_before = reader.parsed(value, "a time such as \"30d\"", value::duration);
    }
    acme
}

/// What holds without `[acme]`. HTTP-01 is answered on `plain_listen`, and left out where there is none.
pub(super) fn common() -> Acme {
    let mut acme = Acme::new(Vec::<String>::new());
    acme.challenges = vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01];
    acme
}

/// What stands in `[acme]` and each `[[acme.fallback]]`.
pub(super) const ISSUER_FIELDS: [&str; 8] =
    ["directory", "ca_root", "contact", "eab", "profile", "key_type", "engine", "staging"];

fn issuer<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> AcmeIssuer {
    let mut issuer = AcmeIssuer::default();
    let mut found = |name: &str, into: &mut Option<AcmeDirectory>| {
        if let Some(value) = table.get(name) {
            *into = reader.parsed(value, DIRECTORIES, directory);
        }
    };
    let mut named = None;
    found("directory", &mut named);
    found("staging", &mut issuer.staging);
    issuer.directory = named.unwrap_or_default();
    if let Some(value) = table.get("ca_root") {
        let file = reader.string(value, "a file name");
        issuer.ca_root = file.map(|file| reader.path(&file));
    }
    if let Some(list) = table.get("contact") {
        for value in reader.array(list, "a list such as [\"mailto:admin@example.com\"]") {
            issuer.contact.extend(reader.parsed(value, "a URL", contact));
        }
    }
    if let Some(value) = table.get("eab") {
        issuer.eab = eab(reader, value);
    }
    if let Some(value) = table.get("profile") {
        issuer.profile = reader.parsed(value, "a profile such as \"shortlived\"", profile);
    }
    if let Some(value) = table.get("key_type") {
        issuer.key_type = match reader.string(value, KEY_TYPES).as_deref() {
            Some("p256") | None => CertificateKey::P256,
            Some("p384") => CertificateKey::P384,
            Some(_) => {
                reader.expected(value, KEY_TYPES);
                CertificateKey::P256
            }
        };
    }
    if let Some(value) = table.get("engine") {
        issuer.engine = match reader.string(value, ENGINES).as_deref() {
            Some("rustls-acme") => Some(AcmeEngine::RustlsAcme),
            Some("instant-acme") => Some(AcmeEngine::InstantAcme),
            Some(_) => {
                reader.expected(value, ENGINES);
                None
            }
            None => None,
        };
    }
    if let (AcmeDirectory::ZeroSsl, None, Some(value)) =
        (&issuer.directory, &issuer.eab, table.get("directory"))
    {
        let message = "zerossl wants an account of yours: eab = { kid = \"…\", hmac_file = \"…\" }";
        reader.fault(value.span(), message, "this authority");
    }
    issuer
}

const DIRECTORIES: &str =
    "\"letsencrypt\", \"letsencrypt-staging\", \"zerossl\" or an https:// URL";
const ENGINES: &str = "\"rustls-acme\" or \"instant-acme\"";
const KEY_TYPES: &str = "\"p256\" or \"p384\"";

fn directory(text: &str) -> Result<AcmeDirectory, String> {
    match text {
        "letsencrypt" => Ok(AcmeDirectory::Production),
        "letsencrypt-staging" => Ok(AcmeDirectory::Staging),
        "zerossl" => Ok(AcmeDirectory::ZeroSsl),
        url if url.len() > "https://".len() && url.starts_with("https://") && is_url(url) => {
            Ok(AcmeDirectory::Custom(url.to_owned()))
        }
        url if url.starts_with("http://") => {
            Err(format!("`{}` is not safe: RFC 8555 §6.1 wants https://", url.escape_debug()))
        }
        other => Err(format!("expected {DIRECTORIES}, not `{}`", other.escape_debug())),
    }
}

/// RFC 8555 §7.3: the authority may refuse other schemes than `mailto`, and lists of addresses in one.
fn contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or_default();
    let whole = address.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && host.contains('.') && !address.contains([',', '?', ' '])
    });
    match whole && is_url(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "expected a URL such as mailto:admin@example.com, not `{}`",
            text.escape_debug()
        )),
    }
}

fn profile(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a profile such as \"shortlived\"".to_owned()),
    }
}

fn is_url(text: &str) -> bool {
    text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn eab<'t>(reader: &mut Reader<'t>, value: &Value<'t>) -> Option<ExternalAccount> {
    let expected = "{ kid = \"…\", hmac_file = \"FILE\" }";
    let table = reader.table(value, expected)?;
    reader.names(table, " in eab", &["kid", "hmac_file"], &[]);
    let (Some(kid), Some(file)) = (table.get("kid"), table.get("hmac_file")) else {
        reader.expected(value, expected);
        return None;
    };
    let kid = reader.string(kid, "the name of the key, as the authority gave it")?.into_owned();
    let file = reader.string(file, "a file name")?;
    Some(ExternalAccount { kid, hmac_file: reader.path(&file) })
}

fn challenges<'t>(reader: &mut Reader<'t>, list: &Value<'t>) -> Vec<ChallengeKind> {
    let expected = "a list of \"tls-alpn-01\" and \"http-01\"";
    let mut found = Vec::new();
    for value in reader.array(list, expected) {
        let kind = match reader.string(value, expected).as_deref() {
            Some("tls-alpn-01") => ChallengeKind::TlsAlpn01,
            Some("http-01") => ChallengeKind::Http01,
            Some("dns-01") => {
                let message = "dns-01 is not in this build: it has tls-alpn-01 and http-01";
                reader.fault(value.span(), message, "this challenge");
                continue;
            }
            Some(_) => {
                reader.expected(value, expected);
                continue;
            }
            None => continue,
        };
        if found.contains(&kind) {
            reader.fault(value.span(), "this challenge stands twice", "the second one");
            continue;
        }
        found.push(kind);
    }
    if list.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        reader.expected(list, expected);
    }
    found
}

/// Where certificates, keys and accounts are kept; relative paths start at the state folder.
pub(super) fn store<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>) -> StoreConfig {
    reader.names(table, " in [store]", &["url", "secret_file"], &[]);
    let mut file = PathBuf::from(FILE);
    let mut memory = false;
    if let Some(value) = table.get("url") {
        let expected = "\"sqlite:FILE\" or \"memory:\"";
        match reader.string(value, expected).as_deref() {
            Some("memory:") => memory = true,
            Some(url) if url.strip_prefix("sqlite:").is_some_and(|file| !file.is_empty()) => {
                if !crate::kept::BUILT_IN {
                    reader.later(value.span(), "a store in a file", "feature `sqlite`");
                }
                file = url.strip_prefix("sqlite:").unwrap_or_default().into();
            }
            Some(url) if url.starts_with("postgres") => {
                reader.later(value.span(), "a store on PostgreSQL", "feature `postgres`");
            }
            Some(_) => reader.expected(value, expected),
            None => {}
        }
    }
    let mut secret = PathBuf::from(SECRET_FILE);
    if let Some(value) = table.get("secret_file") {
        if let Some(name) = reader.string(value, "a file name").filter(|name| !name.is_empty()) {
            secret = name.as_ref().into();
        } else {
            reader.expected(value, "a file name");
        }
    }
    match memory {
        true => StoreConfig::Memory,
        false => StoreConfig::Sqlite { path: file, secret: StoreSecret::File(secret) },
    }
}

/// The store's file in the state folder.
const FILE: &str = "endpoint.db";
/// The file of its secret beside it.
const SECRET_FILE: &str = "store.secret";

/// Where things are kept unless said otherwise.
pub(super) fn default_store() -> StoreConfig {
    StoreConfig::Sqlite { path: FILE.into(), secret: StoreSecret::File(SECRET_FILE.into()) }
}

/// Why no authority that the world trusts issues for this name, if none does.
pub(super) fn never_issued(name: &str, acme: &Acme) -> Option<String> {
    if name.starts_with("*.") {
        return Some(format!(
            "`{name}` is a wildcard: it needs the challenge dns-01, which this build lacks; name \
             the hosts one by one"
        ));
    }
    let public = |issuer: &AcmeIssuer| !matches!(issuer.directory, AcmeDirectory::Custom(_));
    let local = match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let last = name.rsplit('.').next().unwrap_or_default();
            !name.contains('.')
                || ["localhost", "local", "internal", "test", "invalid"].contains(&last)
        }
    };
    (local && acme.issuers.iter().any(public)).then(|| {
        format!(
            "no public authority issues for `{name}`: leave `certificate` out for a self-signed \
             one, or name your own authority in [acme] directory"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use endpoint_core::config::TlsIdentity;

    use super::*;
    use crate::config::Config;

    /// What is wrong with a file, a line for each fault.
    fn faults(text: &str) -> String {
        match Config::parse(text, Path::new("endpoint.toml")) {
            Ok(_) => String::new(),
            Err(fault) => {
                let all = fault.others.iter().chain([&fault]);
                all.map(|fault| format!("{}\n", fault.message)).collect()
            }
        }
    }

    /// What a build without the features says instead is tested where it stands.
    const BUILT_IN: bool = crate::acme::BUILT_IN && crate::kept::BUILT_IN;

    #[test]
    fn reads_authorities_proofs_and_places() {
        if !BUILT_IN {
            return;
        }
        let text = "[acme]\ndirectory = \"https://ca.example/dir\"\nca_root = \"ca.pem\"\n\
            contact = [\"mailto:a@example.com\"]\nchallenges = [\"http-01\"]\n\
            eab = { kid = \"k\", hmac_file = \"k.hmac\" }\nprofile = \"shortlived\"\n\
            key_type = \"p384\"\nengine = \"instant-acme\"\nrenew_before = \"2d\"\nstaging = \"letsencrypt-staging\"\n\
            [[acme.fallback]]\ndirectory = \"letsencrypt\"\n\
            [store]\nurl = \"sqlite:certs.db\"\nsecret_file = \"s\"\n\
            [[site]]\nnames = [\"a.example\", \"b.example\"]\ncertificate = \"auto\"\n";
        let config = Config::parse(text, Path::new("/etc/endpoint.toml")).unwrap();
        let first = AcmeIssuer {
            directory: AcmeDirectory::Custom("https://ca.example/dir".into()),
            contact: vec!["mailto:a@example.com".into()],
            ca_root: Some("/etc/ca.pem".into()),
            eab: Some(ExternalAccount { kid: "k".into(), hmac_file: "/etc/k.hmac".into() }),
            profile: Some("shortlived".into()),
            key_type: CertificateKey::P384,
            engine: Some(AcmeEngine::InstantAcme),
            staging: Some(AcmeDirectory::Staging),
        };
        assert_eq!(config.acme.issuers, [first, AcmeIssuer::default()]);
        assert_eq!(config.acme.challenges, [ChallengeKind::Http01]);
        assert_eq!(config.acme.renew_before, Some(Duration::from_secs(172_800)));
        let secret = StoreSecret::File("s".into());
        assert_eq!(config.store, StoreConfig::Sqlite { path: "certs.db".into(), secret });
        let Some(TlsIdentity::Acme(own)) = &config.sites.first().unwrap().certificate else {
            panic!("not by ACME")
        };
        assert_eq!(own.domains, ["a.example", "b.example"]);
        assert_eq!(own.issuers, config.acme.issuers);
    }

    #[test]
    fn refuses_what_no_authority_could_do() {
        let auto = |name: &str| format!("[[site]]\nnames = [\"{name}\"]\ncertificate = \"auto\"\n");
        let own = "[acme]\ndirectory = \"https://ca.example/dir\"\n";
        for name in ["localhost", "a.localhost", "printer", "a.internal", "127.0.0.1"] {
            assert!(faults(&auto(name)).contains("no public authority"), "{name}");
            let found = faults(&format!("{own}{}", auto(name)));
            assert!(found.is_empty() || !crate::acme::BUILT_IN, "{name}: {found}");
        }
        assert!(faults(&format!("{own}{}", auto("*.a.example"))).contains("dns-01"));
        assert_eq!(faults(&auto("a.example")).is_empty(), crate::acme::BUILT_IN);
        let table = [
            ("directory = \"http://ca.example\"", "is not safe"),
            ("directory = \"buypass\"", "expected \"letsencrypt\""),
            ("directory = \"zerossl\"", "wants an account"),
            ("contact = [\"admin@example.com\"]", "mailto:admin@example.com"),
            ("contact = [\"mailto:a@b.c,d@e.f\"]", "expected a URL"),
            ("challenges = []", "expected a list"),
            ("challenges = [\"dns-01\"]", "dns-01 is not in this build"),
            ("challenges = [\"http-01\", \"http-01\"]", "stands twice"),
            ("key_type = \"ed25519\"", "expected \"p256\""),
            ("engine = \"lego\"", "expected \"rustls-acme\""),
            ("renew_before = \"month\"", "expected a time"),
            ("eab = { kid = \"k\" }", "expected { kid"),
            ("fallback = [{ contact = [] }]", "lacks `directory`"),
            ("hmac = 1", "unknown field"),
        ];
        for (line, expected) in table {
            assert!(faults(&format!("[acme]\n{line}\n")).contains(expected), "{line}");
        }
        for (line, expected) in [
            ("url = \"postgres://x\"", "feature `postgres`"),
            ("url = \"endpoint.db\"", "expected \"sqlite:FILE\""),
            ("secret_file = \"\"", "expected a file name"),
        ] {
            assert!(faults(&format!("[store]\n{line}\n")).contains(expected), "{line}");
        }
    }
}
