//! Where does the certificate of a site come from? `certificate = …`
//!
//! Always true: what the file alone shows to be impossible is a fault here, with its place, and not at start.

use std::net::{IpAddr, SocketAddr};

use endpoint_core::{
    config::{Acme, Bundle, BundleLocation, Tailscale, TlsIdentity},
    identity::{KeyText, PublicKey},
};
use toml::de::{DeTable, DeValue};

use super::{
    acme,
    read::{Reader, Value},
};

/// What is shown under `names`, on the addresses of `listen`. The inner `None` is no certificate.
pub(super) fn certificate<'t>(
    reader: &mut Reader<'t>,
    value: &Value<'t>,
    names: &[String],
    listen: &[SocketAddr],
    acme: &Acme,
) -> Option<Option<TlsIdentity>> {
    match value.get_ref() {
        DeValue::String(text) => match text.as_ref() {
            "self-signed" => Some(Some(TlsIdentity::SelfSigned)),
            "auto" => Some(Some(auto(reader, value, names, acme))),
            "off" => Some(None),
            "tailscale" => Some(Some(tailscale(reader, value, names, Tailscale::default()))),
            _ => {
                reader.expected(value, EXPECTED);
                None
            }
        },
        DeValue::Table(table) if table.contains_key("tailscale") => {
            reader.names(table, " in certificate", &["tailscale"], &[]);
            let socket = reader.string(table.get("tailscale")?, "the socket of tailscaled")?;
            let config = Tailscale { socket: reader.path(&socket) };
            Some(Some(tailscale(reader, value, names, config)))
        }
        DeValue::Table(table) if table.contains_key("bundle") => {
            bundle(reader, value, table, listen).map(Some)
        }
        DeValue::Table(table) => {
            reader.names(table, " in certificate", &["cert", "key"], &[]);
            let (Some(cert), Some(key)) = (table.get("cert"), table.get("key")) else {
                reader.expected(value, EXPECTED);
                return None;
            };
            let cert = reader.string(cert, "a file name")?;
            let key = reader.string(key, "a file name")?;
            Some(Some(TlsIdentity::X509 { cert: reader.path(&cert), key: reader.path(&key) }))
        }
        _ => {
            reader.expected(value, EXPECTED);
            None
        }
    }
}

/// Certificates by ACME, one for each name. The store's place is filled in when the state folder is known.
fn auto<'t>(
    reader: &mut Reader<'t>,
    value: &Value<'t>,
    names: &[String],
    common: &Acme,
) -> TlsIdentity {
    if !crate::acme::BUILT_IN {
        reader.later(value.span(), "certificate = \"auto\"", "feature `acme`");
    }
    for fault in names.iter().filter_map(|name| acme::never_issued(name, common)) {
        reader.fault(value.span(), fault, "this value");
    }
    let mut own = common.clone();
    own.domains = names.to_vec();
    TlsIdentity::Acme(own)
}

/// The certificate of the one name of a tailnet.
fn tailscale<'t>(
    reader: &mut Reader<'t>,
    value: &Value<'t>,
    names: &[String],
    config: Tailscale,
) -> TlsIdentity {
    needs_client(reader, value, "certificate = \"tailscale\"");
    match names {
        // The names have faults of their own.
        [] => {}
        [name] if name.starts_with("*.") || name.parse::<IpAddr>().is_ok() => {
            let message = format!(
                "tailscaled has no certificate for `{name}`; give the machine's own name, which \
                 `tailscale status --json` lists under CertDomains"
            );
            reader.fault(value.span(), message, "this value");
        }
        [_] => {}
        names => {
            let message = format!(
                "a certificate of tailscaled is for one name, and this site has {}; make a [[site]] for each",
                names.len()
            );
            reader.fault(value.span(), message, "this value");
        }
    }
    TlsIdentity::Tailscale(config)
}

/// A certificate that others have too.
fn bundle<'t>(
    reader: &mut Reader<'t>,
    value: &Value<'t>,
    table: &DeTable<'t>,
    listen: &[SocketAddr],
) -> Option<TlsIdentity> {
    reader.names(table, " in certificate", &["bundle", "signer"], &[]);
    if let Some(address) = listen.iter().find(|address| !is_loopback(address)) {
        let message = format!(
            "the key of a bundle is in many hands, so it may be served on loopback only, and {address} in \
             `listen` is not; listen on 127.0.0.1 and [::1], or give the site another certificate"
        );
        reader.fault(value.span(), message, "this bundle");
    }
    let (Some(place), Some(signer)) = (table.get("bundle"), table.get("signer")) else {
        reader.fault(
            value.span(),
            "a bundle lacks `signer`: the ed25519: key that signs it",
            "here",
        );
        return None;
    };
    let location = reader.parsed(place, "a file name or an https:// URL", location);
    let signer = reader.parsed(signer, "a key such as \"ed25519:…\"", signing_key);
    let location = match location? {
        BundleLocation::File(file) => BundleLocation::File(reader.path(&file.to_string_lossy())),
        url => {
            needs_client(reader, place, "a bundle behind a URL");
            url
        }
    };
    Some(TlsIdentity::Bundle(Bundle { location, signer: signer? }))
}

