//! Engine 1: how does rustls-acme obtain a certificate for us?
//!
//! Only its protocol is used, not its state machine: accounts, deadlines, refused nonces and waiting are
//! driven here. It knows DNS names, P-256 and neither external accounts nor profiles; and it does not tell
//! `Retry-After`, so a wait is known only if the problem's text names it.

use std::{fmt, sync::Arc};

use ::rustls_acme::acme::{
    self, AcmeError, AuthStatus, Challenge, ChallengeType, Directory, OrderStatus,
};
use rustls::{ClientConfig, crypto::CryptoProvider};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::{
    ari,
    csr::Csr,
    issuer::{
        Account, AccountKey, Answer, Asked, Fault, IssueError, Issued, Issuer, Order, Window,
    },
    limits::{Deadlines, Nonces, Pauses, whole},
    problem::{Problem, Step, refused, told, unavailable, untrusted},
    published::Published,
};
use crate::{
    clock::Clock,
    config::{CertificateKey, ChallengeKind},
    transport::fetch::{Fetch, cut},
};

/// A client of one authority.
pub(super) struct RustlsAcme {
    pub(super) directory: String,
    pub(super) contact: Vec<String>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) deadlines: Deadlines,
    pub(super) clock: Clock,
}

impl Issuer for RustlsAcme {
    fn engine(&self) -> &'static str {
        "rustls-acme"
    }

    fn register<'a>(&'a self, key: &'a AccountKey) -> Asked<'a, String> {
        Box::pin(whole(self.deadlines, self.registered(key)))
    }

    fn issue<'a>(&'a self, account: &'a Account, order: &'a Order) -> Asked<'a, Issued> {
        Box::pin(whole(self.deadlines, self.issued(account, order)))
    }

    fn window<'a>(
        &'a self,
        _account: &'a Account,
        leaf: &'a CertificateDer<'static>,
    ) -> Asked<'a, Option<Window>> {
        let fetch = Fetch {
            tls: Arc::clone(&self.tls),
            deadline: self.deadlines.request,
            body_limit: ari::BODY_BYTES,
        };
        Box::pin(async move { ari::window(&fetch, &self.directory, leaf, &self.clock).await })
    }
}

impl RustlsAcme {
    async fn registered(&self, key: &AccountKey) -> Result<String, IssueError> {
        let mut nonces = Nonces::default();
        let directory = self.directory(&mut nonces).await?;
        let register = || {
            let (contact, directory) = (self.contact.iter(), directory.clone());
            acme::Account::create_with_keypair(&self.tls, directory, contact, &key.0)
        };
        self.ask(Step::Register, &mut nonces, register).await.map(|account| account.kid)
    }

    async fn issued(&self, account: &Account, order: &Order) -> Result<Issued, IssueError> {
        self.can(order)?;
        let csr = Csr::new(&order.name, order.key)?;
        let nonces = &mut Nonces::default();
        let directory = self.directory(nonces).await?;
        let key_pair =
            account.key.pair().map_err(|why| unavailable(Step::Order, &why.to_string()))?;
        let account = acme::Account { key_pair, directory, kid: account.url.clone() };

        let name = || vec![order.name.clone()];
        let place = || account.new_order(&self.tls, name());
        let (url, placed) = self.ask(Step::Order, nonces, place).await?;
        secure(Step::Order, &url)?;
        for authorization in &placed.authorizations {
            self.prove(&account, authorization, order, nonces).await?;
        }
        let chain = self.finish(&account, &url, &csr, nonces).await?;
        csr.issued(&chain, &self.provider)
    }

    /// Answers one challenge of an authorization, and waits until the authority is content.
    async fn prove(
        &self,
        account: &acme::Account,
        url: &str,
        order: &Order,
        nonces: &mut Nonces,
    ) -> Result<(), IssueError> {
        secure(Step::Authorization, url)?;
        let look = || account.auth(&self.tls, url);
        let found = self.ask(Step::Authorization, nonces, look).await?;
        match found.status {
            AuthStatus::Valid => return Ok(()),
            AuthStatus::Pending => {}
            _ => return Err(self.not_proved(&found.challenges)),
        }
        let offered =
            |kind| found.challenges.iter().find(|offer| kind_of(&offer.typ) == Some(kind));
        let picked = order.challenges.iter().find_map(|kind| Some((*kind, offered(*kind)?)));
        let Some((kind, challenge)) = picked else {
            return Err(none_offered(order));
        };
        secure(Step::Authorization, &challenge.url)?;
        let answer = Answer {
            kind,
            name: order.name.clone(),
            token: challenge.token.clone(),
            key_authorization: key_authorization(account, &challenge.token)?,
        };
        let published = Published::new(&order.answers, answer).await?;
        let proved = self.validated(account, url, &challenge.url, nonces).await;
        published.withdraw().await;
        proved
    }

