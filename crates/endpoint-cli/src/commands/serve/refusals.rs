//! Which refused keys does the operator's log name?
//!
//! A stranger gets a close code; the operator gets a line with the fingerprint and the command that
//! lets it in. Strangers can make as many keys as they like, so lines are rationed: one a key and
//! ten in all each minute. `status` keeps the last refused keys whatever is logged.

use std::{collections::VecDeque, time::Duration};

use endpoint_core::{endpoint::Endpoint, event::Event, identity::Fingerprint};
use tokio::{sync::broadcast::error::RecvError, time::Instant};

use crate::state::State;

/// Logs refused keys until the endpoint is gone.
pub(super) async fn tell(endpoint: &Endpoint, state: &State) {
    let mut events = endpoint.events();
    let mut ration = Ration::default();
    loop {
        match events.recv().await {
            Ok(Event::Denied { peer: Some(key), alpn, remote, reason }) => {
                if ration.takes(key, Instant::now()) {
                    let allow = state.command(&format!("trust add {key}"));
                    tracing::info!(%key, alpn, %remote, reason, allow, "key refused");
                }
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What was logged in the last minute: at most [`LINES`] entries.
#[derive(Debug, Default)]
struct Ration(VecDeque<(Instant, Fingerprint)>);

impl Ration {
    fn takes(&mut self, key: Fingerprint, now: Instant) -> bool {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) >= PERIOD) {
            self.0.pop_front();
        }
        if self.0.len() >= LINES || self.0.iter().any(|(_, logged)| *logged == key) {
            return false;
        }
        self.0.push_back((now, key));
        true
    }
}

const LINES: usize = 10;
const PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_key_once_a_minute_and_ten_keys_at_most() {
        let mut ration = Ration::default();
        let start = Instant::now();
        let key = |number| Fingerprint::from_bytes([number; 32]);
        assert!(ration.takes(key(0), start));
        assert!(!ration.takes(key(0), start));
        let taken = (1..100).filter(|number| ration.takes(key(*number), start)).count();
        assert_eq!(taken, LINES - 1);
        assert!(ration.takes(key(0), start + PERIOD));
    }
}
