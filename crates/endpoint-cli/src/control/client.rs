//! What does the running endpoint answer?
//!
//! Asks the server of a state folder one thing and waits for the whole answer.
//!
//! Always true: nothing is believed that a process of another user says.

use std::{io::ErrorKind, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{
    place,
    protocol::{Answer, MAX_ANSWER_BYTES, Request},
};
use crate::{
    error::{CliError, Result},
    state::State,
};

/// Asks the server of `state`; gives the items of its answer.
///
/// # Errors
/// No server runs (code `no-server`), it refuses, or it does not answer in time.
pub async fn ask(state: &State, request: Request) -> Result<Vec<Value>> {
    match ask_if_running(state, request).await? {
        Some(items) => Ok(items),
        None => {
            let folder = state.folder().display();
            let message = format!("no endpoint is running for this state folder ({folder})");
            Err(CliError::failure("no-server", message)
                .hint(format!("start one: {}", state.command("serve")))
                .hint("or name another folder: endpoint --state DIR …"))
        }
    }
}

/// As [`ask`], but `None` if no server runs.
///
/// # Errors
/// The server refuses or does not answer in time.
pub async fn ask_if_running(state: &State, request: Request) -> Result<Option<Vec<Value>>> {
    let Some((pid, socket)) = place::server(state).await? else { return Ok(None) };
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(CliError::io("reach the endpoint at", &socket, &error)),
    };
    let me = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == me) {
        let message = format!("the socket {} is served by another user", socket.display());
        return Err(CliError::failure("control-foreign", message)
            .hint("run this command as the user that runs the endpoint"));
    }
    let deadline = request.patience().saturating_add(MARGIN);
    match timeout(deadline, converse(stream, request)).await {
        Ok(answer) => answer.map(Some),
        Err(_) => {
            let seconds = deadline.as_secs();
            let message = format!("the running endpoint gave no answer within {seconds} s");
            let look = match pid {
                Some(pid) => format!("ps -p {pid}"),
                None => "ps -C endpoint".to_owned(),
            };
            Err(CliError::failure("control-timeout", message)
                .hint(format!("look at the process: {look}")))
        }
    }
}

async fn converse(stream: UnixStream, request: Request) -> Result<Vec<Value>> {
    let broken = |cause: &str| {
        CliError::failure("control", format!("the running endpoint broke off: {cause}"))
            .hint("see its log; it may have ended: endpoint status")
    };
    let (read, mut write) = stream.into_split();
    write
        .write_all(&request.to_line())
        .await
        .map_err(|error| broken(&crate::error::io_cause(&error)))?;
    let mut read = BufReader::new(read);
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_ANSWER_BYTES.saturating_add(1)).unwrap_or(u64::MAX);
        let count = (&mut read)
            .take(limit)
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| broken(&crate::error::io_cause(&error)))?;
        if count == 0 {
            return Err(broken("the answer has no end"));
        }
        match Answer::parse(&line).map_err(|error| broken(&error.to_string()))? {
            Answer::Item { item } => items.push(item),
            Answer::Done {} => return Ok(items),
            Answer::Error { message } => return Err(CliError::failure("control", message)),
        }
    }
}

/// What the server may take beyond its own deadline.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::control::{Claim, Desk, protocol::MAX_REQUEST_BYTES, serve};

    struct Stub;

    impl Desk for Stub {
        async fn answer(&self, request: Request) -> Result<Vec<Value>, String> {
            match request {
                Request::Status => Ok(vec!["fine".into()]),
                Request::Connections => Ok((0..100).map(Value::from).collect()),
                _ => Err("not now".into()),
            }
        }
    }

    fn state(root: &Path) -> State {
        let state = State::resolve(Some(root)).unwrap();
        state.make().unwrap();
        state
    }

    #[tokio::test]
    async fn gives_the_items_and_the_refusals_of_the_server() {
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        let claim = Claim::take(&state).unwrap();
        let server = tokio::spawn(serve(claim.socket(), Arc::new(Stub)).unwrap());
        assert_eq!(ask(&state, Request::Status).await.unwrap(), ["fine"]);
        assert_eq!(ask(&state, Request::Connections).await.unwrap().len(), 100);
        assert_eq!(
            ask(&state, Request::Reload { added: None }).await.unwrap_err().message,
            "not now"
        );
        server.abort();
    }

    #[tokio::test]
    async fn says_that_no_server_runs_also_when_one_was_killed() {
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        let error = ask(&state, Request::Status).await.unwrap_err();
        assert_eq!(error.code, "no-server");
        assert_eq!(ask_if_running(&state, Request::Reload { added: None }).await, Ok(None));
        // What a killed server leaves: its pid file and a socket that nobody accepts on.
        let dead = state.file("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        std::fs::write(state.file("endpoint.pid"), format!("1\n{}\n", dead.display())).unwrap();
        assert_eq!(ask_if_running(&state, Request::Reload { added: None }).await, Ok(None));
        // And a new server replaces it.
        let claim = Claim::take(&state).unwrap();
        let server = tokio::spawn(serve(claim.socket(), Arc::new(Stub)).unwrap());
        ask(&state, Request::Status).await.unwrap();
        server.abort();
    }

    #[tokio::test]
    async fn keeps_the_socket_for_its_owner_and_refuses_nonsense() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let state = state(root.path());
        let claim = Claim::take(&state).unwrap();
        let server = tokio::spawn(serve(claim.socket(), Arc::new(Stub)).unwrap());
        let mode = std::fs::metadata(claim.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for nonsense in [b"hello\n".to_vec(), vec![b'x'; MAX_REQUEST_BYTES + 1]] {
            let mut stream = UnixStream::connect(claim.socket()).await.unwrap();
            stream.write_all(&nonsense).await.unwrap();
            let mut answer = Vec::new();
            let _end = stream.read_to_end(&mut answer).await;
            assert!(matches!(Answer::parse(&answer), Ok(Answer::Error { .. })), "{answer:?}");
        }
        server.abort();
    }
}
