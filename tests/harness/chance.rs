//! Chance that can be repeated: the same seed gives the same numbers on every machine.

/// Numbers from a seed (SplitMix64: one addition and three mixes a number).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins with what `parts` are together; a change of any is another beginning.
    #[must_use]
    pub fn of(parts: &[u64]) -> Self {
        Self(parts.iter().fold(0x5eed, |state, part| mix(state ^ part).wrapping_add(GOLDEN)))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.number() % (to - from + 1)
    }

    /// An index below `length`.
    ///
    /// # Panics
    /// If there is none.
    pub fn index(&mut self, length: usize) -> usize {
        assert!(length > 0, "nothing to choose from");
        usize::try_from(self.number() % length as u64).expect("below a usize")
    }

    /// Whether something happens that does so `per_mille` times in a thousand.
    pub fn happens(&mut self, per_mille: u64) -> bool {
        self.number() % 1000 < per_mille
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| self.number().to_le_bytes())
            .take(length / 8 + 1)
            .flatten()
            .collect();
        bytes.truncate(length);
        bytes
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_same_numbers_for_a_seed_and_others_for_another() {
        let bytes = |seed| Chance::new(seed).bytes(40);
        assert_eq!((bytes(7), bytes(7).len()), (bytes(7), 40));
        assert_ne!(bytes(7), bytes(8));
        assert_ne!(Chance::of(&[1, 2]).number(), Chance::of(&[2, 1]).number());
    }

    #[test]
    fn stays_within_its_bounds_and_keeps_its_rate() {
        let mut chance = Chance::new(1);
        assert!((0..1000).all(|_| (3..=5).contains(&chance.between(3, 5))));
        let happened = (0..10_000).filter(|_| chance.happens(300)).count();
        assert!((2_800..3_200).contains(&happened), "{happened} of 10,000");
    }
}
