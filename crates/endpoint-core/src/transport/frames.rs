//! Which connection ids does a packet retire?
//!
//! Walks the frames of a 1-RTT packet (RFC 9000 §19, RFC 9221, draft-ietf-quic-ack-frequency) and says the
//! numbers of its RETIRE_CONNECTION_ID frames. Not here: what becomes of them (`retirements`).
//!
//! Always true: knows every frame that quinn-proto knows (`cargo xtask tidy` compares), so none hides from
//! it behind another; stops where quinn-proto ends the connection; reads each byte once at most.

use super::varint;

/// Calls `retired` with the sequence number of each id that `payload` retires, as far as it can be read.
pub(super) fn retired_ids(payload: &[u8], mut retired: impl FnMut(u64)) {
    let mut rest = payload;
    while let Some(after) = next(rest, &mut retired) {
        rest = after;
    }
}

/// What follows the first frame of `bytes`; `None` at the end, or where it is cut or unknown.
fn next<'a>(bytes: &'a [u8], retired: &mut impl FnMut(u64)) -> Option<&'a [u8]> {
    let (kind, rest) = varint(bytes)?;
    match kind {
        PADDING => Some(unpadded(rest)),
        PING | HANDSHAKE_DONE | IMMEDIATE_ACK => Some(rest),
        ACK => ranges(rest),
        ACK_ECN => numbers(ranges(rest)?, 3),
        RESET_STREAM => numbers(rest, 3),
        STOP_SENDING | MAX_STREAM_DATA | STREAM_DATA_BLOCKED => numbers(rest, 2),
        CRYPTO => counted(numbers(rest, 1)?),
        NEW_TOKEN => counted(rest),
        STREAM..=STREAM_LAST => {
            let fields = if kind & STREAM_OFFSET == 0 { 1 } else { 2 };
            let rest = numbers(rest, fields)?;
            // Without a length the data goes to the end of the packet.
            if kind & STREAM_LENGTH == 0 { None } else { counted(rest) }
        }
        MAX_DATA | MAX_STREAMS_BIDI | MAX_STREAMS_UNI | DATA_BLOCKED | STREAMS_BLOCKED_BIDI
        | STREAMS_BLOCKED_UNI => numbers(rest, 1),
        NEW_CONNECTION_ID => {
            let (length, rest) = numbers(rest, 2)?.split_first()?;
            rest.get(usize::from(*length) + RESET_TOKEN_BYTES..)
        }
        RETIRE_CONNECTION_ID => {
            let (sequence, rest) = varint(rest)?;
            retired(sequence);
            Some(rest)
        }
        PATH_CHALLENGE | PATH_RESPONSE => rest.get(PATH_BYTES..),
        CONNECTION_CLOSE => counted(numbers(rest, 2)?),
        APPLICATION_CLOSE => counted(numbers(rest, 1)?),
        ACK_FREQUENCY => numbers(rest, 4),
        DATAGRAM_LENGTH => counted(rest),
        // DATAGRAM without a length goes to the end; the rest are no frames.
        _ => None,
    }
}

/// Skips the rest of a padding: a handshake's packets are filled up with a thousand bytes of it.
fn unpadded(mut bytes: &[u8]) -> &[u8] {
    while let Some((block, rest)) = bytes.split_first_chunk()
        && u128::from_ne_bytes(*block) == 0
    {
        bytes = rest;
    }
    bytes
}

/// Skips so many numbers.
fn numbers(mut bytes: &[u8], count: usize) -> Option<&[u8]> {
    for _ in 0..count {
        (_, bytes) = varint(bytes)?;
    }
    Some(bytes)
}

/// Skips a length and so many bytes.
fn counted(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = varint(bytes)?;
    rest.get(usize::try_from(length).ok()?..)
}