    async fn validated(
        &self,
        account: &acme::Account,
        url: &str,
        challenge: &str,
        nonces: &mut Nonces,
    ) -> Result<(), IssueError> {
        let announce = || account.challenge(&self.tls, challenge);
        self.ask(Step::Announce, nonces, announce).await?;
        let mut pauses = Pauses::new(self.deadlines);
        loop {
            pauses.wait(Step::Validate, None).await?;
            let look = || account.auth(&self.tls, url);
            let found = self.ask(Step::Authorization, nonces, look).await?;
            match found.status {
                AuthStatus::Valid => return Ok(()),
                AuthStatus::Pending => {}
                _ => return Err(self.not_proved(&found.challenges)),
            }
        }
    }

    /// Asks for the certificate once the order is ready, and gives the chain.
    async fn finish(
        &self,
        account: &acme::Account,
        url: &str,
        csr: &Csr,
        nonces: &mut Nonces,
    ) -> Result<String, IssueError> {
        let mut asked = false;
        let mut pauses = Pauses::new(self.deadlines);
        loop {
            let look = || account.order(&self.tls, url);
            let mut state = self.ask(Step::Order, nonces, look).await?;
            if state.status == OrderStatus::Ready && !asked {
                secure(Step::Finalize, &state.finalize)?;
                let finalize = || account.finalize(&self.tls, &state.finalize, &csr.request);
                state = self.ask(Step::Finalize, nonces, finalize).await?;
                asked = true;
            }
            match state.status {
                OrderStatus::Valid { certificate } => {
                    secure(Step::Certificate, &certificate)?;
                    let fetch = || account.certificate(&self.tls, &certificate);
                    return self.ask(Step::Certificate, nonces, fetch).await;
                }
                OrderStatus::Invalid => {
                    let problem = state.error.map(of_theirs).unwrap_or_default();
                    return Err(told(Step::Validate, 0, &problem, None, self.clock.now()));
                }
                OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing => {}
            }
            pauses.wait(Step::Finalize, None).await?;
        }
    }

    async fn directory(&self, nonces: &mut Nonces) -> Result<Directory, IssueError> {
        secure(Step::Directory, &self.directory)?;
        let discover = || Directory::discover(&self.tls, &self.directory);
        let directory = self.ask(Step::Directory, nonces, discover).await?;
        for url in [&directory.new_nonce, &directory.new_account, &directory.new_order] {
            secure(Step::Directory, url)?;
        }
        Ok(directory)
    }

    /// One request, again while the authority refuses the nonce.
    async fn ask<T, F>(
        &self,
        step: Step,
        nonces: &mut Nonces,
        request: impl Fn() -> F,
    ) -> Result<T, IssueError>
    where
        F: Future<Output = Result<T, AcmeError>>,
    {
        let deadline = self.deadlines.request;
        loop {
            let Ok(answer) = timeout(deadline, request()).await else {
                let why = format!("no answer within {} s", deadline.as_secs_f32());
                return Err(unavailable(step, &why));
            };
            let why = match answer {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            let Some((status, body)) = refusal(&why) else {
                return Err(unreadable(step, &why));
            };
            let nonce = Problem::read(&body).is_some_and(|why| why.kind() == Some("badNonce"));
            if !(nonce && nonces.again()) {
                return Err(refused(step, status, &body, None, self.clock.now()));
            }
        }
    }

    /// What the authority said of the challenge that it did not accept.
    fn not_proved(&self, challenges: &[Challenge]) -> IssueError {
        let problem = challenges.iter().find_map(|challenge| challenge.error.clone());
        let problem = problem.map(of_theirs).unwrap_or_default();
        told(Step::Validate, 0, &problem, None, self.clock.now())
    }

    /// Refuses what this engine would silently leave out.
    fn can(&self, order: &Order) -> Result<(), IssueError> {
        let lacks = match order {
            Order { profile: Some(_), .. } => "profiles",
            Order { key: CertificateKey::P384, .. } => "P-384 keys",
            Order { name, .. } if name.parse::<std::net::IpAddr>().is_ok() => "IP addresses",
            _ => return Ok(()),
        };
        let detail = format!("rustls-acme knows no {lacks}; use instant-acme for this issuer");
        Err(IssueError { kind: Fault::Refused, detail, retry_after: None })
    }
}

impl fmt::Debug for RustlsAcme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RustlsAcme({})", self.directory)
    }
}

