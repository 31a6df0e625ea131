//! How are the fields of an answer written? QPACK with its static table alone (RFC 9204 §4.5, appendix A).
//!
//! Pure. Nothing refers to a dynamic table, so a section can be read as soon as it is there. Values are
//! written as they are, without Huffman: a few bytes more for less work.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::check;

/// Bytes kept free before a section for the header of its frame: the type and a length of up to 4 bytes.
const HEADER_BYTES: usize = 5;
/// What each field counts for besides its text (RFC 9114 §4.2.2).
const FIELD_OVERHEAD_BYTES: u64 = 32;
/// Room that the fields of most answers fit in.
const USUAL_BYTES: usize = 256;
const HEADERS: u8 = 0x01;
const STATUS: u8 = 24;

/// A HEADERS frame that is being written.
#[derive(Debug)]
pub(super) struct Section {
    /// The frame so far; [`HEADER_BYTES`] come before the section.
    bytes: Vec<u8>,
    /// Its size as a peer's SETTINGS_MAX_FIELD_SECTION_SIZE counts.
    size: u64,
}

impl Section {
    /// The fields of an answer. Those that speak of a connection have no place here (RFC 9114 §4.2).
    pub(super) fn answer(status: StatusCode, fields: &HeaderMap) -> Self {
        let mut section = Self::empty();
        section.status(status);
        for (name, value) in fields {
            if !check::of_a_connection(name) {
                section.field(name.as_str(), value);
            }
        }
        section
    }

    /// The fields after a body.
    pub(super) fn trailers(fields: &HeaderMap) -> Self {
        let mut section = Self::empty();
        for (name, value) in fields {
            section.field(name.as_str(), value);
        }
        section
    }

    fn empty() -> Self {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        // No entry of a dynamic table is required, and the base is 0 (RFC 9204 §4.5.1).
        bytes.resize(HEADER_BYTES + 2, 0);
        Self { bytes, size: 0 }
    }

    fn status(&mut self, status: StatusCode) {
        self.count(":status".len(), 3);
        let index = match status.as_u16() {
            103 => 24,
            200 => 25,
            304 => 26,
            404 => 27,
            503 => 28,
            100 => 63,
            204 => 64,
            206 => 65,
            302 => 66,
            400 => 67,
            403 => 68,
            421 => 69,
            425 => 70,
            500 => 71,
            _ => {
                self.literal(Some(STATUS), ":status", status.as_str().as_bytes(), false);
                return;
            }
        };
        self.integer(0b1100_0000, 6, index);
    }

    /// A field line (RFC 9204 §4.5).
    pub(super) fn field(&mut self, name: &str, value: &HeaderValue) {
        let bytes = value.as_bytes();
        self.count(name.len(), bytes.len());
        let (named, values) = known(name);
        match values.iter().find(|(known, _)| known.as_bytes() == bytes) {
            Some((_, index)) => self.integer(0b1100_0000, 6, (*index).into()),
            None => self.literal(named, name, bytes, value.is_sensitive()),
        }
    }