/// Skips what ACK and its variant share: largest, delay, count, first range, and two numbers a range more.
fn ranges(bytes: &[u8]) -> Option<&[u8]> {
    let (count, mut rest) = varint(numbers(bytes, 2)?)?;
    rest = numbers(rest, 1)?;
    for _ in 0..count {
        rest = numbers(rest, 2)?;
    }
    Some(rest)
}

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const RESET_STREAM: u64 = 0x04;
const STOP_SENDING: u64 = 0x05;
const CRYPTO: u64 = 0x06;
const NEW_TOKEN: u64 = 0x07;
const STREAM: u64 = 0x08;
const STREAM_LAST: u64 = 0x0f;
const STREAM_LENGTH: u64 = 0x02;
const STREAM_OFFSET: u64 = 0x04;
const MAX_DATA: u64 = 0x10;
const MAX_STREAM_DATA: u64 = 0x11;
const MAX_STREAMS_BIDI: u64 = 0x12;
const MAX_STREAMS_UNI: u64 = 0x13;
const DATA_BLOCKED: u64 = 0x14;
const STREAM_DATA_BLOCKED: u64 = 0x15;
const STREAMS_BLOCKED_BIDI: u64 = 0x16;
const STREAMS_BLOCKED_UNI: u64 = 0x17;
const NEW_CONNECTION_ID: u64 = 0x18;
const RETIRE_CONNECTION_ID: u64 = 0x19;
const PATH_CHALLENGE: u64 = 0x1a;
const PATH_RESPONSE: u64 = 0x1b;
const CONNECTION_CLOSE: u64 = 0x1c;
const APPLICATION_CLOSE: u64 = 0x1d;
const HANDSHAKE_DONE: u64 = 0x1e;
const IMMEDIATE_ACK: u64 = 0x1f;
const DATAGRAM_LENGTH: u64 = 0x31;
const ACK_FREQUENCY: u64 = 0xaf;

const RESET_TOKEN_BYTES: usize = 16;
const PATH_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(payload: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        retired_ids(payload, |sequence| found.push(sequence));
        found
    }

    /// Each frame that something can follow, with fields that hold 0x19 where they can.
    fn frames() -> Vec<Vec<u8>> {
        let mut frames = vec![
            vec![0; 3],
            vec![0; 50],
            vec![1],
            vec![2, 0x19, 0x19, 0, 0x19],
            vec![2, 0x40, 0x19, 0x19, 2, 0, 1, 1, 0x19, 0x19],
            vec![3, 0x19, 0, 1, 0, 1, 1, 0x19, 0x19, 0x19],
            vec![4, 0x19, 0x19, 0x19],
            vec![5, 0x19, 0x19],
            vec![6, 0x19, 2, 0x19, 5],
            vec![7, 2, 0x19, 5],
            vec![0x0a, 0x19, 2, 0x19, 5],
            vec![0x0b, 0x19, 0],
            vec![0x0e, 0x19, 0x19, 2, 0x19, 5],
            vec![0x0f, 0x19, 0x80, 0, 0, 0x19, 2, 0x19, 5],
            vec![0x11, 0x19, 0x19],
            vec![0x15, 0x19, 0x19],
            [&[0x18, 9, 8, 4][..], &[0x19; 4 + 16]].concat(),
            [&[0x1a][..], &[0x19; 8]].concat(),
            [&[0x1b][..], &[0x19; 8]].concat(),
            vec![0x1c, 0x19, 0x19, 2, 0x19, 5],
            vec![0x1d, 0x19, 2, 0x19, 5],
            vec![0x1e],
            vec![0x1f],
            vec![0x31, 2, 0x19, 5],
            vec![0x40, 0xaf, 0x19, 0x19, 0x19, 0x19],
        ];
        frames.extend([0x10, 0x12, 0x13, 0x14, 0x16, 0x17].map(|kind| vec![kind, 0x19]));
        frames
    }

    #[test]
    fn finds_a_retirement_behind_every_frame_and_none_within() {
        for frame in frames() {
            assert!(found(&frame).is_empty(), "{frame:02x?}");
            assert_eq!(found(&[&frame[..], &[0x19, 7]].concat()), [7], "{frame:02x?}");
            // A type may be written longer than it needs to be; quinn-proto takes that.
            assert_eq!(found(&[&frame[..], &[0x40, 0x19, 0x40, 7]].concat()), [7]);
        }
    }

    #[test]
    fn data_to_the_end_of_the_packet_holds_no_frames() {
        for kind in [8, 9, 0x30] {
            assert!(found(&[kind, 4, 0x19, 5]).is_empty());
        }
        assert!(found(&[0x0c, 4, 0, 0x19, 5]).is_empty());
    }

    #[test]
    fn stops_at_what_is_no_frame() {
        assert_eq!(found(&[0x19, 5, 0x20, 0x19, 6]), [5]);
        assert_eq!(found(&[0x19, 5, 0x19]), [5]);
    }

    proptest! {
        #[test]
        fn finds_all_retirements_of_any_row_of_frames(
            picks in proptest::collection::vec((0..30_usize, any::<bool>(), 0..1u64 << 30), 0..20)
        ) {
            let kinds = frames();
            let (mut payload, mut expected) = (Vec::new(), Vec::new());
            for (pick, retires, sequence) in picks {
                payload.extend(&kinds[pick % kinds.len()]);
                if retires {
                    payload.push(0x19);
                    payload.extend((sequence | 0xc << 60).to_be_bytes());
                    expected.push(sequence);
                }
            }
            prop_assert_eq!(found(&payload), expected);
        }

        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..1500)) {
            found(&payload);
        }
    }
}
