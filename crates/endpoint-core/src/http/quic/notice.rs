//! Is there anything new? Streams that seldom say something are read only when they woke us.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Remembers that something that was waited for woke, and passes it on.
pub(super) struct Notice {
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
    pub(super) fn new() -> Self {
        let inner = Arc::new(Inner { woken: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&inner)), inner }
    }

    /// Calls `look` if it has not said yet that nothing is there, or was woken since.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Before the flag is read, so that what wakes later finds this task.
        self.inner.task.register(cx.waker());
        if !self.inner.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let looked = look(&mut Context::from_waker(&self.waker));
        if looked.is_ready() {
            // There may be more.
            self.inner.woken.store(true, Ordering::Release);
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
    use super::*;

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
