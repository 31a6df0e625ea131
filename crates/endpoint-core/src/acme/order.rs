//! How is one order made, and how does its failure count?

use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tracing::debug;

use super::{
    entries::NoteError,
    issuer::{Account, Fault, IssueError, Issued, Issuer, Order, Window},
    schedule::Authority,
    source::AcmeSource,
    steps::ORDER,
};
use crate::{
    certs::{
        history::{Failure, LONGEST_WAIT, Suggested},
        pace::later,
        vault::{Held, Origin},
    },
    config::ChallengeKind,
};

/// When an authority is asked again that did not say when it wants a certificate renewed.
const ASK_LATER: Duration = Duration::from_secs(6 * 3600);
/// When one is asked again that has no opinion.
const ASK_SELDOM: Duration = Duration::from_secs(24 * 3600);

/// Who is asked, and how.
pub(super) struct Target<'a> {
    pub(super) authority: &'a Authority,
    pub(super) client: &'a dyn Issuer,
    /// What is issued there is thrown away.
    pub(super) staging: bool,
}

/// What an order came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Done {
    /// A certificate that is served.
    Issued,
    /// The staging directory issued.
    Staged,
    /// It failed, and that is entered.
    Failed,
}

impl AcmeSource {
    /// Orders; `None`: the staging directory issued.
    pub(super) async fn issue(&self, target: &Target<'_>) -> Result<Option<Held>, IssueError> {
        let desk = &self.desk;
        let account = desk.account(target.authority, target.client).await?;
        let directory = target.authority.url();
        let replaces = self.replaced().await;
        let order = Order {
            name: self.name.clone(),
            challenges: self.proofs(),
            key: target.authority.issuer.key_type,
            profile: target.authority.issuer.profile.clone(),
            // Only the authority that issued a certificate knows it.
            replaces: replaces.filter(|_| !target.staging && self.issued_by(directory)),
            answers: desk.answers(),
        };
        let issued = match target.client.issue(&account, &order).await {
            Err(error) if error.kind == Fault::AccountUnknown => {
                let account =
                    desk.register_again(target.authority, target.client, &account).await?;
                target.client.issue(&account, &order).await?
            }
            issued => issued?,
        };
        if target.staging {
            return Ok(None);
        }
        let origin = Origin {
            source: "acme".to_owned(),
            issuer: Some(directory.to_owned()),
            engine: Some(target.client.engine().to_owned()),
        };
        Ok(Some(self.judged(&issued, origin)?))
    }

    /// The leaf that the next one replaces, if its authority has not heard that of another one before.
    async fn replaced(&self) -> Option<CertificateDer<'static>> {
        let stands_in = self.state().held.as_ref().is_none_or(|held| held.generation == 0);
        let (leaf, digest) = self.leaf_certificate().filter(|_| !stands_in)?;
        (!self.desk.vault.was_succeeded(&digest).await).then_some(leaf)
    }

    /// The proofs in the order in which this order tries them: after a failure another one goes first.
    fn proofs(&self) -> Vec<ChallengeKind> {
        let mut proofs = self.desk.config.challenges.clone();
        let failures = usize::try_from(self.state().history.streak).unwrap_or(0);
        if let Some(first) = failures.checked_rem(proofs.len()) {
            proofs.rotate_left(first);
        }
        proofs
    }

    /// Asks when the certificate that is held should be renewed.
    async fn window(
        &self,
        target: &Target<'_>,
        leaf: &CertificateDer<'static>,
    ) -> Result<Option<Window>, IssueError> {
        let account: Account = self.desk.account(target.authority, target.client).await?;
        match target.client.window(&account, leaf).await {
            Err(error) if error.kind == Fault::AccountUnknown => {
                let account =
                    self.desk.register_again(target.authority, target.client, &account).await?;
                target.client.window(&account, leaf).await
            }
            asked => asked,
        }
    }

    /// Asks the authority when it wants the certificate renewed.
    pub(super) async fn ask(&self, authority: usize, now: Timestamp) -> Result<(), String> {
        let Some(authority) = self.desk.authorities.get(authority) else { return Ok(()) };
        let Some((leaf, digest)) = self.leaf_certificate() else { return Ok(()) };
        let (client, why) = self.desk.clients.client(&authority.issuer, &self.name)?;
        self.state().standing.engine = Some((client.engine(), why));
        let target = Target { authority, client: client.as_ref(), staging: false };
        let asked = timeout(ORDER, self.window(&target, &leaf)).await;
        let asked = asked.unwrap_or_else(|_| Err(too_late(ORDER)));
        let (window, wait) = match asked {
            Ok(Some(window)) => {
                // Neither without end nor without pause (RFC 9773 §4.3).
                let wait = window.ask_again.clamp(Duration::from_secs(60), ASK_SELDOM);
                (Some((window.start.into(), window.end.into())), wait)
            }
            Ok(None) => (None, ASK_SELDOM),
            Err(error) => {
                debug!(name = self.name, %error, "the authority gave no renewal window");
                let known = self.state().history.suggested.clone();
                let window = known.filter(|known| known.leaf == digest).and_then(|k| k.window);
                let wait = error.retry_after.unwrap_or(ASK_LATER);
                (window, wait.clamp(Duration::from_secs(60), LONGEST_WAIT))
            }
        };
        let ask_at = later(now, wait).into();
        let suggested = Suggested { leaf: digest, window, ask_at };
        match self.note(|history| history.suggested = Some(suggested.clone())).await {
            Ok(()) | Err(NoteError::Store(_)) => Ok(()),
            Err(NoteError::Other(why)) => Err(why),
        }
    }

    /// Holds what was issued against what was ordered.
    fn judged(&self, issued: &Issued, origin: Origin) -> Result<Held, IssueError> {
        let now = self.desk.clock.now();
        Held::issued(&self.name, &issued.chain, &issued.key, origin, now, &self.desk.provider)
            .map_err(|why| IssueError {
                kind: Fault::Refused,
                detail: format!("what was issued cannot be served: {why}"),
                retry_after: None,
            })
    }
}

/// How a fault counts, and what is said about it.
pub(super) fn counted(error: &IssueError, directory: &str) -> (Failure, String) {
    let failure = match error.kind {
        Fault::RateLimited => Failure::Limited,
        Fault::Refused | Fault::AccountRefused => Failure::Refused,
        Fault::AccountUnknown | Fault::Store | Fault::Unavailable => Failure::Unavailable,
    };
    (failure, format!("{directory}: {error}"))
}

/// The authority took longer than anything may take.
pub(super) fn too_late(after: Duration) -> IssueError {
    IssueError {
        kind: Fault::Unavailable,
        detail: format!("the authority was not done within {} s", after.as_secs()),
        retry_after: None,
    }
}
