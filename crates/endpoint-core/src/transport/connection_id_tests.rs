//! Tests of connection ids: the draft's vectors, ours, and what nobody may forge or meet again.

use std::collections::HashSet;

use super::*;

fn keys(seed: u8) -> Arc<IdKeys> {
    Arc::new(IdKeys::new(&[seed; 16], &[seed; 32]).unwrap())
}

fn generator(keys: &Arc<IdKeys>) -> Generator {
    Generator(Arc::new(Ids::new(Arc::clone(keys), Issuer::default()).unwrap()))
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The reverse of `seal`, as §5.5.2 of the draft gives it to load balancers.
fn open(key: &EncryptingKey, sealed: &mut [u8]) {
    let (length, odd, half) = (sealed.len(), sealed.len() % 2 == 1, sealed.len().div_ceil(2));
    let (mut left, mut right) = ([0; HALF_BYTES], [0; HALF_BYTES]);
    copy(&mut left, sealed.iter().take(half));
    copy(&mut right, sealed.iter().skip(length / 2));
    for pass in [4, 3, 2, 1] {
        if odd {
            clear_last(&mut left, half);
            clear_first(&mut right);
        }
        if pass % 2 == 0 {
            mix(key, &right, &mut left, length, pass);
        } else {
            mix(key, &left, &mut right, length, pass);
        }
    }
    if odd {
        clear_last(&mut left, half);
        clear_first(&mut right);
    }
    sealed.fill(0);
    for (at, byte) in sealed.iter_mut().zip(left).take(half) {
        *at |= byte;
    }
    for (at, byte) in sealed.iter_mut().skip(length / 2).zip(right) {
        *at |= byte;
    }
}

fn aes(key: &[u8]) -> EncryptingKey {
    EncryptingKey::ecb(UnboundCipherKey::new(&AES_128, key).unwrap()).unwrap()
}

#[test]
fn seals_as_the_drafts_test_vectors_say() {
    // draft-ietf-quic-load-balancers-21, appendix B.2: server ID and nonce, then the id without its first
    // octet. The third of the four is the special case of 16 bytes, which this layout does not use.
    let key = aes(&hex("8f95f09245765f80256934e50c66207f"));
    for (plain, sealed) in [
        ("ed793aee080dbf", "20b1d07b359d3c"),
        ("ed793a51d49b8f5fab65ee080dbf48", "cc381bc74cb4fbad2823a3d1f8fed2"),
        ("ed793a51d49b8f5fabee080dbf48c0d1e55d", "5779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    ] {
        let mut block = hex(plain);
        seal(&key, &mut block);
        assert_eq!(block, hex(sealed), "{plain}");
        open(&key, &mut block);
        assert_eq!(block, hex(plain));
    }
}

#[test]
fn makes_the_ids_of_the_documented_vectors() {
    let seal: [u8; 16] = hex("8f95f09245765f80256934e50c66207f").try_into().unwrap();
    let keys = IdKeys::new(&seal, &[0x0b; 32]).unwrap();
    for (server, shard, number, id) in VECTORS {
        let made = keys.id(Issuer { server, shard }, number);
        assert_eq!(hex(id), made, "{server:04x} {shard:02x} {number:016x}: got {made:02x?}");
        assert!(keys.made(&made));
        // What a load balancer with the sealing key alone reads.
        let mut block = made[1..12].to_vec();
        open(&keys.seal, &mut block);
        assert_eq!(block[..2], server.to_be_bytes());
        assert_eq!(block[2], shard);
        assert_eq!(block[3..], number.to_be_bytes());
    }
}

/// Server, shard, number; the id. `docs/connection-ids.md` has the same table.
const VECTORS: [(u16, u8, u64, &str); 3] = [
    (0, 0, 0, "13ec52426885de31225165387e41f2f1bcf62a44"),
    (0, 0, 0xee08_0dbf_48c0_d1e5, "133661edaedb50ac449495ef72e3c855526f2c4c"),
    (0xed79, 0x3a, 0xee08_0dbf_48c0_d1e5, "13d8b67856d1bdbfb19ffc7f2eb0b087a0faed89"),
];

#[test]
fn the_documented_vectors_are_these() {
    let page = include_str!("../../../../docs/connection-ids.md");
    for (server, shard, number, id) in VECTORS {
        let row = format!("| `{server:04x}` | `{shard:02x}` | `{number:016x}` | `{id}` |");
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the line that `cargo xtask long` gathers")]
fn ids_are_all_different_all_ours_and_nobody_elses() {
    let count = if std::env::var_os("ENDPOINT_TEST_LONG").is_some() { 1_000_000 } else { 100_000 };
    let (ours, others) = (keys(1), keys(2));
    let (mut generator, foreign) = (generator(&ours), generator(&others));
    let mut seen = HashSet::with_capacity(count);
    let (mut valid, mut taken_elsewhere) = (0, 0);
    for _ in 0..count {
        let id = generator.generate_cid();
        assert_eq!(id.len(), ID_BYTES);
        valid += usize::from(generator.validate(&id).is_ok());
        taken_elsewhere += usize::from(foreign.validate(&id).is_ok());
        seen.insert(id);
    }
    println!(
        "acceptance: connection ids: {count} made, {} different, {valid} ours, {taken_elsewhere} \
         taken under another key",
        seen.len()
    );
    assert_eq!((seen.len(), valid, taken_elsewhere), (count, count, 0));
}

#[test]
fn ids_of_24_random_bits_come_back_within_a_hundred_thousand() {
    // The weakened twin: what the same count shows of ids as they were.
    let mut generator = quinn_proto::HashedConnectionIdGenerator::from_key(1);
    let mut seen = HashSet::new();
    let repeated = (0..100_000).filter(|_| !seen.insert(generator.generate_cid())).count();
    assert!(repeated > 100, "{repeated}");
}

#[test]
fn generators_of_one_key_know_each_others_ids_and_begin_elsewhere() {
    let keys = keys(3);
    let (mut before, mut after) = (generator(&keys), generator(&keys));
    let ids: HashSet<_> = (0..1000).map(|_| before.generate_cid()).collect();
    for _ in 0..1000 {
        let id = after.generate_cid();
        assert!(before.validate(&id).is_ok() && !ids.contains(&id));
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let keys = keys(4);
    let mut generator = generator(&keys);
    for _ in 0..50 {
        let id = generator.generate_cid();
        for bit in 0..ID_BYTES * 8 {
            let mut bytes = id.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(generator.validate(&ConnectionId::new(&bytes)).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn other_lengths_are_refused() {
    let keys = keys(5);
    let mut generator = generator(&keys);
    let id = generator.generate_cid();
    for length in 0..ID_BYTES {
        assert!(generator.validate(&ConnectionId::new(&id[..length])).is_err(), "{length}");
    }
}

#[test]
fn an_observer_sees_no_number_count_up() {
    // Half of the sealed bits differ between neighbours, give or take, and no byte stands still.
    let keys = keys(6);
    let mut generator = generator(&keys);
    let ids: Vec<_> = (0..4096).map(|_| generator.generate_cid()).collect();
    let flipped: u32 = ids
        .windows(2)
        .flat_map(|pair| pair[0].iter().zip(pair[1].iter()).skip(1))
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    let share = f64::from(flipped) / f64::from(4095 * 19 * 8);
    assert!((0.49..0.51).contains(&share), "{share}");
    for at in 1..ID_BYTES {
        let values: HashSet<_> = ids.iter().map(|id| id[at]).collect();
        assert!(values.len() > 250, "byte {at} has {} values", values.len());
    }
}
