//! What does the meter say of any bytes? For fuzzing, which stands outside of this crate.

use std::sync::Arc;

use super::{
    Role, Violation,
    frames::FrameMeter,
    qpack::{Kind, QpackMeter},
};

/// Follows one stream of made-up bytes.
#[derive(Debug)]
pub struct MeterProbe(Stream);

#[derive(Debug)]
enum Stream {
    Frames(FrameMeter),
    Qpack(QpackMeter),
}

impl MeterProbe {
    /// Kinds of streams there are.
    pub const KINDS: u8 = 6;

    /// A stream of the kind `kind` modulo [`Self::KINDS`].
    #[must_use]
    pub fn new(kind: u8) -> Self {
        let totals = Arc::default();
        Self(match kind % Self::KINDS {
            0 => Stream::Frames(FrameMeter::request(Role::Server, totals)),
            1 => Stream::Frames(FrameMeter::request(Role::Client, totals)),
            2 => Stream::Frames(FrameMeter::control(Role::Server, totals)),
            3 => Stream::Frames(FrameMeter::control(Role::Client, totals)),
            4 => Stream::Qpack(QpackMeter::new(Kind::Encoder)),
            _ => Stream::Qpack(QpackMeter::new(Kind::Decoder)),
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The code that the connection would close with.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), u32> {
        match &mut self.0 {
            Stream::Frames(meter) => meter.feed(bytes),
            Stream::Qpack(meter) => meter.feed(bytes),
        }
        .map_err(|Violation(code)| code)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// The same.
    pub fn finish(&self) -> Result<(), u32> {
        match &self.0 {
            Stream::Frames(meter) => meter.finish().map_err(|Violation(code)| code),
            Stream::Qpack(_) => Err(Violation::CLOSED_CRITICAL_STREAM.0),
        }
    }

    /// Whether the last section of fields makes its request malformed.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(&self.0, Stream::Frames(meter) if meter.is_malformed())
    }

    /// Bytes of the stream that the meter keeps.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Stream::Frames(meter) => meter.held_bytes(),
            Stream::Qpack(_) => 0,
        }
    }
}
