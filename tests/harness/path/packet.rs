//! Which packets does a datagram hold, as far as everybody on the way can see?

/// Kinds of packets (RFC 9000 §17).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
    Short,
    Negotiation,
}

/// The packets of a datagram of version 1, in order; stops where it cannot be read.
pub(super) fn kinds(mut datagram: &[u8]) -> Vec<Kind> {
    let mut found = Vec::new();
    while let Some((kind, length)) = first(datagram) {
        found.push(kind);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    found
}

/// The first packet and its length in bytes.
fn first(datagram: &[u8]) -> Option<(Kind, usize)> {
    let first = *datagram.first()?;
    if first & 0x80 == 0 {
        // Padding behind a packet looks like a short header without its fixed bit.
        return (first & 0x40 != 0).then_some((Kind::Short, datagram.len()));
    }
    if datagram.get(1..5)? == [0; 4] {
        return Some((Kind::Negotiation, datagram.len()));
    }
    let mut at = 5;
    at += 1 + usize::from(*datagram.get(at)?);
    at += 1 + usize::from(*datagram.get(at)?);
    let kind = match first >> 4 & 3 {
        0 => Kind::Initial,
        1 => Kind::ZeroRtt,
        2 => Kind::Handshake,
        _ => return Some((Kind::Retry, datagram.len())),
    };
    if kind == Kind::Initial {
        let (token, used) = number(datagram.get(at..)?)?;
        at += used + token;
    }
    let (length, used) = number(datagram.get(at..)?)?;
    Some((kind, at + used + length))
}

/// A number of variable length and how many bytes it took (RFC 9000 §16).
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let used = 1 << (bytes.first()? >> 6);
    let bytes = bytes.get(..used)?;
    let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let bits = 8 * u32::try_from(used).ok()? - 2;
    Some((usize::try_from(value & ((1 << bits) - 1)).ok()?, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long header with ids of one byte, and what follows.
    fn long(first: u8, rest: &[u8]) -> Vec<u8> {
        [&[first, 0, 0, 0, 1, 1, 7, 1, 8], rest].concat()
    }

    #[test]
    fn finds_each_packet_of_a_datagram() {
        let initial = long(0xc3, &[2, 5, 5, 0x40, 3, 1, 2, 3]);
        let handshake = long(0xe3, &[2, 1, 2]);
        let short = vec![0x43, 1, 2];
        let datagram = [initial.clone(), handshake, short].concat();
        assert_eq!(kinds(&datagram), [Kind::Initial, Kind::Handshake, Kind::Short]);
        assert_eq!(kinds(&[initial, vec![0; 40]].concat()), [Kind::Initial]);
        assert_eq!(kinds(&long(0xf0, &[1; 20])), [Kind::Retry]);
        assert_eq!(kinds(&[0x80, 0, 0, 0, 0, 0, 0]), [Kind::Negotiation]);
        assert_eq!(kinds(&long(0xd0, &[1, 1])), [Kind::ZeroRtt]);
    }

    #[test]
    fn stops_at_what_is_cut() {
        assert_eq!(kinds(&[]), []);
        assert_eq!(kinds(&long(0xc3, &[0x7f])), []);
        assert_eq!(kinds(&[0xc3, 0, 0]), []);
    }
}
