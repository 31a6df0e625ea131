//! Which frame may come next on this stream, and how long may it be? (RFC 9114 §4.1, §6.2.1, §7)

use std::sync::{Arc, atomic::Ordering};

use super::{
    EMPTY_DATA_FRAMES, HEADERS_BYTES, INTERIM_SECTIONS, Reserved, Role, SETTINGS_BYTES, Totals,
    UNKNOWN_BYTES, UNKNOWN_FRAMES, Violation, section::Section, settings,
};
use crate::transport::varint;

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const CANCEL_PUSH: u64 = 0x03;
const SETTINGS: u64 = 0x04;
const PUSH_PROMISE: u64 = 0x05;
const GOAWAY: u64 = 0x07;
const MAX_PUSH_ID: u64 = 0x0d;
/// Begins a WebTransport stream, which is not offered here.
const WEBTRANSPORT: u64 = 0x41;

/// Follows the frames of one stream.
#[derive(Debug)]
pub(in crate::http) struct FrameMeter {
    role: Role,
    totals: Arc<Totals>,
    place: Place,
    at: At,
    unknown_bytes: u64,
    unknown_frames: u32,
    empty: u32,
}

/// Where in the stream.
#[derive(Debug)]
enum At {
    /// Within type and length of a frame: 16 bytes at most.
    Header { bytes: [u8; 16], length: usize },
    /// Within the payload of a frame of this type.
    Payload { kind: u64, left: u64 },
}

const BETWEEN: At = At::Header { bytes: [0; 16], length: 0 };

/// Which stream, and what was there.
#[derive(Debug)]
enum Place {
    Request {
        sections: u32,
        data: bool,
        ended: bool,
        reserved: Option<Reserved>,
        /// The fields of the section that has come or is coming, on the server's side.
        section: Option<Section>,
    },
    Control {
        settings: bool,
        frames: u64,
        payload: Vec<u8>,
        push: Option<u64>,
        goaway: Option<u64>,
    },
}

impl FrameMeter {
    /// For a request stream.
    pub(in crate::http) fn request(role: Role, totals: Arc<Totals>) -> Self {
        let (reserved, section) = (None, None);
        let place = Place::Request { sections: 0, data: false, ended: false, reserved, section };
        Self::new(role, totals, place)
    }

    /// For the peer's control stream, after its type.
    pub(in crate::http) fn control(role: Role, totals: Arc<Totals>) -> Self {
        let (payload, push, goaway) = (Vec::new(), None, None);
        Self::new(
            role,
            totals,
            Place::Control { settings: false, frames: 0, payload, push, goaway },
        )
    }

