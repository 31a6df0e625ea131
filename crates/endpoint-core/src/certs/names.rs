//! Which names does a certificate say that it is for?
//!
//! Reads the subject alternative names (RFC 5280 §4.2.1.6) out of a certificate of our own, for importing it
//! under each of them. Whether it is valid for a name is asked of rustls, not of this.

use std::net::IpAddr;

use super::validity::{field, take};

/// The DNS names, lower case, and IP addresses of a certificate in DER; none if it has not the form of one.
pub(crate) fn of(certificate: &[u8]) -> Vec<String> {
    extensions(certificate).and_then(alternative_names).unwrap_or_default()
}

/// The content of the list of extensions.
fn extensions(certificate: &[u8]) -> Option<&[u8]> {
    let (mut certificate, _) = field(certificate, SEQUENCE)?;
    let mut body = take(&mut certificate, SEQUENCE)?;
    while !body.is_empty() {
        let tag = *body.first()?;
        let content = take(&mut body, tag)?;
        if tag == EXTENSIONS {
            return field(content, SEQUENCE).map(|(list, _)| list);
        }
    }
    None
}

fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    while !extensions.is_empty() {
        let mut extension = take(&mut extensions, SEQUENCE)?;
        if take(&mut extension, OBJECT_ID)? != SUBJECT_ALT_NAME {
            continue;
        }
        let _critical = take(&mut extension, BOOLEAN);
        let (mut names, _) = field(take(&mut extension, OCTET_STRING)?, SEQUENCE)?;
        let mut found = Vec::new();
        while !names.is_empty() {
            let tag = *names.first()?;
            let content = take(&mut names, tag)?;
            match tag {
                // Nobody asks for another one, and it would go to terminals and logs.
                DNS_NAME if !content.iter().all(u8::is_ascii_graphic) => {}
                DNS_NAME => found.push(std::str::from_utf8(content).ok()?.to_ascii_lowercase()),
                IP_ADDRESS => found.push(address(content)?.to_string()),
                _ => {}
            }
        }
        return Some(found);
    }
    None
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Vec<u8> {
        let names = ["A.example", "*.b.example", "192.0.2.1", "2001:db8::1"];
        let params = rcgen::CertificateParams::new(names.map(str::to_owned)).unwrap();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_dns_names_and_addresses() {
        assert_eq!(of(&made()), ["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"]);
        let plain = rcgen::CertificateParams::default();
        let plain = plain.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert!(of(plain.der()).is_empty());
    }

    #[test]
    fn tells_no_name_that_could_move_a_cursor() {
        let mut params = rcgen::CertificateParams::default();
        let name = |text: &str| rcgen::SanType::DnsName(text.try_into().unwrap());
        params.subject_alt_names =
            vec![name("\u{1b}[2Ja.example"), name("b.example"), name("c\nd")];
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(of(made.der()), ["b.example"]);
    }

    #[test]
    fn survives_every_cut_and_every_flipped_byte() {
        let good = made();
        for at in 0..good.len() {
            let _ = of(&good[..at]);
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = of(&bad);
            }
        }
    }
}
