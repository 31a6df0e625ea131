//! How much may an HTTP/3 peer make us hold?
//!
//! h3 buffers every frame but DATA whole, whatever length it declares, and reads no QPACK stream. So each
//! byte passes here first: [`frames`] follows request and control streams, [`qpack`] the streams of the
//! compressor, `section` the names in headers and trailers. A declared length over its bound closes the connection before its payload is read.
//!
//! Pure: knows bytes, not sockets. Always true: what is held for a stream that shows no whole header is at
//! most [`HEADERS_BYTES`], and for all such streams of a connection [`UNDECODED_BYTES`].

pub(super) mod frames;
pub(super) mod probe;
pub(super) mod qpack;
mod section;
mod settings;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes of one HEADERS frame.
pub(super) const HEADERS_BYTES: u64 = 64 * 1024;
/// Bytes of all HEADERS frames of a connection that have begun and not ended.
const UNDECODED_BYTES: u64 = 512 * 1024;
/// Bytes of frames of unknown type on one stream (RFC 9114 §9).
const UNKNOWN_BYTES: u64 = 16 * 1024;
/// Frames of unknown type on a request stream.
const UNKNOWN_FRAMES: u32 = 64;
/// DATA frames without payload on one stream: they cost work and carry nothing.
const EMPTY_DATA_FRAMES: u32 = 128;
/// Bytes of a SETTINGS frame.
const SETTINGS_BYTES: u64 = 4 * 1024;
/// Frames on the control stream: so many, and so many more for each request (RFC 9218 priorities).
const CONTROL_FRAMES: u64 = 256;
const CONTROL_FRAMES_PER_REQUEST: u64 = 8;
/// Header sections of a response before its body: interim ones and the last.
const INTERIM_SECTIONS: u32 = 16;

/// A breach of HTTP/3 or of a bound: the error code that the connection closes with (RFC 9114 §8.1,
/// RFC 9204 §6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Violation(pub(super) u32);

impl Violation {
    pub(super) const STREAM_CREATION: Self = Self(0x103);
    pub(super) const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    pub(super) const FRAME_UNEXPECTED: Self = Self(0x105);
    pub(super) const FRAME: Self = Self(0x106);
    pub(super) const EXCESSIVE_LOAD: Self = Self(0x107);
    pub(super) const ID: Self = Self(0x108);
    pub(super) const SETTINGS: Self = Self(0x109);
    pub(super) const MISSING_SETTINGS: Self = Self(0x10a);
    pub(super) const QPACK_ENCODER_STREAM: Self = Self(0x201);
    pub(super) const QPACK_DECODER_STREAM: Self = Self(0x202);
}

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Server,
    Client,
}

/// What the streams of one connection add up to.
#[derive(Debug)]
pub(super) struct Totals {
    undecoded: AtomicU64,
    requests: AtomicU64,
    most_fields: AtomicU64,
}

impl Default for Totals {
    fn default() -> Self {
        // Without a word of the peer, a field section may have any size (RFC 9114 §7.2.4.1).
        let most_fields = AtomicU64::new(u64::MAX);
        Self { undecoded: AtomicU64::new(0), requests: AtomicU64::new(0), most_fields }
    }
}

impl Totals {
    /// Notes a request stream.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a field section that the peer takes.
    pub(super) fn most_fields(&self) -> u64 {
        self.most_fields.load(Ordering::Relaxed)
    }

    fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, Violation> {
        let before = self.undecoded.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved { totals: Arc::clone(self), bytes };
        if before.saturating_add(bytes) > UNDECODED_BYTES {
            return Err(Violation::EXCESSIVE_LOAD);
        }
        Ok(reserved)
    }

    fn control_frames(&self) -> u64 {
        let requests = self.requests.load(Ordering::Relaxed);
        CONTROL_FRAMES.saturating_add(requests.saturating_mul(CONTROL_FRAMES_PER_REQUEST))
    }
}

/// Bytes that a header section may still hold; given back when it ends or its stream does.
#[derive(Debug)]
struct Reserved {
    totals: Arc<Totals>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.totals.undecoded.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
