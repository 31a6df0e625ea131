//! How does one task wait for what seldom comes, beside what comes all the time?
//!
//! A task that is woken for a packet asks everything that it waits for, also the deadlines and revocations
//! that did not wake it. [`once_woken`] gives what it wraps a waker of its own, and asks it only after that.
//!
//! Always true: what is wrapped is asked first when it is waited for, and after each of its wakes.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Waits for `waited`, which is polled only when it asked for it.
pub(crate) async fn once_woken<F: Future>(waited: F) -> F::Output {
    let own = Arc::new(OwnWaker { woken: AtomicBool::new(true), task: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&own));
    let mut waited = pin!(waited);
    std::future::poll_fn(|task| {
        // Before the flag is read: a wake between the two is one for the new waker.
        own.task.register(task.waker());
        // Read before it is written, which is dearer.
        if own.woken.load(Ordering::Acquire) && own.woken.swap(false, Ordering::AcqRel) {
            waited.as_mut().poll(&mut Context::from_waker(&waker))
        } else {
            Poll::Pending
        }
    })
    .await
}

struct OwnWaker {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for OwnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use futures_util::FutureExt;
    use tokio::{sync::Notify, time};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_woke_is_not_asked() {
        let (asked, rung, noise) = (Cell::new(0), Notify::new(), Notify::new());
        let seldom = async {
            let mut bell = pin!(rung.notified());
            std::future::poll_fn(|task| {
                asked.set(asked.get() + 1);
                bell.as_mut().poll(task)
            })
            .await;
        };
        let mut seldom = pin!(once_woken(seldom));
        for _ in 0..100 {
            noise.notify_one();
            tokio::select! {
                biased;
                () = seldom.as_mut() => panic!("nobody rang"),
                () = noise.notified() => {}
            }
        }
        assert_eq!(asked.get(), 1);
        rung.notify_one();
        seldom.await;
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn timers_and_other_tasks_wake_it_and_it_follows_to_another_task() {
        once_woken(time::sleep(Duration::from_secs(1))).await;
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        let mut waiting = Box::pin(once_woken(async move { rung.notified().await }));
        // Asked here once, and waited for elsewhere.
        assert!(waiting.as_mut().now_or_never().is_none());
        let elsewhere = tokio::spawn(waiting);
        tokio::task::yield_now().await;
        bell.notify_one();
        elsewhere.await.unwrap();
    }
}
