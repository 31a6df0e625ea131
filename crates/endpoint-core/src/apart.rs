//! Where may a call wait for the disk?
//!
//! Ground. On a plain thread of its own, made for the one call: a disk that hangs keeps that thread and
//! nothing else. The pool of tokio's blocking calls is no such place: it is shared with look-ups of names, has
//! an end, and a runtime waits for it when it is dropped.
//!
//! Always true: whoever waits can give up; the number of threads is bounded by callers, none of which begins
//! a second call before the first has ended: because it is one task that waits, or by [`Turns`].

use std::{fmt::Display, sync::Arc, thread};

use tokio::sync::{Mutex, oneshot};

/// Runs `work` on a thread of its own.
///
/// # Errors
/// What `work` said, or that it panicked, or that the system gives no thread.
pub(crate) async fn apart<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    let (done, waiting) = oneshot::channel();
    let run = move || {
        // Nobody may wait any more.
        let _ = done.send(work());
    };
    let thread = thread::Builder::new().name("apart".to_owned()).spawn(run);
    thread.map_err(|error| format!("no thread could be started: {error}"))?;
    match waiting.await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("the work on it panicked; see the log".to_owned()),
    }
}

/// For what many ask for at once: one call at a time, also after who asked for it has given up.
#[derive(Debug, Default)]
pub(crate) struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Runs `work` as [`apart`] does, when no other is under way.
    ///
    /// # Errors
    /// As [`apart`].
    pub(crate) async fn apart<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        E: Display + Send + 'static,
    {
        let turn = Arc::clone(&self.0).lock_owned().await;
        apart(move || {
            // Given back by the thread: with a disk that hangs it stays taken.
            let _turn = turn;
            work()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn one_call_that_hangs_is_all_that_turns_let_hang() {
        let (turns, begun) = (Turns::default(), Arc::new(AtomicUsize::new(0)));
        let (disk, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(std::sync::Mutex::new(hangs));
        let work = || {
            let (begun, hangs) = (Arc::clone(&begun), Arc::clone(&hangs));
            move || {
                begun.fetch_add(1, Ordering::SeqCst);
                // Until the other end is dropped.
                let _ = hangs.lock().unwrap().recv();
                Ok::<_, String>(())
            }
        };
        for _ in 0..5 {
            assert!(timeout(Duration::from_millis(50), turns.apart(work())).await.is_err());
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        drop(disk);
        assert_eq!(turns.apart(work()).await, Ok(()));
        let panicked = turns.apart(|| -> Result<(), String> { panic!("wanted") }).await;
        assert!(panicked.is_err());
        assert_eq!(turns.apart(|| Ok::<_, String>(2)).await, Ok(2));
    }

    #[tokio::test]
    async fn gives_what_the_work_gives_and_survives_its_panic() {
        assert_eq!(apart(|| Ok::<_, String>(1)).await, Ok(1));
        assert_eq!(apart(|| Err::<(), _>("no")).await, Err("no".to_owned()));
        let panicked = apart(|| -> Result<(), String> { panic!("wanted") }).await;
        assert!(panicked.unwrap_err().contains("panicked"));
    }
}
