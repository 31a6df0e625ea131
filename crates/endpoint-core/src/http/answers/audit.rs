//! Who is given up?
//!
//! One task for each sum looks at all answers that wait, four times a second and whenever the sum has gone
//! above its budget. It ends with the last connection, and begins anew with the next.

use std::{
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{Account, Ledger, Waiting};

/// How often it looks, at least.
const OFTEN: Duration = Duration::from_millis(250);
/// Time for which an answer's bytes must have waited before another may have their room.
const BLOCKED: Duration = Duration::from_secs(1);
/// Pause between two looks while the sum is above its budget.
const BREATH: Duration = Duration::from_millis(20);
/// Time for an answer that was given up to be gone; then its connection ends.
const GRACE: Duration = Duration::from_secs(5);

/// Begins to look, unless somebody does.
pub(super) fn begin(ledger: &Arc<Ledger>, idle: Duration) {
    if ledger.auditing.swap(true, Ordering::AcqRel) {
        return;
    }
    let often = (idle / 8).clamp(Duration::from_millis(10), OFTEN);
    tokio::spawn(look(Looking { ledger: Arc::downgrade(ledger), ended: false }, often));
}

/// That somebody looks; however that ends, the next connection begins anew.
struct Looking {
    ledger: Weak<Ledger>,
    /// Told already.
    ended: bool,
}

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.upgrade().filter(|_| !self.ended) {
            ledger.auditing.store(false, Ordering::Release);
        }
    }
}

async fn look(mut looking: Looking, often: Duration) {
    loop {
        {
            let Some(ledger) = looking.ledger.upgrade() else { return };
            let _ = timeout(often, ledger.crowded.notified()).await;
            if !ledger.audit() {
                // Without a connection there is nothing to look at. One that comes now begins anew, or was
                // added before this and is seen here.
                ledger.auditing.store(false, Ordering::Release);
                if !ledger.audit() || ledger.auditing.swap(true, Ordering::AcqRel) {
                    looking.ended = true;
                    return;
                }
            }
        }
        sleep(BREATH).await;
    }
}

impl Ledger {
    /// Looks at all answers once; `false` if there is no connection.
    pub(super) fn audit(&self) -> bool {
        let now = self.look_at_the_clock();
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner).present();
        let budget = accounts.first().map_or(usize::MAX, |account| account.budget);
        // Whoever waits for room waits for a byte at least.
        let wanted = usize::from(self.queued.load(Ordering::Acquire) > 0);
        let held = self.held.load(Ordering::Relaxed).saturating_add(wanted);
        let over = held.saturating_sub(budget);
        let (mut blocked, mut going) = (Vec::new(), 0_usize);
        let holding = |account: &&Arc<Account>| account.held.load(Ordering::Relaxed) > 0;
        for account in accounts.iter().filter(holding) {
            let mut answers = account.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let present = answers.present();
            drop(answers);
            for answer in present.into_iter().filter(|answer| answer.held() > 0) {
                if let Some(gone) = answer.gone_since() {
                    if now.saturating_sub(gone) >= millis(GRACE) {
                        answer.end_connection();
                    }
                    // On their way out: nobody else has to go for these bytes.
                    going = going.saturating_add(answer.held());
                    continue;
                }
                let (silent, whole) = answer.silence(now);
                let silent = account.without_socket(now).map_or(0, |since| silent.min(since));
                if silent >= millis(account.idle) {
                    if answer.give_up(now) {
                        self.given_up.fetch_add(1, Ordering::Relaxed);
                    }
                } else if over > 0 && whole >= millis(BLOCKED) {
                    blocked.push((whole, answer));
                }
            }
        }
        self.make_room(over.saturating_sub(going), blocked, now);
        // Not only by those whose bytes are taken: room may have come in any way.
        if over == 0 {
            self.wake_queue();
        }
        !accounts.is_empty()
    }

    /// Gives up so many bytes of those that wait, the longest first.
    fn make_room(&self, mut over: usize, mut blocked: Vec<(u64, Arc<Waiting>)>, now: u64) {
        blocked.sort_by_key(|(silence, _)| std::cmp::Reverse(*silence));
        for (_, answer) in blocked {
            if over == 0 {
                return;
            }
            over = over.saturating_sub(answer.held());
            if answer.give_up(now) {
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
