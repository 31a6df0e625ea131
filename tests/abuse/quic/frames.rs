//! QUIC frames as bytes (RFC 9000 §19).

use crate::raw::varint;

/// The sender's id in a packet with a long header.
pub fn source_id(packet: &[u8]) -> Option<Vec<u8>> {
    let at = 6 + usize::from(*packet.get(5)?);
    let length = usize::from(*packet.get(at)?);
    packet.get(at + 1..at + 1 + length).map(<[u8]>::to_vec)
}

/// A CRYPTO frame.
pub fn crypto(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [vec![6], varint(offset), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A STREAM frame in the middle of its stream (RFC 9000 §19.8).
pub fn stream(id: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let head = [id, offset, bytes.len() as u64].into_iter().flat_map(varint);
    [vec![0x0e], head.collect(), bytes.to_vec()].concat()
}

/// A variable-length integer at the start of `bytes`, and its length.
pub fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut reader = Reader(bytes);
    let value = reader.number()?;
    Some((value, bytes.len() - reader.0.len()))
}

/// Takes frames apart.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn number(&mut self) -> Option<u64> {
        let first = *self.0.first()?;
        let (number, rest) = self.0.split_at_checked(1 << (first >> 6))?;
        self.0 = rest;
        let begin = u64::from(first & 0x3f);
        Some(number[1..].iter().fold(begin, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    /// Bytes whose number one byte tells.
    pub fn short(&mut self) -> Option<Vec<u8>> {
        let length = self.some(1)?;
        self.some(usize::from(length[0]))
    }

    /// So many bytes.
    pub fn some(&mut self, length: usize) -> Option<Vec<u8>> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn fixed(&mut self, length: usize) -> Option<()> {
        self.0 = self.0.get(length..)?;
        Some(())
    }

    fn numbers(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.number().map(|_| ()))
    }

    /// Skips what follows the type of a frame that means nothing here.
    pub fn skip(&mut self, kind: u64) -> Option<()> {
        match kind {
            0x00 | 0x01 => Some(()),
            0x02 | 0x03 => {
                self.numbers(2)?;
                let ranges = usize::try_from(self.number()?).ok()?;
                self.numbers(1 + 2 * ranges)?;
                self.numbers(if kind == 3 { 3 } else { 0 })
            }
            0x04 => self.numbers(3),
            0x05 | 0x11 | 0x15 => self.numbers(2),
            0x07 => self.bytes().map(|_| ()),
            0x08..=0x0f => {
                self.numbers(1 + usize::from(kind & 4 != 0))?;
                match kind & 2 {
                    0 => self.fixed(self.0.len()),
                    _ => self.bytes().map(|_| ()),
                }
            }
            0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => self.numbers(1),
            0x18 => {
                self.numbers(2)?;
                let length = usize::from(*self.0.first()?);
                self.fixed(1 + length + 16)
            }
            0x1a | 0x1b => self.fixed(8),
            _ => None,
        }
    }
}
