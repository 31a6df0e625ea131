//! What does a reload take in?
//!
//! The trust file and certificates, by the library, and the limits of the configuration file. Everything else
//! of that file waits for the next start, and is told.
//!
//! Always true: a file with faults changes nothing; a disk that hangs holds up no reload for longer than
//! [`READING`], and keeps one thread at the most, which holds nothing of the endpoint.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use endpoint_core::endpoint::Endpoint;
use tokio::{sync::oneshot, time::timeout};

use super::files::{OpenFiles, Room};
use crate::{
    config::{
        Config,
        limits::{self, Acts, Limit},
    },
    error::{CliError, Result},
    state::State,
};

/// How long a reload waits for the disk under the configuration.
const READING: Duration = Duration::from_secs(2);

/// What is needed to read the configuration again.
#[derive(Debug)]
pub(super) struct Reloading {
    endpoint: Endpoint,
    file: Option<PathBuf>,
    state: State,
    files: OpenFiles,
    /// As it was at the start.
    started: Config,
    /// As it was read last.
    config: Mutex<Config>,
    /// Held by the thread that reads the file.
    read: Arc<tokio::sync::Mutex<()>>,
}

impl Reloading {
    /// `config` is what was read at the start, from `file` if one was named.
    pub(super) fn new(
        endpoint: Endpoint,
        file: Option<PathBuf>,
        state: State,
        files: OpenFiles,
        config: Config,
    ) -> Arc<Self> {
        let started = config.clone();
        let (config, read) = (Mutex::new(config), Arc::default());
        Arc::new(Self { endpoint, file, state, files, started, config, read })
    }

    /// Reloads all that can be.
    pub(super) async fn reload(self: Arc<Self>) {
        // The library logs what came of trust.
        let (_trust, read) = tokio::join!(self.endpoint.reload(), timeout(READING, self.read()));
        match read {
            Ok(Ok(Ok(config))) => self.take(config),
            Ok(Ok(Err(fault))) => refused(&fault),
            Ok(Err(error)) => tracing::error!(%error, "the configuration could not be read again"),
            Err(_) => tracing::error!(
                seconds = READING.as_secs(),
                "the disk under the configuration does not answer: nothing of it changes before the \
                 next reload"
            ),
        }
    }

    /// Reads the file on a thread of its own, one at a time also if nobody waits for it any more.
    async fn read(&self) -> io::Result<Result<Config>> {
        let turn = Arc::clone(&self.read).lock_owned().await;
        let (file, state) = (self.file.clone(), self.state.clone());
        let (done, waiting) = oneshot::channel();
        thread::Builder::new().name("configuration".to_owned()).spawn(move || {
            let _turn = turn;
            let _waited_for = done.send(Config::load(file.as_deref(), &state));
        })?;
        let read = waiting.await.map_err(io::Error::other)?;
        Ok(read.map(|(config, _)| config))
    }

    fn take(&self, after: Config) {
        self.tell_what_waits(&after);
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let live = |limit: &&Limit| limit.acts != Acts::Restart;
        let changed: Vec<_> = limits::changed(&config, &after).filter(live).collect();
        if !changed.is_empty() {
            for limit in changed {
                let (name, acts) = (limit.name, limit.acts.as_str());
                tracing::info!(limit = name, value = value(limit, &after), acts, "limit changed");
            }
            let Room { limits, warning, .. } = self.files.room(&after);
            if let Some((reason, hint)) = warning {
                tracing::warn!(reason, hint, "fewer connections than the file asks for");
            }
            let ended = self.endpoint.set_limits(limits);
            tracing::info!(ended, "limits reloaded");
        }
        *config = after;
    }

    /// Says what the file changes that acts at the next start, as long as it waits.
    fn tell_what_waits(&self, after: &Config) {
        let waits = |limit: &&Limit| limit.acts == Acts::Restart;
        for limit in limits::changed(&self.started, after).filter(waits) {
            let name = limit.name;
            tracing::warn!(limit = name, value = value(limit, after), "needs a restart to act");
        }
        for part in self.started.other_parts(after) {
            tracing::warn!(part, "changed in the file and needs a restart to act");
        }
    }
}

fn value(limit: &Limit, config: &Config) -> String {
    let said = limit.of(config).map(|value| value.to_string());
    said.unwrap_or_else(|| limit.follows().unwrap_or_default().to_owned())
}

fn refused(fault: &CliError) {
    let faults = if fault.others.is_empty() { std::slice::from_ref(fault) } else { &fault.others };
    for fault in faults {
        let place = fault.place.as_ref();
        let place = place.map(|at| format!("{}:{}:{}", at.file.display(), at.line, at.column));
        let reason = &fault.message;
        tracing::error!(place, reason, "configuration refused: nothing of it changes");
    }
}
