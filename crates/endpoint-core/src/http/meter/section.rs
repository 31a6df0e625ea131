//! Do the pseudo-header fields of a request stand where, and as often as, they may? (RFC 9114 §4.3)
//!
//! h3 takes the last of several and looks at no order. Without a dynamic table a section says its names in
//! the open (RFC 9204 §4.5), so they are followed byte by byte and nothing is kept.
//!
//! Always true: what cannot be followed is left to h3, which refuses it.

/// Bytes of the longest name that matters.
const NAME_BYTES: usize = 10;

/// Follows one field section.
#[derive(Debug)]
pub(super) struct Section {
    /// Trailers have no pseudo-header fields (RFC 9114 §4.3).
    trailers: bool,
    at: At,
    /// One bit for each pseudo-header field that stood.
    seen: u8,
    regular: bool,
    malformed: bool,
}

/// What an integer with a prefix says (RFC 9204 §4.1.1).
#[derive(Clone, Copy, Debug)]
enum Number {
    InsertCount,
    Base,
    /// Of a static line, value included.
    Line,
    /// Of a static name, before a value.
    Name,
    NameLength {
        huffman: bool,
    },
    ValueLength,
}

#[derive(Debug)]
enum At {
    /// Before a number with a prefix of eight bits, or of seven.
    Begin(Number),
    /// Within a number.
    Continued {
        number: Number,
        value: u64,
        shift: u32,
    },
    Line,
    Name {
        huffman: bool,
        left: u64,
        kept: [u8; NAME_BYTES],
        length: usize,
    },
    Value {
        left: u64,
    },
    /// Refers to a dynamic table, which does not exist.
    Lost,
}

/// Pseudo-header fields, plain and by the code of RFC 7541, appendix B.
const PSEUDO: [(&[u8], &[u8]); 6] = [
    (b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]),
    (b":path", &[0xb9, 0x58, 0xd3, 0x3f]),
    (b":method", &[0xb9, 0x49, 0x53, 0x39, 0xe4]),
    (b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]),
    (b":status", &[0xb8, 0x84, 0x8d, 0x36, 0xa3]),
    (b":protocol", &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f]),
];
const STATUS: usize = 4;
const PROTOCOL: usize = 5;

impl Section {
    pub(super) fn new(trailers: bool) -> Self {
        let at = At::Begin(Number::InsertCount);
        Self { trailers, at, seen: 0, regular: false, malformed: false }
    }

    pub(super) fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Takes the next bytes of the section.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Lost => return,
                At::Value { left } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = At::Line;
                    }
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                At::Name { huffman, left, kept, length } => {
                    if let Some(slot) = kept.get_mut(*length) {
                        *slot = byte;
                    }
                    *length = length.saturating_add(1);
                    *left -= 1;
                    bytes = rest;
                    if *left == 0 {
                        let name = kept.get(..*length);
                        let which = name.and_then(|name| named(name, *huffman));
                        self.field(which);
                        self.at = At::Begin(Number::ValueLength);
                    }
                }
                At::Begin(number) => {
                    let number = *number;
                    let bits = if matches!(number, Number::InsertCount) { 8 } else { 7 };
                    self.number(number, byte, bits);
                    bytes = rest;
                }
                At::Continued { number, value, shift } => {
                    let (number, shift) = (*number, *shift);
                    // No length or index that h3 takes has more.
                    let Some(more) = u64::from(byte & 0x7f).checked_shl(shift) else {
                        return self.lose();
                    };
                    let value = value.saturating_add(more);
                    match byte & 0x80 {
                        0 => self.counted(number, value),
                        _ if shift >= 56 => self.lose(),
                        _ => self.at = At::Continued { number, value, shift: shift + 7 },
                    }
                    bytes = rest;
                }
                At::Line => {
                    self.line(byte);
                    bytes = rest;
                }
            }
        }
    }

    /// The first byte of a field line (RFC 9204 §4.5.2 to §4.5.6).
    fn line(&mut self, byte: u8) {
        match byte {
            0b1100_0000.. => self.number(Number::Line, byte, 6),
            0b0100_0000..=0b0111_1111 if byte & 0b0001_0000 != 0 => {
                self.number(Number::Name, byte, 4);
            }
            0b0010_0000..=0b0011_1111 => {
                self.number(Number::NameLength { huffman: byte & 0b1000 != 0 }, byte, 3);
            }
            _ => self.lose(),
        }
    }

    fn number(&mut self, number: Number, byte: u8, bits: u32) {
        let most = u8::MAX >> (8 - bits);
        match byte & most {
            value if value < most => self.counted(number, value.into()),
            value => self.at = At::Continued { number, value: value.into(), shift: 0 },
        }
    }

    fn counted(&mut self, number: Number, value: u64) {
        self.at = match number {
            Number::InsertCount if value != 0 => At::Lost,
            Number::InsertCount => At::Begin(Number::Base),
            Number::Base => At::Line,
            Number::Line => {
                self.field(indexed(value));
                At::Line
            }
            Number::Name => {
                self.field(indexed(value));
                At::Begin(Number::ValueLength)
            }
            // A name of no bytes is none: h3 refuses it.
            Number::NameLength { .. } if value == 0 => At::Lost,
            Number::NameLength { huffman } => {
                At::Name { huffman, left: value, kept: [0; NAME_BYTES], length: 0 }
            }
            Number::ValueLength if value == 0 => At::Line,
            Number::ValueLength => At::Value { left: value },
        };
    }

    fn lose(&mut self) {
        self.at = At::Lost;
    }

    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
    //# All pseudo-header fields MUST appear in the header section before regular header fields. Any request
    //# or response that contains a pseudo-header field that appears in a header section after a regular
    //# header field MUST be treated as malformed.
    fn field(&mut self, pseudo: Option<usize>) {
        let Some(which) = pseudo else {
            self.regular = true;
            return;
        };
        let bit = 1_u8 << which;
        // §4.3.1: each once; and those of answers and of extended CONNECT have no place here.
        self.malformed |= self.trailers
            || self.regular
            || self.seen & bit != 0
            || matches!(which, STATUS | PROTOCOL);
        self.seen |= bit;
    }
}

