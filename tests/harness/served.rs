//! How long honest ones wait, while others do their worst.

use std::time::{Duration, Instant};

/// What became of the honest ones.
#[derive(Debug, Default)]
pub struct Served {
    /// How long each that was served waited.
    pub waits: Vec<Duration>,
    /// Why others were not.
    pub failures: Vec<String>,
}

impl Served {
    /// The wait that 99 of 100 do not exceed.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let at = (waits.len() * 99).div_ceil(100).saturating_sub(1);
        waits.get(at).copied().unwrap_or_default()
    }

    /// All who came.
    #[must_use]
    pub fn all(&self) -> usize {
        self.waits.len() + self.failures.len()
    }

    /// Adds one visit.
    pub fn add(&mut self, who: &str, began: Instant, visit: Result<(), String>) {
        match visit {
            Ok(()) => self.waits.push(began.elapsed()),
            Err(why) => {
                self.failures.push(format!("{who} after {:?}: {why}", began.elapsed()));
            }
        }
    }
}
