//! What stands in this DER? The few elements that key files are made of (X.690 §8, §10).

/// A reader of consecutive elements.
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element if its tag is `tag`; its length must be in the shortest form.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => {
                let (length, rest) = rest.split_first()?;
                (usize::from(*length).checked_sub(0x80)? + 0x80, rest)
            }
            0x82 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                let length = usize::from(u16::from_be_bytes(*length));
                (length.checked_sub(0x100)? + 0x100, rest)
            }
            _ => return None,
        };
        if *found != tag {
            return None;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// Whether every element was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The kind of key in `der`, a `SubjectPublicKeyInfo` or PKCS#8 `PrivateKeyInfo`, if it is a known one.
pub(super) fn key_type(der: &[u8]) -> Option<&'static str> {
    let mut outer = Der(der);
    let mut inside = Der(outer.take(SEQUENCE)?);
    let _version = inside.take(INTEGER);
    let mut algorithm = Der(inside.take(SEQUENCE)?);
    Some(match algorithm.take(OBJECT_IDENTIFIER)? {
        OID_ED25519 => "Ed25519",
        [0x2b, 0x65, 0x6e] => "X25519",
        [0x2b, 0x65, 0x6f] => "X448",
        [0x2b, 0x65, 0x71] => "Ed448",
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01] => "ECDSA",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, _] => "RSA",
        _ => return None,
    })
}

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// 1.3.101.112 (RFC 8410 §3).
pub(super) const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