fn named(name: &[u8], huffman: bool) -> Option<usize> {
    PSEUDO.iter().position(|(plain, coded)| name == if huffman { *coded } else { *plain })
}

/// The static table (RFC 9204, appendix A).
fn indexed(index: u64) -> Option<usize> {
    match index {
        0 => Some(0),
        1 => Some(1),
        15..=21 => Some(2),
        22 | 23 => Some(3),
        24..=28 | 63..=71 => Some(STATUS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(trailers: bool, lines: &[&[u8]]) -> bool {
        let bytes = [&[0, 0][..], &lines.concat()].concat();
        let mut whole = Section::new(trailers);
        whole.feed(&bytes);
        let mut split = Section::new(trailers);
        bytes.iter().for_each(|byte| split.feed(&[*byte]));
        assert_eq!(whole.is_malformed(), split.is_malformed(), "split at every byte");
        whole.is_malformed()
    }

    /// A literal name and a value of one byte.
    fn literal(name: &[u8], huffman: bool) -> Vec<u8> {
        let mut line = vec![0x27 | u8::from(huffman) << 3];
        match u8::try_from(name.len()).unwrap() {
            short @ 0..7 => line[0] = 0x20 | u8::from(huffman) << 3 | short,
            long => line.push(long - 7),
        }
        line.extend_from_slice(name);
        line.extend_from_slice(&[1, b'v']);
        line
    }

    #[test]
    fn finds_pseudo_headers_however_they_are_encoded() {
        let get: &[u8] = &[0xc0 | 17];
        let path_value: &[u8] = &[0x51, 2, b'/', b'x'];
        let accept: &[u8] = &[0xc0 | 29];
        // Line 73, access-control-allow-credentials.
        let far: &[u8] = &[0xff, 10];
        for (plain, coded) in PSEUDO {
            for line in [literal(plain, false), literal(coded, true)] {
                assert!(malformed(false, &[&line, &line]), "{plain:?} twice");
                assert!(malformed(false, &[accept, &line]), "{plain:?} after a field");
                assert!(malformed(true, &[&line]), "{plain:?} in trailers");
                let foreign = matches!(plain, b":status" | b":protocol");
                assert_eq!(malformed(false, &[&line, accept]), foreign, "{plain:?}");
            }
        }
        assert!(!malformed(false, &[get, path_value, accept, far]));
        assert!(malformed(false, &[get, get]));
        assert!(malformed(false, &[path_value, get, path_value]));
        assert!(malformed(false, &[far, get]));
        assert!(malformed(false, &[get, &[0xff, 0]]), "status 100 is line 63");
        assert!(!malformed(false, &[get, &literal(b":pathological", false)]), "h3 refuses it");
        assert!(!malformed(true, &[accept, &literal(b"x-sum", false)]));
    }

    #[test]
    fn leaves_to_h3_what_it_cannot_follow() {
        let get: &[u8] = &[0xc0 | 17];
        for line in [&[0x80][..], &[0x40, 1], &[0x10], &[0x00], &[0x20], &[0xff; 12]] {
            assert!(!malformed(false, &[line, get, get]), "{line:?}");
        }
        let mut section = Section::new(false);
        section.feed(&[2, 0, 0xc0 | 17, 0xc0 | 17]);
        assert!(!section.is_malformed());
    }
}
