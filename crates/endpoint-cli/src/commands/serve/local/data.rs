//! What do the status page and the metrics show?

use std::sync::Arc;

use endpoint_core::{
    clock::Clock,
    endpoint::{CertificateInfo, Endpoint},
    event::Event,
    http::Answers,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast};

use super::super::desk::FrontDesk;

/// Readers of the event feed at one time.
const READERS: usize = 16;

/// The endpoint as the page sees it: nothing here changes anything.
#[derive(Clone, Debug)]
pub(in super::super) struct Facts {
    endpoint: Endpoint,
    desk: Arc<FrontDesk>,
    readers: Arc<Semaphore>,
    answers: Answers,
}

impl Facts {
    pub(in super::super) fn new(endpoint: Endpoint, desk: Arc<FrontDesk>) -> Self {
        let (readers, answers) = (Arc::new(Semaphore::new(READERS)), Answers::default());
        Self { endpoint, desk, readers, answers }
    }

    /// The same, with the sum of the answers that wait.
    pub(super) fn with_answers(self, answers: &Answers) -> Self {
        Self { answers: answers.clone(), ..self }
    }

    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All that the page shows, as `/status.json` gives it.
    pub(super) fn all(&self) -> Value {
        let mut status = self.desk.status();
        let now = Clock::system().now();
        let certificates: Vec<Value> =
            self.endpoint.certificates().iter().map(|info| certificate(info, now)).collect();
        if let Some(fields) = status.as_object_mut() {
            fields.insert("certificates".into(), certificates.into());
            fields.insert("live".into(), self.desk.connections().into());
        }
        status
    }

    /// What happens from now on, and the place among the readers; `None` if there are too many.
    pub(super) fn events(
        &self,
    ) -> Option<(broadcast::Receiver<Event>, tokio::sync::OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        Some((self.endpoint.events(), place))
    }
}

/// As `cert list --json` prints it, and how many days are left.
fn certificate(info: &CertificateInfo, now: jiff::Timestamp) -> Value {
    let mut object = super::super::super::cert::object(info);
    let days = info.not_after.duration_since(now).as_hours().div_euclid(24);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("days_left".into(), json!(days));
    }
    object
}
