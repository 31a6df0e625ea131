//! Engine 2: how does instant-acme obtain a certificate for us?
//!
//! For what rustls-acme lacks: external accounts, profiles, IP addresses, P-384, `replaces`, `Retry-After`.
//! Accounts, deadlines, refused nonces and waiting are driven here.

use std::{fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use ::instant_acme::{
    self as client, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, Identifier,
    NewOrder, OrderStatus,
};
use rustls::{ClientConfig, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{
    ari,
    csr::Csr,
    issuer::{
        Account, AccountKey, Answer, Asked, Fault, IssueError, Issued, Issuer, Order, Window,
    },
    limits::{Deadlines, Nonces, Pauses, whole},
    problem::{Problem, Step, Sub, refused, told, unavailable, unreached},
    published::Published,
    register::{Binding, Registration},
    rustls_acme::none_offered,
    wire::Wire,
};
use crate::{
    clock::Clock,
    config::ChallengeKind,
    transport::fetch::{Fetch, FetchError, cut},
};

/// A client of one authority.
pub(super) struct InstantAcme {
    pub(super) directory: String,
    pub(super) contact: Vec<String>,
    pub(super) binding: Option<Binding>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) deadlines: Deadlines,
    pub(super) clock: Clock,
}

impl Issuer for InstantAcme {
    fn engine(&self) -> &'static str {
        "instant-acme"
    }

    fn register<'a>(&'a self, key: &'a AccountKey) -> Asked<'a, String> {
        Box::pin(whole(self.deadlines, async move {
            let registration = Registration {
                fetch: &self.fetch(),
                directory: &self.directory,
                contact: &self.contact,
                binding: self.binding.as_ref(),
                clock: &self.clock,
            };
            registration.of(key).await
        }))
    }

    fn issue<'a>(&'a self, account: &'a Account, order: &'a Order) -> Asked<'a, Issued> {
        let run = Run {
            wire: Wire::new(self.fetch(), self.clock.clone()),
            nonces: Nonces::default(),
            engine: self,
            order,
        };
        Box::pin(whole(self.deadlines, run.issued(account)))
    }

    fn window<'a>(
        &'a self,
        _account: &'a Account,
        leaf: &'a CertificateDer<'static>,
    ) -> Asked<'a, Option<Window>> {
        Box::pin(
            async move { ari::window(&self.fetch(), &self.directory, leaf, &self.clock).await },
        )
    }
}

impl InstantAcme {
    fn fetch(&self) -> Fetch {
        let (tls, deadline) = (Arc::clone(&self.tls), self.deadlines.request);
        Fetch { tls, deadline, body_limit: ari::BODY_BYTES }
    }
}

impl fmt::Debug for InstantAcme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstantAcme({})", self.directory)
    }
}

/// One order.
struct Run<'a> {
    engine: &'a InstantAcme,
    order: &'a Order,
    wire: Wire,
    nonces: Nonces,
}

/// What one request to the authority will have answered.
type Answered<'s, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 's>>;

