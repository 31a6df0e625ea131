//! The frame meter of HTTP/3: a stream of frames, in any pieces.

use endpoint_core::http::MeterProbe;

/// What a meter may keep of a stream: a SETTINGS frame, in a buffer that doubles.
const MOST_HELD_BYTES: usize = 8 * 1024;

/// What was said of a stream, piece by piece.
#[derive(Debug, Eq, PartialEq)]
struct Verdict {
    fed: Result<(), u32>,
    finished: Option<Result<(), u32>>,
    malformed: bool,
}

/// The kind of the stream, the lengths of its pieces, the stream.
pub(super) fn frame_meter(bytes: &[u8]) {
    let [kind, first, second, stream @ ..] = bytes else { return };
    let whole = verdict(*kind, stream, &[usize::MAX]);
    let pieces = [usize::from(*first) + 1, usize::from(*second) + 1];
    for lengths in [&[1][..], &pieces] {
        let split = verdict(*kind, stream, lengths);
        assert_eq!(whole, split, "the verdict does not hang on the pieces {lengths:?}");
    }
}

fn verdict(kind: u8, mut stream: &[u8], lengths: &[usize]) -> Verdict {
    let mut meter = MeterProbe::new(kind);
    let mut fed = Ok(());
    for length in lengths.iter().cycle() {
        if stream.is_empty() || fed.is_err() {
            break;
        }
        let (piece, rest) = stream.split_at(stream.len().min(*length));
        fed = meter.feed(piece);
        let held = meter.held_bytes();
        assert!(held <= MOST_HELD_BYTES, "the meter holds {held} bytes");
        stream = rest;
    }
    // A stream at fault is over: what else stood in its last piece means nothing.
    let (finished, malformed) = match fed {
        Ok(()) => (Some(meter.finish()), meter.is_malformed()),
        Err(_) => (None, false),
    };
    Verdict { fed, finished, malformed }
}
