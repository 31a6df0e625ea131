//! How does one task wait for what seldom comes, beside what comes all the time?
//!
//! A task that is woken for a packet asks everything that it waits for, also the deadlines, revocations and
//! streams that did not wake it. A [`Notice`] gives these a waker of its own, and asks them only after that.
//!
//! Always true: what is waited for is asked at first, and after each of its wakes.

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
    let (notice, mut waited) = (Notice::new(), pin!(waited));
    std::future::poll_fn(|task| notice.poll(task, |cx| waited.as_mut().poll(cx))).await
}

/// Remembers that something that was waited for woke, and passes it on.
pub(crate) struct Notice {
    inner: Arc<Inner>,
    /// Wakes `inner`.
    waker: Waker,
}

struct Inner {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Notice {
    /// One that has not looked yet.
    pub(crate) fn new() -> Self {
        let inner = Arc::new(Inner { woken: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&inner)), inner }
    }

    /// Calls `look` if it has not said yet that nothing is there, or was woken since.
    pub(crate) fn poll<T>(
        &self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Before the flag is read, so that what wakes later finds this task.
        self.inner.task.register(cx.waker());
        // Read before it is written, which is dearer.
        let woken = &self.inner.woken;
        if !woken.load(Ordering::Acquire) || !woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let looked = look(&mut Context::from_waker(&self.waker));
        if looked.is_ready() {
            // There may be more.
            woken.store(true, Ordering::Release);
        }
        looked
    }
}

impl Wake for Inner {
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

    #[test]
    fn looks_again_only_when_something_is_new() {
        let notice = Notice::new();
        let cx = Context::from_waker(Waker::noop());
        let mut kept = None;
        let looked = notice.poll(&cx, |cx| {
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        assert!(looked.is_pending());
        assert!(notice.poll(&cx, |_| Poll::Ready(1)).is_pending());
        kept.unwrap().wake();
        assert_eq!(notice.poll(&cx, |_| Poll::Ready(2)), Poll::Ready(2));
        assert_eq!(notice.poll(&cx, |_| Poll::Ready(3)), Poll::Ready(3));
    }
}
