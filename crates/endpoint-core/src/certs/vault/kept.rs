//! How does a certificate stand in a record of the store?
//!
//! Four bytes that name the form, the facts as JSON, the key as PKCS#8, the chain as DER; each with its
//! length before it. The key stands beside the JSON and not in it, so that no parser copies it.
//!
//! Always true: what is read is whole: no byte is missing and none is left over.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Where a certificate came from, beside what stands in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origin {
    /// `acme`, `import`, `bundle` or `tailscale`.
    pub source: String,
    /// The directory of the authority, if one was asked.
    pub issuer: Option<String>,
    /// What spoke to it: `rustls-acme` or `instant-acme`.
    pub engine: Option<String>,
}

/// A certificate as it is kept.
pub(crate) struct Kept {
    pub(crate) names: Vec<String>,
    pub(crate) origin: Origin,
    pub(crate) issued: Timestamp,
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8; wiped when dropped.
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("names", &self.names).finish_non_exhaustive()
    }
}

#[derive(Deserialize, Serialize)]
struct Facts {
    names: Vec<String>,
    source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    /// Seconds since 1970.
    issued: i64,
}

impl Kept {
    pub(crate) fn write(&self) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let facts = serde_json::to_vec(&Facts {
            names: self.names.clone(),
            source: self.origin.source.clone(),
            issuer: self.origin.issuer.clone(),
            engine: self.origin.engine.clone(),
            issued: self.issued.as_second(),
        })
        .map_err(|_| "its facts cannot be written")?;
        let parts = [facts.as_slice(), self.key.as_slice()];
        let parts = || parts.into_iter().chain(self.chain.iter().map(AsRef::as_ref));
        // Room for all of it at once: a vector that grows leaves copies of the key behind.
        let length = FORM.len() + parts().map(|part| 4 + part.len()).sum::<usize>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend_from_slice(FORM);
        for part in parts() {
            let length = u32::try_from(part.len()).map_err(|_| "it is too long")?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = bytes
            .strip_prefix(FORM)
            .ok_or("its form is unknown; a newer release may have written it")?;
        let facts: Facts =
            serde_json::from_slice(part(&mut rest)?).map_err(|_| "its facts cannot be read")?;
        let key = Zeroizing::new(part(&mut rest)?.to_vec());
        let mut chain = Vec::new();
        while !rest.is_empty() {
            chain.push(CertificateDer::from(part(&mut rest)?.to_vec()));
        }
        let issued =
            Timestamp::from_second(facts.issued).map_err(|_| "its time is out of range")?;
        let origin = Origin { source: facts.source, issuer: facts.issuer, engine: facts.engine };
        Ok(Self { names: facts.names, origin, issued, chain, key })
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let cut = "it was cut off";
    let (length, after) = rest.split_first_chunk::<4>().ok_or(cut)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut)?;
    let (part, after) = after.split_at_checked(length).ok_or(cut)?;
    *rest = after;
    Ok(part)
}

/// The first form; another is another letter.
const FORM: &[u8] = b"crt1";

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept {
            names: vec!["a.example".into()],
            origin: Origin {
                source: "acme".into(),
                issuer: Some("https://ca".into()),
                engine: None,
            },
            issued: "2026-11-22T12:00:00Z".parse().unwrap(),
            chain: vec![CertificateDer::from(vec![1, 2, 3]), CertificateDer::from(vec![4])],
            key: Zeroizing::new(vec![7; 9]),
        }
    }

    #[test]
    fn reads_what_was_written() {
        let (kept, read) = (kept(), Kept::read(&kept().write().unwrap()).unwrap());
        assert_eq!(read.names, kept.names);
        assert_eq!(read.origin, kept.origin);
        assert_eq!(read.issued, kept.issued);
        assert_eq!(read.chain, kept.chain);
        assert_eq!(*read.key, *kept.key);
    }

    #[test]
    fn survives_every_cut_and_every_flipped_byte() {
        let good = kept().write().unwrap();
        let whole = |bytes: &[u8]| Kept::read(bytes).is_ok_and(|kept| kept.chain.len() == 2);
        for at in 0..good.len() {
            assert!(!whole(&good[..at]), "cut at {at}");
            for value in [0, 0x7f, 0xff] {
                let mut bad = good.to_vec();
                bad[at] = value;
                let _ = Kept::read(&bad);
            }
        }
        let mut more = good.to_vec();
        more.push(0);
        assert!(Kept::read(&more).is_err());
    }
}
