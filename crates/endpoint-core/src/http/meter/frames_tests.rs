//! The order and the bounds of frames, as a table.

use super::*;

const UNEXPECTED: Result<(), Violation> = Err(Violation::FRAME_UNEXPECTED);
const LOAD: Result<(), Violation> = Err(Violation::EXCESSIVE_LOAD);

/// A frame of this type and payload; lengths below 64 are one byte.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(payload.len()).unwrap()];
    bytes.extend_from_slice(payload);
    bytes
}

/// The header of a frame that declares `length` and stops there.
fn declares(kind: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(length | 3 << 62).to_be_bytes());
    bytes
}

fn run(role: Role, control: bool, bytes: &[u8]) -> Result<(), Violation> {
    let make = || match control {
        true => FrameMeter::control(role, Arc::default()),
        false => FrameMeter::request(role, Arc::default()),
    };
    let whole = make().feed(bytes);
    let mut meter = make();
    let split = bytes.iter().try_for_each(|byte| meter.feed(&[*byte]));
    assert_eq!(whole, split, "split at every byte: {bytes:?}");
    whole
}

fn request(frames: &[Vec<u8>]) -> Result<(), Violation> {
    run(Role::Server, false, &frames.concat())
}

fn control(frames: &[Vec<u8>]) -> Result<(), Violation> {
    run(Role::Server, true, &frames.concat())
}

#[test]
fn request_frames_come_in_order() {
    let (headers, data) = (frame(1, b"h"), frame(0, b"d"));
    let unknown = frame(0x21, b"x");
    let ok: &[&[Vec<u8>]] = &[
        std::slice::from_ref(&headers),
        &[headers.clone(), data.clone(), data.clone()],
        &[headers.clone(), data.clone(), headers.clone()],
        &[headers.clone(), headers.clone()],
        &[unknown.clone(), headers.clone(), unknown.clone(), data.clone(), unknown.clone()],
        &[headers.clone(), headers.clone(), unknown.clone()],
    ];
    for frames in ok {
        assert_eq!(request(frames), Ok(()), "{frames:?}");
    }
    let refused: &[&[Vec<u8>]] = &[
        std::slice::from_ref(&data),
        &[headers.clone(), headers.clone(), data.clone()],
        &[headers.clone(), headers.clone(), headers.clone()],
        &[frame(3, &[0])],
        &[frame(4, &[])],
        &[frame(5, &[0])],
        &[frame(7, &[0])],
        &[frame(13, &[0])],
        &[headers.clone(), frame(2, &[])],
        &[headers.clone(), frame(6, &[])],
        &[frame(8, &[])],
        &[frame(9, &[])],
        &[vec![0x40, 0x41, 0]],
    ];
    for frames in refused {
        assert_eq!(request(frames), UNEXPECTED, "{frames:?}");
    }
}

#[test]
fn declared_lengths_are_judged_before_their_payload() {
    let big = 1 << 40;
    assert_eq!(request(&[declares(1, big)]), LOAD);
    assert_eq!(request(&[declares(0x21, big)]), LOAD);
    assert_eq!(request(&[declares(1, HEADERS_BYTES)]), Ok(()));
    assert_eq!(request(&[declares(1, HEADERS_BYTES + 1)]), LOAD);
    assert_eq!(request(&[frame(1, b"h"), declares(0, big)]), Ok(()));
    assert_eq!(control(&[declares(4, big)]), LOAD);
    assert_eq!(control(&[frame(4, &[]), declares(0x21, big)]), LOAD);
    assert_eq!(request(&vec![frame(0x21, &[0; 60]); 65]), LOAD);
    assert_eq!(request(&[vec![frame(1, b"h")], vec![frame(0, &[]); 129]].concat()), LOAD);
    assert_eq!(control(&[vec![frame(4, &[])], vec![frame(0x21, &[]); 256]].concat()), LOAD);
}

