//! Who answers the commands?
//!
//! The running endpoint, over the socket of `place`. Answers only processes of its own user, a
//! few at a time, one request each.
//!
//! Always true: a client that says nothing, too much or nonsense costs one task for a bounded time.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::protocol::{Answer, MAX_REQUEST_BYTES, ProtocolError, Request};
use crate::error::{CliError, Result};

/// Does what requests ask for.
pub trait Desk: Send + Sync + 'static {
    /// The items of the answer, or what is wrong.
    fn answer(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Vec<serde_json::Value>, String>> + Send;
}

/// Listens on `socket`, replacing a dead one. The caller holds the state folder's claim.
///
/// Dropping the returned future stops listening.
///
/// # Errors
/// The socket cannot be made.
pub fn serve<D: Desk>(
    socket: &Path,
    desk: Arc<D>,
) -> Result<impl Future<Output = ()> + Send + use<D>> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::io("replace the socket", socket, &error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket)
        .map_err(|error| CliError::io("listen on the socket", socket, &error))?;
    // The folder is 0700, so nobody else can connect before this takes effect.
    fs::set_permissions(socket, Permissions::from_mode(0o600))
        .map_err(|error| CliError::io("restrict the socket", socket, &error))?;
    Ok(accept(listener, desk))
}

async fn accept(listener: UnixListener, desk: Arc<impl Desk>) {
    let slots = Arc::new(Semaphore::new(CLIENTS_AT_ONCE));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        let desk = Arc::clone(&desk);
        clients.spawn(async move {
            let _slot = slot;
            client(stream, &*desk).await;
        });
    }
}

/// Answers one client. Errors of its socket concern nobody but it.
async fn client(stream: UnixStream, desk: &impl Desk) {
    let me = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == me => {}
        _ => {
            tracing::warn!("control client of another user was turned away");
            return;
        }
    }
    let (read, mut write) = stream.into_split();
    // One byte more than allowed tells a long line from a full one.
    let limit = u64::try_from(MAX_REQUEST_BYTES.saturating_add(1)).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(limit));
    if !matches!(timeout(REQUEST_DEADLINE, read.read_until(b'\n', &mut line)).await, Ok(Ok(_))) {
        return;
    }
    let outcome = match Request::parse(&line) {
        Ok(request) => {
            let patience = request.patience();
            match timeout(patience, desk.answer(request)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("it took longer than {} s", patience.as_secs())),
            }
        }
        Err(error @ (ProtocolError::Malformed | ProtocolError::TooLong { .. })) => {
            Err(error.to_string())
        }
    };
    let (items, last) = match outcome {
        Ok(items) => (items, Answer::Done {}),
        Err(message) => (Vec::new(), Answer::Error { message }),
    };
    let tell = async {
        for answer in items.into_iter().map(|item| Answer::Item { item }).chain([last]) {
            if write.write_all(&answer.to_line()).await.is_err() {
                return;
            }
        }
        let _closed = write.shutdown().await;
    };
    if timeout(CLIENT_DEADLINE, tell).await.is_err() {
        tracing::debug!("control client was too slow");
    }
}

const CLIENTS_AT_ONCE: usize = 16;
const CLIENT_DEADLINE: Duration = Duration::from_secs(30);
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
