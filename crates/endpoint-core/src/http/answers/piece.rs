//! A piece of an answer, charged for as long as anybody holds it.

use std::{fmt, io::IoSlice, sync::Arc};

use bytes::{Buf, Bytes};

use super::Waiting;

/// Bytes on their way through hyper.
pub(in crate::http) struct Piece {
    bytes: Bytes,
    charge: Option<Charge>,
}

/// What a piece counts for.
struct Charge {
    answer: Arc<Waiting>,
    bytes: usize,
}

impl Charge {
    fn new(answer: &Arc<Waiting>, bytes: usize) -> Self {
        answer.charge(bytes);
        Self { answer: Arc::clone(answer), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.answer.release(self.bytes);
    }
}

impl Piece {
    /// A piece of `answer`.
    pub(in crate::http) fn new(bytes: Bytes, answer: &Arc<Waiting>) -> Self {
        let charge = (!bytes.is_empty()).then(|| Charge::new(answer, bytes.len()));
        Self { bytes, charge }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn chunks_vectored<'b>(&'b self, into: &mut [IoSlice<'b>]) -> usize {
        self.bytes.chunks_vectored(into)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if count == 0 {
            return;
        }
        match &self.charge {
            Some(charge) if !self.bytes.is_empty() => charge.answer.took(),
            // All of it is taken: whoever holds the rest of this holds nothing.
            _ => self.charge = None,
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Bytes on their way through quinn, which holds them until they are acknowledged.
struct Kept {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Waiting {
    /// The next bytes of `rest`, charged until quinn lets go of them: not all at once, so that it shows
    /// whether the client takes them. Few are given as they are, which costs less than to count them.
    pub(in crate::http) fn keep(self: &Arc<Self>, rest: &mut Bytes) -> Bytes {
        let bytes = rest.split_to(rest.len().min(KEPT_BYTES));
        if bytes.len() < LEAST_BYTES {
            return bytes;
        }
        let charge = Charge::new(self, bytes.len());
        Bytes::from_owner(Kept { bytes, _charge: charge })
    }
}

/// Bytes after which quinn shows that they were acknowledged.
const KEPT_BYTES: usize = 16 * 1024;
/// Bytes that are not worth to be counted: with a hundred requests on a connection 100 KiB.
const LEAST_BYTES: usize = 1024;
