//! Which connection is a packet for, and did we name it so?
//!
//! Connection ids of 20 bytes: one octet that says how to read them, then server, shard and a number,
//! sealed as a load balancer expects (draft-ietf-quic-load-balancers-21, §5), then a mark that only we can
//! make. `docs/connection-ids.md` has the layout and test vectors. Not here: how many a connection may
//! have (`retirements`), where the keys come from (`keys`).
//!
//! Always true: a generator never gives an id twice, and two of one key give the same with a probability of
//! 2^-31 for four thousand million ids each; an id whose mark is not ours is refused, in a time that does
//! not depend on where it differs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    cipher::{AES_128, AES_128_KEY_LEN, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time, hmac, rand,
};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Length of every id: the most that QUIC 1 allows (RFC 9000 §17.2).
pub(super) const ID_BYTES: usize = 20;
/// Server (2), shard (1) and number (8). To a load balancer the first three are the server ID.
const SEALED_BYTES: usize = 11;
const MARK_BYTES: usize = 8;
/// What the mark covers: the first octet and what is sealed.
const MARKED_BYTES: usize = 1 + SEALED_BYTES;
/// Configuration 0 in the first three bits, and the length without this octet in the other five.
const FIRST_OCTET: u8 = 19;
/// Neighbouring numbers differ in all of their bits. Odd, so that no two numbers become the same.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Who issues an id. Zero until endpoints share an address or a socket has several workers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Issuer {
    pub(super) server: u16,
    pub(super) shard: u8,
}

/// The keys of the ids of one listen address.
pub(super) struct IdKeys {
    seal: EncryptingKey,
    mark: hmac::Key,
}

impl IdKeys {
    /// `seal` is what a load balancer would hold, `mark` what nobody else does.
    ///
    /// # Errors
    /// The cipher takes no key.
    pub(super) fn new(seal: &[u8; AES_128_KEY_LEN], mark: &[u8]) -> io::Result<Self> {
        let no_cipher = |_| io::Error::other("AES-128 takes no key");
        let key = UnboundCipherKey::new(&AES_128, seal).map_err(no_cipher)?;
        let seal = EncryptingKey::ecb(key).map_err(no_cipher)?;
        Ok(Self { seal, mark: hmac::Key::new(hmac::HMAC_SHA256, mark) })
    }

    fn id(&self, issuer: Issuer, number: u64) -> [u8; ID_BYTES] {
        let [server_high, server_low] = issuer.server.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        let mut plain = [server_high, server_low, issuer.shard, a, b, c, d, e, f, g, h];
        seal(&self.seal, &mut plain);
        let mut id = [FIRST_OCTET; ID_BYTES];
        let mark_at = MARKED_BYTES;
        for (at, byte) in id.iter_mut().skip(1).zip(plain) {
            *at = byte;
        }
        let mark = self.mark_of(id.get(..mark_at).unwrap_or_default());
        for (at, byte) in id.iter_mut().skip(mark_at).zip(mark) {
            *at = byte;
        }
        id
    }

    fn mark_of(&self, marked: &[u8]) -> [u8; MARK_BYTES] {
        let tag = hmac::sign(&self.mark, marked);
        let mut mark = [0; MARK_BYTES];
        for (at, byte) in mark.iter_mut().zip(tag.as_ref()) {
            *at = *byte;
        }
        mark
    }

    fn made(&self, id: &[u8]) -> bool {
        match id.split_at_checked(MARKED_BYTES) {
            Some((marked, mark)) => {
                constant_time::verify_slices_are_equal(&self.mark_of(marked), mark).is_ok()
            }
            None => false,
        }
    }
}

/// Makes the ids of one socket and knows them again.
pub(super) struct Ids {
    keys: Arc<IdKeys>,
    issuer: Issuer,
    /// Where the numbers of this generator began, by chance.
    start: u64,
    given: AtomicU64,
}

impl Ids {
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new(keys: Arc<IdKeys>, issuer: Issuer) -> io::Result<Self> {
        let mut start = [0; 8];
        rand::fill(&mut start).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self { keys, issuer, start: u64::from_be_bytes(start), given: AtomicU64::new(0) })
    }
}

/// quinn's view of the ids of one socket.
pub(super) struct Generator(pub(super) Arc<Ids>);

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        let given = self.0.given.fetch_add(1, Ordering::Relaxed);
        let number = self.0.start.wrapping_add(given).wrapping_mul(SPREAD);
        ConnectionId::new(&self.0.keys.id(self.0.issuer, number))
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if self.0.keys.made(id) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    /// An id lives as long as its connection: one that we took back would only make a client ask for
    /// another, and whoever holds one learns nothing from it.
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Seals 5 to 19 bytes but not 16 by the four passes of the draft, §5.4.2.
///
//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4.2
//# The 4-pass algorithm is a four-round Feistel Network with the round function being AES-ECB.
fn seal(key: &EncryptingKey, plain: &mut [u8]) {
    let (length, odd) = (plain.len(), plain.len() % 2 == 1);
    let half = length.div_ceil(2);
    let mut left = [0; HALF_BYTES];
    let mut right = [0; HALF_BYTES];
    copy(&mut left, plain.iter().take(half));
    copy(&mut right, plain.iter().skip(length / 2));
    if odd {
        clear_last(&mut left, half);
        clear_first(&mut right);
    }
    for pass in 1..=4_u8 {
        if pass % 2 == 1 {
            mix(key, &left, &mut right, length, pass);
            if odd {
                clear_first(&mut right);
            }
        } else {
            mix(key, &right, &mut left, length, pass);
            if odd {
                clear_last(&mut left, half);
            }
        }
    }
    // The middle octet of an odd length is half of each.
    for byte in plain.iter_mut() {
        *byte = 0;
    }
    for (at, byte) in plain.iter_mut().take(half).zip(left) {
        *at |= byte;
    }
    for (at, byte) in plain.iter_mut().skip(length / 2).zip(right.iter().take(half)) {
        *at |= *byte;
    }
}

/// Half of 19 bytes, rounded up.
const HALF_BYTES: usize = 10;

/// One pass: `to` is changed by what `from` gives.
fn mix(
    key: &EncryptingKey,
    from: &[u8; HALF_BYTES],
    to: &mut [u8; HALF_BYTES],
    length: usize,
    pass: u8,
) {
    let half = length.div_ceil(2);
    let mut block = [0; 16];
    for (at, byte) in block.iter_mut().zip(from.iter().take(half)) {
        *at = *byte;
    }
    let [.., length_at, pass_at] = &mut block;
    *length_at = u8::try_from(length).unwrap_or(u8::MAX);
    *pass_at = pass;
    // A whole block in a mode without padding or vector: there is nothing to fail.
    let sealed = key.less_safe_encrypt(&mut block, EncryptionContext::None);
    debug_assert!(sealed.is_ok(), "one block is what the mode takes");
    for (at, byte) in to.iter_mut().zip(block).take(half) {
        *at ^= byte;
    }
}

fn copy<'a>(to: &mut [u8; HALF_BYTES], from: impl Iterator<Item = &'a u8>) {
    for (at, byte) in to.iter_mut().zip(from) {
        *at = *byte;
    }
}

fn clear_first(half: &mut [u8; HALF_BYTES]) {
    let [first, ..] = half;
    *first &= 0x0f;
}

fn clear_last(half: &mut [u8; HALF_BYTES], length: usize) {
    if let Some(last) = half.get_mut(length.saturating_sub(1)) {
        *last &= 0xf0;
    }
}

#[cfg(test)]
#[path = "connection_id_tests.rs"]
mod tests;