    /// A field whose value is a number.
    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.field(name, &number.into());
    }

    fn count(&mut self, name: usize, value: usize) {
        self.size += name as u64 + value as u64 + FIELD_OVERHEAD_BYTES;
    }

    /// A literal with the name out of the table (§4.5.4), or without (§4.5.6). A sensitive one is never to
    /// be put into a table.
    fn literal(&mut self, named: Option<u8>, name: &str, value: &[u8], sensitive: bool) {
        match named {
            Some(index) => {
                let never = if sensitive { 0b0010_0000 } else { 0 };
                self.integer(0b0101_0000 | never, 4, index.into());
            }
            None => {
                let never = if sensitive { 0b0001_0000 } else { 0 };
                self.integer(0b0010_0000 | never, 3, name.len());
                self.bytes.extend_from_slice(name.as_bytes());
            }
        }
        self.integer(0, 7, value.len());
        self.bytes.extend_from_slice(value);
    }

    /// An integer with a prefix of `bits` bits (RFC 7541 §5.1).
    fn integer(&mut self, first: u8, bits: u32, value: usize) {
        let most = (1_usize << bits) - 1;
        if value < most {
            self.bytes.push(first | value.to_le_bytes()[0]);
            return;
        }
        self.bytes.push(first | most.to_le_bytes()[0]);
        let mut left = value - most;
        while left >= 0x80 {
            self.bytes.push(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        self.bytes.push(left.to_le_bytes()[0]);
    }

    /// The size that a peer's SETTINGS_MAX_FIELD_SECTION_SIZE bounds (RFC 9114 §4.2.2).
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The frame, followed by `data` if there is any: the header of its DATA frame, and itself if it is
    /// short. Gives what is left to send of it.
    pub(super) fn finish(mut self, data: Option<Bytes>) -> (Bytes, Option<Bytes>) {
        let section = self.bytes.len() - HEADER_BYTES;
        // Always in 4 bytes: a QUIC integer need not be the shortest (RFC 9000 §16).
        let length = u32::try_from(section).unwrap_or(u32::MAX).min(u32::MAX >> 2) | 0b10 << 30;
        if let Some((header, _)) = self.bytes.split_first_chunk_mut::<HEADER_BYTES>() {
            let [a, b, c, d] = length.to_be_bytes();
            *header = [HEADERS, a, b, c, d];
        }
        let mut rest = None;
        if let Some(data) = data {
            let (header, used) = data_header(data.len());
            self.bytes.extend_from_slice(header.get(..used).unwrap_or_default());
            match data.len() <= COPIED_BYTES {
                true => self.bytes.extend_from_slice(&data),
                false => rest = Some(data),
            }
        }
        (self.bytes.into(), rest)
    }
}

/// A body up to here goes into one piece with its header fields.
const COPIED_BYTES: usize = 1024;

/// The header of a DATA frame (RFC 9114 §7.2.1), and how many of the bytes it is.
pub(super) fn data_header(length: usize) -> ([u8; 9], usize) {
    let length = length as u64;
    let (code, used): (u64, usize) = match length {
        0..=0x3f => (length << 56, 1),
        0x40..=0x3fff => (length << 48 | 0b01 << 62, 2),
        0x4000..=0x3fff_ffff => (length << 32 | 0b10 << 62, 4),
        _ => (length | 0b11 << 62, 8),
    };
    let [a, b, c, d, e, f, g, h] = code.to_be_bytes();
    ([0, a, b, c, d, e, f, g, h], used + 1)
}

type Values = &'static [(&'static str, u8)];

