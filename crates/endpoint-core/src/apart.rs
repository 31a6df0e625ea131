//! Where may a call wait for the disk?
//!
//! Ground. On a plain thread of its own, made for the one call: a disk that hangs keeps that thread and
//! nothing else. The pool of tokio's blocking calls is no such place: it is shared with look-ups of names, has
//! an end, and a runtime waits for it when it is dropped.
//!
//! Always true: whoever waits can give up; the number of threads is bounded by callers, none of which begins
//! a second call before the first has ended.

use std::{fmt::Display, thread};

use tokio::sync::oneshot;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_what_the_work_gives_and_survives_its_panic() {
        assert_eq!(apart(|| Ok::<_, String>(1)).await, Ok(1));
        assert_eq!(apart(|| Err::<(), _>("no")).await, Err("no".to_owned()));
        let panicked = apart(|| -> Result<(), String> { panic!("wanted") }).await;
        assert!(panicked.unwrap_err().contains("panicked"));
    }
}