impl Run<'_> {
    async fn issued(mut self, account: &Account) -> Result<Issued, IssueError> {
        let csr = Csr::new(&self.order.name, self.order.key)?;
        let mut account = self.open(account).await?;
        self.offers_profile(&account)?;
        let mut placed = self.place(&mut account).await?;
        if placed.state().authorizations.len() != 1 {
            let why = format!(
                "{} authorizations for one name, expected one",
                placed.state().authorizations.len()
            );
            return Err(unavailable(Step::Order, &why));
        }
        self.prove(account.key_thumbprint(), &mut placed).await?;
        let chain = self.finish(&mut placed, &csr).await?;
        csr.issued(&chain, &self.engine.provider)
    }

    async fn open(&mut self, account: &Account) -> Result<client::Account, IssueError> {
        let key = PrivatePkcs8KeyDer::from(account.key.0.as_slice());
        let builder = client::Account::builder_with_http(Box::new(self.wire.clone()));
        let (url, directory) = (account.url.clone(), self.engine.directory.clone());
        let opened = builder.from_parts(url, key, directory).await;
        opened.map_err(|why| self.fault(Step::Directory, why))
    }

    /// Refuses a profile that the authority does not offer: it would issue another kind instead.
    fn offers_profile(&self, account: &client::Account) -> Result<(), IssueError> {
        let Some(profile) = self.order.profile.as_deref() else { return Ok(()) };
        let mut offered: Vec<_> = account.profiles().map(|offer| cut(offer.name)).collect();
        if offered.iter().any(|offer| offer == profile) {
            return Ok(());
        }
        offered.sort();
        let offers = match offered.is_empty() {
            true => "no profiles; remove `profile`".to_owned(),
            false => format!("{}; set `profile` to one of them", offered.join(", ")),
        };
        let profile = cut(profile);
        let detail = format!(
            "{} failed: the authority has no profile `{profile}`, it offers {offers}",
            Step::Order
        );
        Err(IssueError { kind: Fault::Refused, detail, retry_after: None })
    }

    /// Places the order; without `replaces` if the authority will not have that.
    async fn place(&mut self, account: &mut client::Account) -> Result<client::Order, IssueError> {
        let identifiers = [match self.order.name.parse::<IpAddr>() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns(self.order.name.clone()),
        }];
        let mut replaces = self.order.replaces.as_ref().and_then(ari::identifier);
        loop {
            let mut wanted = NewOrder::new(&identifiers);
            if let Some(profile) = self.order.profile.as_deref() {
                wanted = wanted.profile(profile);
            }
            if let Some(replaced) = replaces.clone() {
                wanted = wanted.replaces(replaced);
            }
            let why = match account.new_order(&wanted).await {
                Ok(placed) => return Ok(placed),
                Err(why) => why,
            };
            if self.stale(&why) {
                continue;
            }
            if replaces.is_none() {
                return Err(self.fault(Step::Order, why));
            }
            match (&why, self.wire.seen()) {
                // The order stands, but its answer does not repeat `replaces`.
                (Error::Other(inner), seen) if !inner.is::<FetchError>() && seen.status == 201 => {
                    let Some(url) = seen.location else {
                        return Err(self.fault(Step::Order, why));
                    };
                    return self
                        .ask(Step::Order, account, |account| {
                            let url = url.clone();
                            Box::pin(async move { account.order(url).await })
                        })
                        .await;
                }
                (Error::Unsupported(_), _) => {}
                _ => {
                    let fault = self.fault(Step::Order, why);
                    if fault.kind != Fault::Refused {
                        return Err(fault);
                    }
                }
            }
            replaces = None;
        }
    }

    /// Answers one challenge, and waits until the authority is content.
    async fn prove(
        &mut self,
        thumbprint: &str,
        placed: &mut client::Order,
    ) -> Result<(), IssueError> {
        let found = self.ask(Step::Authorization, placed, authorization).await?;
        match found.status {
            AuthorizationStatus::Valid => return Ok(()),
            AuthorizationStatus::Pending => {}
            _ => return Err(self.not_proved(found)),
        }
        let offered = |kind| found.offers.iter().find(|(offer, _)| *offer == kind);
        let picked = self.order.challenges.iter().find_map(|kind| offered(*kind));
        let Some((kind, token)) = picked else { return Err(none_offered(self.order)) };
        let answer = Answer {
            kind: *kind,
            name: self.order.name.clone(),
            token: token.clone(),
            key_authorization: format!("{token}.{thumbprint}"),
        };
        let published = Published::new(&self.order.answers, answer).await?;
        let proved = self.validated(*kind, placed).await;
        published.withdraw().await;
        proved
    }

    async fn validated(
        &mut self,
        kind: ChallengeKind,
        placed: &mut client::Order,
    ) -> Result<(), IssueError> {
        self.ask(Step::Announce, placed, |order| announce(order, kind)).await?;
        let mut pauses = Pauses::new(self.engine.deadlines);
        loop {
            pauses.wait(Step::Validate, self.asked_to_wait()).await?;
            let found = self.ask(Step::Authorization, placed, decision).await?;
            match found.status {
                AuthorizationStatus::Valid => return Ok(()),
                AuthorizationStatus::Pending => {}
                _ => return Err(self.not_proved(found)),
            }
        }
    }

    /// Asks for the certificate once the order is ready, and gives the chain.
    async fn finish(
        &mut self,
        placed: &mut client::Order,
        csr: &Csr,
    ) -> Result<String, IssueError> {
        let mut asked = false;
        let mut pauses = Pauses::new(self.engine.deadlines);
        loop {
            let mut status = self.ask(Step::Order, placed, refresh).await?;
            if status == OrderStatus::Ready && !asked {
                let request = csr.request.as_slice();
                status = self
                    .ask(Step::Finalize, placed, |order| finalize(order, request.to_vec()))
                    .await?;
                asked = true;
            }
            match status {
                OrderStatus::Valid => {
                    let chain = self.ask(Step::Certificate, placed, certificate).await?;
                    return chain
                        .ok_or_else(|| unavailable(Step::Certificate, "there is none after all"));
                }
                OrderStatus::Invalid => {
                    let problem = placed.state().error.clone().map(of_theirs);
                    let problem = problem.unwrap_or_default();
                    return Err(told(Step::Validate, 0, &problem, None, self.wire.clock.now()));
                }
                OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing => {}
            }
            pauses.wait(Step::Finalize, self.asked_to_wait()).await?;
        }
    }

    /// One request, again while the authority refuses the nonce.
    async fn ask<S: Send, T>(
        &mut self,
        step: Step,
        subject: &mut S,
        request: impl for<'s> Fn(&'s mut S) -> Answered<'s, T>,
    ) -> Result<T, IssueError> {
        loop {
            match request(subject).await {
                Ok(answer) => return Ok(answer),
                Err(why) if self.stale(&why) => {}
                Err(why) => return Err(self.fault(step, why)),
            }
        }
    }

    /// Whether the authority refused only the nonce, and it is worth another try.
    fn stale(&mut self, why: &Error) -> bool {
        let Error::Api(problem) = why else { return false };
        problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce")
            && self.nonces.again()
    }

    /// How long the last answer, which was a good one, asks to wait before the next look.
    fn asked_to_wait(&self) -> Option<Duration> {
        self.wire.seen().retry_after
    }

    fn not_proved(&self, found: Look) -> IssueError {
        let problem = found.problem.unwrap_or_default();
        told(Step::Validate, 0, &problem, None, self.wire.clock.now())
    }

    fn fault(&self, step: Step, why: Error) -> IssueError {
        let (seen, now) = (self.wire.seen(), self.wire.clock.now());
        match why {
            Error::Api(problem) => {
                told(step, seen.status, &of_theirs(problem), seen.retry_after, now)
            }
            Error::Other(why) => match why.downcast_ref::<FetchError>() {
                Some(why) => unreached(step, why),
                None => unavailable(step, &why.to_string()),
            },
            _ if seen.status >= 400 => refused(step, seen.status, "", seen.retry_after, now),
            why => unavailable(step, &why.to_string()),
        }
    }
}

