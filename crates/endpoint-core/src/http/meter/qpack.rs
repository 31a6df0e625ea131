//! What may a peer say on its QPACK streams to us, who keep no dynamic table? (RFC 9204 §4.2)

use super::Violation;

/// Instructions that change nothing: a table of size 0 set again.
const IDLE_INSTRUCTIONS: u32 = 64;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::http) enum Kind {
    /// The peer's encoder speaks to our decoder.
    Encoder,
    /// The peer's decoder speaks to our encoder.
    Decoder,
}

/// Follows one QPACK stream.
#[derive(Debug)]
pub(in crate::http) struct QpackMeter {
    kind: Kind,
    /// Bytes of an integer that goes on; its value must fit 62 bits (RFC 9204 §4.1.1).
    continues: u32,
    idle: u32,
}

impl QpackMeter {
    pub(in crate::http) fn new(kind: Kind) -> Self {
        Self { kind, continues: 0, idle: 0 }
    }

    pub(in crate::http) fn kind(&self) -> Kind {
        self.kind
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`Violation`] for whatever would need a dynamic table.
    pub(in crate::http) fn feed(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))
    }

    fn byte(&mut self, byte: u8) -> Result<(), Violation> {
        match self.kind {
            //= https://www.rfc-editor.org/rfc/rfc9204#section-4.3.1
            //# The decoder MUST treat a new dynamic table capacity value that exceeds this limit as a
            //# connection error of type QPACK_ENCODER_STREAM_ERROR.
            Kind::Encoder => match byte {
                0b0010_0000 => {
                    self.idle += 1;
                    match self.idle {
                        0..=IDLE_INSTRUCTIONS => Ok(()),
                        _ => Err(Violation::EXCESSIVE_LOAD),
                    }
                }
                _ => Err(Violation::QPACK_ENCODER_STREAM),
            },
            Kind::Decoder if self.continues > 0 => {
                self.continues += 1;
                match byte & 0x80 {
                    0 => self.continues = 0,
                    // Ten bytes hold 62 bits and more.
                    _ if self.continues > 10 => return Err(Violation::QPACK_DECODER_STREAM),
                    _ => {}
                }
                Ok(())
            }
            // A cancelled stream is told of even where nothing refers to a table (RFC 9204 §2.2.2.2);
            // an acknowledgement of a section or an insert has nothing to acknowledge (§4.4.1, §4.4.3).
            Kind::Decoder => match byte & 0b1100_0000 {
                0b0100_0000 => {
                    if byte & 0b0011_1111 == 0b0011_1111 {
                        self.continues = 1;
                    }
                    Ok(())
                }
                _ => Err(Violation::QPACK_DECODER_STREAM),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(kind: Kind, bytes: &[u8]) -> Result<(), Violation> {
        // Byte by byte gives what the whole gives.
        let mut meter = QpackMeter::new(kind);
        let whole = QpackMeter::new(kind).feed(bytes);
        let split = bytes.iter().try_for_each(|byte| meter.feed(&[*byte]));
        assert_eq!(whole, split);
        whole
    }

    #[test]
    fn takes_only_what_needs_no_table() {
        let encoder = Err(Violation::QPACK_ENCODER_STREAM);
        let decoder = Err(Violation::QPACK_DECODER_STREAM);
        let rows: &[(Kind, &[u8], Result<(), Violation>)] = &[
            (Kind::Encoder, &[], Ok(())),
            (Kind::Encoder, &[0x20], Ok(())),
            (Kind::Encoder, &[0x21], encoder),
            (Kind::Encoder, &[0x3f, 0xe1, 0x1f], encoder),
            (Kind::Encoder, &[0x80, 0x01, b'a'], encoder),
            (Kind::Encoder, &[0x41, b'a', 0x01, b'b'], encoder),
            (Kind::Encoder, &[0x00], encoder),
            (Kind::Encoder, &[0x20; 65], Err(Violation::EXCESSIVE_LOAD)),
            (Kind::Decoder, &[0x40, 0x44, 0x7f, 0x85, 0x01], Ok(())),
            (Kind::Decoder, &[0x80], decoder),
            (Kind::Decoder, &[0x00], decoder),
            (Kind::Decoder, &[0x01], decoder),
            (Kind::Decoder, &[0x7f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], decoder),
        ];
        for (kind, bytes, expected) in rows {
            assert_eq!(fed(*kind, bytes), *expected, "{kind:?} {bytes:?}");
        }
    }
}