fn location(text: &str) -> Result<BundleLocation, String> {
    match BundleLocation::from_text(text) {
        BundleLocation::File(file) if file.as_os_str().is_empty() => {
            Err("expected a file name or an https:// URL".to_owned())
        }
        BundleLocation::Url(url) if !url.starts_with("https://") => Err(format!(
            "`{}` is no place for a bundle: give a file name, or a URL that begins with https://",
            url.escape_debug()
        )),
        location => Ok(location),
    }
}

fn signing_key(text: &str) -> Result<PublicKey, String> {
    let key = KeyText::parse(text).map_err(|error| error.to_string())?;
    key.public_key().ok_or_else(|| {
        "expected an Ed25519 key, found only a fingerprint; `endpoint key show` prints both"
            .to_owned()
    })
}

/// As the library sees it when it binds.
fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Notes what this build has nobody to ask for.
fn needs_client<'t>(reader: &mut Reader<'t>, value: &Value<'t>, what: &str) {
    if !crate::acme::BUILT_IN && !crate::web::BUILT_IN {
        reader.later(value.span(), what, "feature `http3` or `acme`, which bring an HTTP client");
    }
}

const EXPECTED: &str = "\"auto\", \"self-signed\", \"tailscale\", \"off\", { cert = \"FILE\", key = \"FILE\" } or \
                        { bundle = \"FILE or URL\", signer = \"ed25519:…\" }";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const SIGNER: &str = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn read(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/endpoint/endpoint.toml")).map_err(|sum| {
            match &sum.others[..] {
                [] => sum.to_string(),
                others => others.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            }
        })
    }

    fn site(certificate: &str) -> String {
        format!("[[site]]\nnames = [\"a.example\"]\ncertificate = {certificate}\n")
    }

    fn found(certificate: &str) -> TlsIdentity {
        read(&site(certificate)).unwrap().sites.remove(0).certificate.unwrap()
    }

    #[test]
    fn takes_bundles_by_file_and_by_url() {
        if crate::web::BUILT_IN {
            let url = format!("{{ bundle = \"https://b.example/x\", signer = \"{SIGNER}\" }}");
            let TlsIdentity::Bundle(bundle) = found(&url) else { panic!() };
            assert_eq!(bundle.location, BundleLocation::Url("https://b.example/x".into()));
        }
        let file = format!("{{ bundle = \"x.bundle\", signer = \"{SIGNER}\" }}");
        let TlsIdentity::Bundle(bundle) = found(&file) else { panic!() };
        assert_eq!(bundle.location, BundleLocation::File("/etc/endpoint/x.bundle".into()));
        assert_eq!(bundle.signer.to_string(), SIGNER);
    }

    #[test]
    fn takes_tailscaled_with_and_without_its_socket() {
        if !crate::web::BUILT_IN && !crate::acme::BUILT_IN {
            assert!(
                read(&site("\"tailscale\"")).unwrap_err().contains("feature `http3` or `acme`")
            );
            return;
        }
        assert_eq!(found("\"tailscale\""), TlsIdentity::Tailscale(Tailscale::default()));
        let own = Tailscale { socket: "/run/other.sock".into() };
        let named = "{ tailscale = \"/run/other.sock\" }";
        assert_eq!(found(named), TlsIdentity::Tailscale(own));
    }

    #[test]
    fn refuses_what_can_never_be_served_with_the_reason() {
        let print = format!("sha256:{}", "0".repeat(64));
        let table = [
            ("{ bundle = \"x\" }".to_owned(), "a bundle lacks `signer`"),
            (format!("{{ bundle = \"x\", signer = \"{print}\" }}"), "found only a fingerprint"),
            (
                format!("{{ bundle = \"http://a/b\", signer = \"{SIGNER}\" }}"),
                "begins with https://",
            ),
            (format!("{{ bundle = \"\", signer = \"{SIGNER}\" }}"), "expected a file name"),
            (
                format!("{{ bundle = \"x\", signer = \"{SIGNER}\", more = 1 }}"),
                "unknown field `more`",
            ),
            ("{ tailscale = 5 }".to_owned(), "expected the socket"),
        ];
        for (certificate, says) in table {
            let said = read(&site(&certificate)).unwrap_err();
            assert!(said.contains(says), "{certificate}: {said}");
        }
        let two = "[[site]]\nnames = [\"a.example\", \"b.example\"]\ncertificate = \"tailscale\"\n";
        assert!(read(two).unwrap_err().contains("this site has 2"));
        let wild = "[[site]]\nnames = [\"*.example\"]\ncertificate = \"tailscale\"\n";
        assert!(read(wild).unwrap_err().contains("no certificate for `*.example`"));
    }

    #[test]
    fn refuses_a_bundle_beyond_loopback() {
        let bundle = site(&format!("{{ bundle = \"x\", signer = \"{SIGNER}\" }}"));
        for listen in ["0.0.0.0:443", "[::]:443", "192.0.2.1:443", "[::ffff:192.0.2.1]:443"] {
            let text = format!("listen = [\"127.0.0.1:443\", \"{listen}\"]\n{bundle}");
            let said = read(&text).unwrap_err();
            assert!(said.contains(listen) && said.contains("loopback only"), "{said}");
        }
        let loopback = format!("listen = [\"127.0.0.2:443\", \"[::1]:443\"]\n{bundle}");
        assert!(read(&loopback).is_ok());
    }
}
