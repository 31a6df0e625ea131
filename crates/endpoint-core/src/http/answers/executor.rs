//! How is one answer over HTTP/2 given up, when hyper does not look at its body?
//!
//! While a client keeps its windows closed, hyper waits for them and polls nothing of ours. But it runs each
//! request as a task on an executor that we choose: dropped, the task resets its stream (CANCEL) and h2 throws
//! away what it holds of it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use super::Waiting;

/// The executor of one connection. Clones are the same connection's.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Streams(Arc<Mutex<Option<Arc<Waiting>>>>);

impl Streams {
    /// Says whose task comes next: hyper hands it over right after it has called the service.
    pub(in crate::http) fn next_is(&self, answer: &Arc<Waiting>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(answer));
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Some(answer) => {
                tokio::spawn(Watched { task: Some(task), answer });
            }
            None => {
                tokio::spawn(task);
            }
        }
    }
}

pin_project! {
    /// The task of one request.
    struct Watched<F> {
        #[pin]
        task: Option<F>,
        answer: Arc<Waiting>,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        this.answer.is_sent_by(cx);
        if this.answer.is_given_up() {
            tracing::debug!("the client takes nothing of its answer");
            this.task.set(None);
            return Poll::Ready(());
        }
        let Some(task) = this.task.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if task.poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.answer.let_go();
        Poll::Ready(())
    }
}