#[test]
fn headers_of_all_streams_share_one_bound() {
    let totals = Arc::new(Totals::default());
    let mut open = Vec::new();
    let mut refused = None;
    for _ in 0..100 {
        let mut meter = FrameMeter::request(Role::Server, Arc::clone(&totals));
        match meter.feed(&declares(1, HEADERS_BYTES)) {
            Ok(()) => open.push(meter),
            Err(violation) => {
                refused = Some(violation);
                break;
            }
        }
    }
    assert_eq!((open.len(), refused), (8, Some(Violation::EXCESSIVE_LOAD)));
    drop(open);
    let mut meter = FrameMeter::request(Role::Server, totals);
    assert_eq!(meter.feed(&declares(1, HEADERS_BYTES)), Ok(()));
}

#[test]
fn the_control_stream_keeps_its_rules() {
    let settings = frame(4, &[]);
    type Row<'a> = (&'a [Vec<u8>], Result<(), Violation>);
    let rows: &[Row<'_>] = &[
        (std::slice::from_ref(&settings), Ok(())),
        (&[settings.clone(), frame(0x21, b"x"), frame(13, &[4]), frame(13, &[4])], Ok(())),
        (&[settings.clone(), frame(7, &[8]), frame(7, &[4])], Ok(())),
        (&[frame(13, &[0])], Err(Violation::MISSING_SETTINGS)),
        (&[frame(0x21, &[])], Err(Violation::MISSING_SETTINGS)),
        (&[frame(0, &[])], Err(Violation::MISSING_SETTINGS)),
        (&[settings.clone(), settings.clone()], UNEXPECTED),
        (&[settings.clone(), frame(0, &[])], UNEXPECTED),
        (&[settings.clone(), frame(1, &[])], UNEXPECTED),
        (&[settings.clone(), frame(5, &[0])], UNEXPECTED),
        (&[settings.clone(), frame(2, &[])], UNEXPECTED),
        (&[settings.clone(), frame(13, &[4]), frame(13, &[3])], Err(Violation::ID)),
        (&[settings.clone(), frame(7, &[4]), frame(7, &[8])], Err(Violation::ID)),
        (&[settings.clone(), frame(3, &[0])], Err(Violation::ID)),
        (&[settings.clone(), frame(7, &[])], Err(Violation::FRAME)),
        (&[settings.clone(), frame(7, &[4, 0])], Err(Violation::FRAME)),
        (&[settings.clone(), frame(13, &[0x40])], Err(Violation::FRAME)),
        (&[frame(4, &[1])], Err(Violation::FRAME)),
        (&[frame(4, &[2, 0])], Err(Violation::SETTINGS)),
    ];
    for (frames, expected) in rows {
        assert_eq!(control(frames), *expected, "{frames:?}");
    }
    let meter = FrameMeter::control(Role::Server, Arc::default());
    assert_eq!(meter.finish(), Err(Violation::CLOSED_CRITICAL_STREAM));
}

#[test]
fn a_cut_frame_is_an_error_at_the_end() {
    for (bytes, expected) in [
        (vec![], Ok(())),
        (frame(1, b"h"), Ok(())),
        (vec![1], Err(Violation::FRAME)),
        (vec![1, 5, 0], Err(Violation::FRAME)),
    ] {
        let mut meter = FrameMeter::request(Role::Server, Arc::default());
        meter.feed(&bytes).unwrap();
        assert_eq!(meter.finish(), expected, "{bytes:?}");
    }
}

#[test]
fn a_client_takes_interim_answers_and_no_push() {
    let client = |frames: &[Vec<u8>]| run(Role::Client, false, &frames.concat());
    let headers = frame(1, b"h");
    assert_eq!(
        client(&[headers.clone(), headers.clone(), frame(0, b"d"), headers.clone()]),
        Ok(())
    );
    assert_eq!(client(&vec![headers.clone(); 17]), LOAD);
    assert_eq!(client(&[frame(5, &[0])]), Err(Violation::ID));
    let goaway = [frame(4, &[]), frame(7, &[1])].concat();
    assert_eq!(run(Role::Client, true, &goaway), Err(Violation::ID));
    let push = [frame(4, &[]), frame(13, &[1])].concat();
    assert_eq!(run(Role::Client, true, &push), UNEXPECTED);
}