    fn new(role: Role, totals: Arc<Totals>, place: Place) -> Self {
        Self { role, totals, place, at: BETWEEN, unknown_bytes: 0, unknown_frames: 0, empty: 0 }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`Violation`], as soon as the header of the frame at fault is whole.
    pub(in crate::http) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Header { bytes: header, length } => {
                    if let Some(slot) = header.get_mut(*length) {
                        *slot = first;
                        *length += 1;
                    }
                    bytes = rest;
                    let whole = header.get(..*length).unwrap_or_default();
                    let Some((kind, after)) = varint(whole) else { continue };
                    let Some((left, _)) = varint(after) else { continue };
                    self.begin(kind, left)?;
                    self.at = At::Payload { kind, left };
                    if left == 0 {
                        self.end(kind)?;
                    }
                }
                At::Payload { kind, left } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (payload, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
                    match &mut self.place {
                        Place::Control { payload: kept, .. } if is_kept(*kind) => {
                            kept.extend_from_slice(payload);
                        }
                        Place::Request { section: Some(section), .. } if *kind == HEADERS => {
                            section.feed(payload);
                        }
                        _ => {}
                    }
                    *left -= taken as u64;
                    bytes = rest;
                    if *left == 0 {
                        let kind = *kind;
                        self.end(kind)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The stream ended in good order.
    ///
    /// # Errors
    /// [`Violation::FRAME`] in the middle of a frame; [`Violation::CLOSED_CRITICAL_STREAM`] on a control
    /// stream, which never ends (RFC 9114 §6.2.1).
    pub(in crate::http) fn finish(&self) -> Result<(), Violation> {
        match (&self.place, &self.at) {
            (Place::Control { .. }, _) => Err(Violation::CLOSED_CRITICAL_STREAM),
            (_, At::Header { length: 0, .. }) => Ok(()),
            _ => Err(Violation::FRAME),
        }
    }

    /// Whether the last section of fields makes its request malformed (RFC 9114 §4.1.2): an error of the
    /// stream, not of the connection.
    pub(in crate::http) fn is_malformed(&self) -> bool {
        match &self.place {
            Place::Request { section: Some(section), .. } => section.is_malformed(),
            _ => false,
        }
    }

    /// Bytes of the stream that are kept.
    pub(in crate::http) fn held_bytes(&self) -> usize {
        match &self.place {
            Place::Control { payload, .. } => payload.capacity(),
            Place::Request { .. } => 0,
        }
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<(), Violation> {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.8
        //# These frame types MUST NOT be sent, and their receipt MUST be treated as a connection error
        //# of type H3_FRAME_UNEXPECTED.
        if matches!(kind, 0x02 | 0x06 | 0x08 | 0x09) {
            return match &self.place {
                Place::Control { settings: false, .. } => Err(Violation::MISSING_SETTINGS),
                _ => Err(Violation::FRAME_UNEXPECTED),
            };
        }
        match self.place {
            Place::Request { .. } => self.begin_on_request(kind, length),
            Place::Control { .. } => self.begin_on_control(kind, length),
        }
    }

    fn begin_on_request(&mut self, kind: u64, length: u64) -> Result<(), Violation> {
        let Place::Request { sections, data, ended, reserved, section } = &mut self.place else {
            return Ok(());
        };
        match kind {
            DATA if *sections == 0 || *ended => Err(Violation::FRAME_UNEXPECTED),
            DATA => {
                *data = true;
                self.empty += u32::from(length == 0);
                match self.empty > EMPTY_DATA_FRAMES {
                    true => Err(Violation::EXCESSIVE_LOAD),
                    false => Ok(()),
                }
            }
            HEADERS if *ended => Err(Violation::FRAME_UNEXPECTED),
            HEADERS => {
                *sections += 1;
                // A client's second section is its trailer; a server may send interim answers first.
                *ended = *data || (self.role == Role::Server && *sections > 1);
                if length > HEADERS_BYTES || *sections > INTERIM_SECTIONS {
                    return Err(Violation::EXCESSIVE_LOAD);
                }
                *reserved = Some(self.totals.reserve(length)?);
                *section = (self.role == Role::Server).then(|| Section::new(*ended));
                Ok(())
            }
            CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID | WEBTRANSPORT => {
                Err(Violation::FRAME_UNEXPECTED)
            }
            // No push was allowed, so no identifier is right (RFC 9114 §7.2.5).
            PUSH_PROMISE if self.role == Role::Client => Err(Violation::ID),
            PUSH_PROMISE => Err(Violation::FRAME_UNEXPECTED),
            _ => self.begin_unknown(length, u64::from(UNKNOWN_FRAMES)),
        }
    }

    fn begin_on_control(&mut self, kind: u64, length: u64) -> Result<(), Violation> {
        let Place::Control { settings, frames, payload, .. } = &mut self.place else {
            return Ok(());
        };
        *frames += 1;
        if *frames > self.totals.control_frames() {
            return Err(Violation::EXCESSIVE_LOAD);
        }
        payload.clear();
        match kind {
            SETTINGS if *settings => Err(Violation::FRAME_UNEXPECTED),
            SETTINGS if length > SETTINGS_BYTES => Err(Violation::EXCESSIVE_LOAD),
            SETTINGS => {
                *settings = true;
                Ok(())
            }
            _ if !*settings => Err(Violation::MISSING_SETTINGS),
            DATA | HEADERS | PUSH_PROMISE | WEBTRANSPORT => Err(Violation::FRAME_UNEXPECTED),
            MAX_PUSH_ID if self.role == Role::Client => Err(Violation::FRAME_UNEXPECTED),
            // One integer each.
            GOAWAY | MAX_PUSH_ID | CANCEL_PUSH if !matches!(length, 1..=8) => Err(Violation::FRAME),
            GOAWAY | MAX_PUSH_ID | CANCEL_PUSH => Ok(()),
            _ => {
                // Each is let go when it ends, so the bound is on one.
                self.unknown_bytes = 0;
                self.unknown_frames = 0;
                self.begin_unknown(length, u64::MAX)
            }
        }
    }

    fn begin_unknown(&mut self, length: u64, frames: u64) -> Result<(), Violation> {
        self.unknown_bytes = self.unknown_bytes.saturating_add(length);
        self.unknown_frames = self.unknown_frames.saturating_add(1);
        match self.unknown_bytes > UNKNOWN_BYTES || u64::from(self.unknown_frames) > frames {
            true => Err(Violation::EXCESSIVE_LOAD),
            false => Ok(()),
        }
    }

    fn end(&mut self, kind: u64) -> Result<(), Violation> {
        self.at = BETWEEN;
        match &mut self.place {
            Place::Request { reserved, .. } => {
                *reserved = None;
                Ok(())
            }
            Place::Control { payload, push, goaway, .. } if is_kept(kind) => {
                if kind == SETTINGS {
                    if let Some(bytes) = settings::check(payload)? {
                        self.totals.most_fields.store(bytes, Ordering::Relaxed);
                    }
                    return Ok(());
                }
                let id = match varint(payload) {
                    Some((id, [])) => id,
                    _ => return Err(Violation::FRAME),
                };
                match kind {
                    //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
                    //# A MAX_PUSH_ID frame cannot reduce the maximum push ID
                    MAX_PUSH_ID if push.is_some_and(|before| id < before) => Err(Violation::ID),
                    MAX_PUSH_ID => {
                        *push = Some(id);
                        Ok(())
                    }
                    // Nothing was pushed or promised, so there is nothing to cancel (§7.2.3).
                    CANCEL_PUSH => Err(Violation::ID),
                    //= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
                    //# Receiving a GOAWAY containing a larger identifier than previously received MUST
                    //# be treated as a connection error of type H3_ID_ERROR.
                    _ if goaway.is_some_and(|before| id > before) => Err(Violation::ID),
                    _ if self.role == Role::Client && id % 4 != 0 => Err(Violation::ID),
                    _ => {
                        *goaway = Some(id);
                        Ok(())
                    }
                }
            }
            Place::Control { .. } => Ok(()),
        }
    }
}

/// Control frames whose payload is looked at; all are short.
fn is_kept(kind: u64) -> bool {
    matches!(kind, SETTINGS | GOAWAY | MAX_PUSH_ID | CANCEL_PUSH)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
