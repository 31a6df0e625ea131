//! What does a handshake answer an authority that validates a name?
//!
//! The certificate of TLS-ALPN-01 (RFC 8737 §3), made from the name and the key authorization alone, so
//! that any process that shares the store can answer.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};

/// The certificate that proves control of `name`, a DNS name or an IP address.
///
/// # Errors
/// A sentence, if the name cannot stand in a certificate.
pub(crate) fn certificate(
    name: &str,
    key_authorization: &str,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let made = |why: rcgen::Error| format!("no challenge certificate can be made: {why}");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The one name and no other (RFC 8737 §3); for an address, it (RFC 8738 §6).
    params.subject_alt_names = vec![match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => {
            let shown = name.escape_debug().take(64).collect::<String>();
            let name = name.try_into();
            SanType::DnsName(name.map_err(|_| format!("`{shown}` cannot stand in a certificate"))?)
        }
    }];
    let digest = Sha256::digest(key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let certificate = params.self_signed(&key).map_err(made)?;
    let secret = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let secret = provider.key_provider.load_private_key(secret).map_err(|why| why.to_string())?;
    // Unchecked: rustls' own check refuses the critical extension, which it does not know.
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], secret)))
}

/// The server name under which an authority asks for the proof of `name`: for an address, its
/// reverse name (RFC 8738 §6).
pub(crate) fn server_name(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => reverse(address),
        Err(_) => name.to_owned(),
    }
}

fn reverse(address: Ipv6Addr) -> String {
    let bytes = address.octets();
    let digits = bytes.iter().rev().flat_map(|byte| [byte & 0xf, byte >> 4]);
    digits.map(|digit| format!("{digit:x}.")).collect::<String>() + "ip6.arpa"
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    /// The DER of the extension: its OID, `critical`, and the digest in two octet strings.
    fn extension(key_authorization: &str) -> Vec<u8> {
        let oid = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f];
        let critical = [0x01, 0x01, 0xff];
        let strings = [0x04, 0x22, 0x04, 0x20];
        let digest = Sha256::digest(key_authorization.as_bytes());
        [&oid[..], &critical, &strings, &digest].concat()
    }

    fn holds(certificate: &[u8], part: &[u8]) -> bool {
        certificate.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn names_exactly_the_one_name_and_carries_the_critical_digest() {
        for (name, san) in [
            // SEQUENCE of one dNSName (tag 2) or iPAddress (tag 7).
            ("a.example", [&[0x30, 0x0b, 0x82, 0x09][..], b"a.example"].concat()),
            ("192.0.2.1", vec![0x30, 0x06, 0x87, 0x04, 192, 0, 2, 1]),
        ] {
            let made = certificate(name, "token.print", &default_provider()).unwrap();
            let leaf = made.end_entity_cert().unwrap();
            assert!(holds(leaf, &extension("token.print")), "{name}");
            assert!(!holds(leaf, &extension("token.other")), "{name}");
            assert!(holds(leaf, &san), "{name}");
        }
        assert!(certificate("bücher.example", "t.p", &default_provider()).is_err());
    }

    #[test]
    fn an_address_is_asked_for_by_its_reverse_name() {
        assert_eq!(server_name("a.example"), "a.example");
        assert_eq!(server_name("127.0.0.1"), "1.0.0.127.in-addr.arpa");
        let reversed = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(server_name("2001:db8::1"), reversed);
    }
}