/// What the static table has for a name: an index, and values with theirs.
fn known(name: &str) -> (Option<u8>, Values) {
    let (index, values): (u8, Values) = match name {
        "accept-ranges" => (32, &[("bytes", 32)]),
        "access-control-allow-credentials" => (73, &[]),
        "access-control-allow-headers" => (33, &[("*", 75)]),
        "access-control-allow-methods" => (76, &[]),
        "access-control-allow-origin" => (35, &[("*", 35)]),
        "access-control-expose-headers" => (79, &[]),
        "age" => (2, &[("0", 2)]),
        "alt-svc" => (83, &[]),
        "cache-control" => (
            36,
            &[
                ("max-age=0", 36),
                ("max-age=2592000", 37),
                ("max-age=604800", 38),
                ("no-cache", 39),
                ("no-store", 40),
                ("public, max-age=31536000", 41),
            ],
        ),
        "content-disposition" => (3, &[]),
        "content-encoding" => (42, &[("br", 42), ("gzip", 43)]),
        "content-length" => (4, &[("0", 4)]),
        "content-security-policy" => (85, &[]),
        "content-type" => (
            44,
            &[
                ("application/javascript", 45),
                ("application/json", 46),
                ("image/gif", 48),
                ("image/jpeg", 49),
                ("image/png", 50),
                ("text/css", 51),
                ("text/html; charset=utf-8", 52),
                ("text/plain", 53),
                ("text/plain;charset=utf-8", 54),
            ],
        ),
        "date" => (6, &[]),
        "etag" => (7, &[]),
        "last-modified" => (10, &[]),
        "link" => (11, &[]),
        "location" => (12, &[]),
        "server" => (92, &[]),
        "set-cookie" => (14, &[]),
        "strict-transport-security" => (56, &[("max-age=31536000", 56)]),
        "vary" => (59, &[("accept-encoding", 59), ("origin", 60)]),
        "x-content-type-options" => (61, &[("nosniff", 61)]),
        "x-frame-options" => (97, &[("deny", 97), ("sameorigin", 98)]),
        _ => return (None, &[]),
    };
    (Some(index), values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: u16, fields: &[(&'static str, &str)]) -> Vec<u8> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        let section = Section::answer(StatusCode::from_u16(status).unwrap(), &map);
        section.finish(None).0[HEADER_BYTES + 2..].to_vec()
    }

    #[test]
    fn writes_fields_by_the_static_table() {
        assert_eq!(written(200, &[]), [0xc0 | 25]);
        assert_eq!(written(500, &[]), [0xff, 71 - 63]);
        assert_eq!(written(418, &[]), b"\x5f\x09\x03418");
        assert_eq!(written(204, &[("vary", "origin")]), [0xff, 1, 0xc0 | 60]);
        assert_eq!(written(200, &[("etag", "x")]), b"\xd9\x57\x01x");
        assert_eq!(written(200, &[("x-a", "b")]), b"\xd9\x23x-a\x01b");
        assert_eq!(written(200, &[("connection", "close"), ("keep-alive", "1")]), b"\xd9");
        let long = "v".repeat(300);
        let bytes = written(200, &[("x-long-name", &long)]);
        assert_eq!(&bytes[..3], [0xd9, 0x27, 11 - 7]);
        assert_eq!(&bytes[14..17], [0x7f, 0x80 | 0x2d, 1]);
        assert_eq!(bytes.len(), 17 + 300);
    }

    #[test]
    fn a_secret_is_never_to_be_indexed() {
        let mut map = HeaderMap::new();
        let mut secret: HeaderValue = "s".parse().unwrap();
        secret.set_sensitive(true);
        map.insert("set-cookie", secret.clone());
        map.insert("x-key", secret);
        let bytes = Section::trailers(&map).finish(None).0;
        assert_eq!(&bytes[HEADER_BYTES + 2..], b"\x7e\x01s\x35x-key\x01s");
    }

    #[test]
    fn sizes_count_as_rfc_9114_says() {
        let mut map = HeaderMap::new();
        map.insert("etag", "x".parse().unwrap());
        assert_eq!(Section::answer(StatusCode::OK, &map).size(), 7 + 3 + 32 + 4 + 1 + 32);
    }

    #[test]
    fn short_data_goes_along_and_long_data_follows() {
        let section = || Section::answer(StatusCode::OK, &HeaderMap::new());
        let head = [1, 0x80, 0, 0, 3, 0, 0, 0xd9];
        let (bytes, rest) = section().finish(Some(Bytes::from_static(b"hi")));
        assert_eq!((&bytes[..], rest), (&[&head[..], &[0, 2], b"hi"].concat()[..], None));
        let long = Bytes::from(vec![7; COPIED_BYTES + 1]);
        let (bytes, rest) = section().finish(Some(long.clone()));
        assert_eq!((&bytes[..], rest), (&[&head[..], &[0, 0x44, 1]].concat()[..], Some(long)));
    }

    #[test]
    fn lengths_of_data_frames_are_quic_integers() {
        for (length, expected) in [
            (0, &[0, 0][..]),
            (63, &[0, 63]),
            (64, &[0, 0x40, 64]),
            (16_383, &[0, 0x7f, 0xff]),
            (16_384, &[0, 0x80, 0, 0x40, 0]),
            (1 << 30, &[0, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]),
        ] {
            let (bytes, used) = data_header(length);
            assert_eq!(&bytes[..used], expected, "{length}");
        }
    }
}