/// None of the proofs that the order allows is offered.
pub(super) fn none_offered(order: &Order) -> IssueError {
    let detail = format!(
        "{} failed: the authority offers none of {:?} for `{}`",
        Step::Authorization,
        order.challenges,
        cut(&order.name)
    );
    IssueError { kind: Fault::Refused, detail, retry_after: None }
}

/// Refuses a URL that would carry the exchange in clear (RFC 8555 §6.1).
pub(super) fn secure(step: Step, url: &str) -> Result<(), IssueError> {
    if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        return Ok(());
    }
    Err(unavailable(step, &format!("`{}` is no https URL", cut(url))))
}

fn kind_of(challenge: &ChallengeType) -> Option<ChallengeKind> {
    match challenge {
        ChallengeType::TlsAlpn01 => Some(ChallengeKind::TlsAlpn01),
        ChallengeType::Http01 => Some(ChallengeKind::Http01),
        _ => None,
    }
}

/// The key authorization of any challenge, which rustls-acme tells of HTTP-01 only.
fn key_authorization(account: &acme::Account, token: &str) -> Result<String, IssueError> {
    let (typ, token) = (ChallengeType::Http01, token.to_owned());
    let challenges = [Challenge { typ, url: String::new(), token, error: None }];
    let (_, text) = account
        .http_01(&challenges)
        .map_err(|why| unavailable(Step::Authorization, &why.to_string()))?;
    Ok(text)
}

fn of_theirs(problem: acme::Problem) -> Problem {
    Problem { kind: problem.typ, detail: problem.detail, ..Problem::default() }
}

/// The status and body of an answer that is no success. rustls-acme does not export the type that holds
/// them, only its text.
fn refusal(error: &AcmeError) -> Option<(u16, String)> {
    let AcmeError::HttpRequest(why) = error else { return None };
    let text = why.to_string();
    let (status, body) = text.strip_prefix("non 2xx http status: ")?.split_once(' ')?;
    let body = body.strip_prefix('"')?.strip_suffix('"')?;
    Some((status.parse().ok()?, unquoted(body)))
}

/// No answer that could be read. rustls-acme tells what lies under it as `{:?}` writes it; what an operator
/// meets most is said in words.
fn unreadable(step: Step, error: &AcmeError) -> IssueError {
    let text = error.to_string();
    let said = |part: &str| text.contains(part);
    if said("InvalidCertificate(UnknownIssuer)") {
        return untrusted(step);
    }
    let system = text.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    match system.filter(|_| said("TcpConnect")) {
        Some((why, _)) => unavailable(step, &format!("the authority cannot be reached: {why}")),
        None => unavailable(step, &text),
    }
}

/// Undoes the quoting of `{:?}`.
fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            plain.push(next);
            continue;
        }
        match rest.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('0') => plain.push('\0'),
            Some('u') => {
                let digits: String =
                    rest.by_ref().skip(1).take_while(|digit| *digit != '}').collect();
                let number = u32::from_str_radix(&digits, 16).ok();
                plain.extend(number.and_then(char::from_u32));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_undone() {
        for text in ["{\"a\": \"b\\\\c\"}\n\t\r", "é\u{1b}\u{200b}\0'\"\\", ""] {
            let quoted = format!("{text:?}");
            assert_eq!(unquoted(&quoted[1..quoted.len() - 1]), text);
        }
        assert_eq!(unquoted("a\\"), "a");
        assert_eq!(unquoted("\\u{zz}\\u{"), "");
    }

    #[test]
    fn what_lies_under_an_error_is_said_in_words() {
        let said = |text: &str| {
            let under = std::io::Error::other(text);
            unreadable(Step::Directory, &AcmeError::Io(under)).detail
        };
        // As rustls-acme writes them.
        let down = said(
            "http error: ConnectError(TcpConnect(Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }))",
        );
        assert!(down.ends_with("the authority cannot be reached: Connection refused"), "{down}");
        let foreign = said(
            "http error: ConnectError(TlsConnect(Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }))",
        );
        assert!(foreign.contains("not trusted") && foreign.contains("`ca_root`"), "{foreign}");
        assert!(said("something else").ends_with("something else"));
    }

    #[test]
    fn plain_http_is_refused() {
        assert!(secure(Step::Order, "https://a").is_ok());
        assert!(secure(Step::Order, "HTTPS://a").is_ok());
        for bad in ["http://a/", "", "ftp://a", "https:/é"] {
            assert!(secure(Step::Order, bad).is_err(), "{bad}");
        }
    }
}