/// What is known of an authorization.
struct Look {
    status: AuthorizationStatus,
    /// The proofs that are offered, with their tokens.
    offers: Vec<(ChallengeKind, String)>,
    problem: Option<Problem>,
}

fn look(found: &AuthorizationHandle<'_>) -> Look {
    let mut offers = Vec::new();
    let mut problem = None;
    for challenge in &found.challenges {
        let kind = match challenge.r#type {
            ChallengeType::TlsAlpn01 => Some(ChallengeKind::TlsAlpn01),
            ChallengeType::Http01 => Some(ChallengeKind::Http01),
            _ => None,
        };
        offers.extend(kind.map(|kind| (kind, challenge.token.clone())));
        problem = problem.or_else(|| challenge.error.clone().map(of_theirs));
    }
    Look { status: found.status, offers, problem }
}

/// Reads the order's one authorization.
fn authorization(order: &mut client::Order) -> Answered<'_, Look> {
    Box::pin(async move {
        let mut all = order.authorizations();
        let found = all.next().await.ok_or(Error::Str("authorization"))??;
        Ok(look(&found))
    })
}

/// Reads it anew.
fn decision(order: &mut client::Order) -> Answered<'_, Look> {
    Box::pin(async move {
        let mut all = order.authorizations();
        let mut found = all.next().await.ok_or(Error::Str("authorization"))??;
        found.refresh().await?;
        Ok(look(&found))
    })
}

/// Says that the challenge's answer is given from now on.
fn announce(order: &mut client::Order, kind: ChallengeKind) -> Answered<'_, ()> {
    Box::pin(async move {
        let mut all = order.authorizations();
        let mut found = all.next().await.ok_or(Error::Str("authorization"))??;
        let challenge = found.challenge(their_kind(kind));
        challenge.ok_or(Error::Str("the challenge is gone"))?.set_ready().await
    })
}

fn refresh(order: &mut client::Order) -> Answered<'_, OrderStatus> {
    Box::pin(async move { order.refresh().await.map(|state| state.status) })
}

fn finalize(order: &mut client::Order, request: Vec<u8>) -> Answered<'_, OrderStatus> {
    Box::pin(async move {
        order.finalize_csr(&request).await?;
        Ok(order.state().status)
    })
}

fn certificate(order: &mut client::Order) -> Answered<'_, Option<String>> {
    Box::pin(order.certificate())
}

fn their_kind(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
    }
}

fn of_theirs(problem: client::Problem) -> Problem {
    let subproblems = problem.subproblems.into_iter().map(|sub| Sub { detail: sub.detail });
    Problem { kind: problem.r#type, detail: problem.detail, subproblems: subproblems.collect() }
}
