//! May this key do this, from there, now? Step 5 of 6. Pure.
//!
//! One function judges a connection: when it is new, when the set changes, at each new stream and once a
//! second where the answer depends on time or address. Not here: files (`peers`), live connections (`live`).
//!
//! Always true: no key, no grant, an unknown option, an expired grant: each is a no. A [`Permit`] has no
//! public constructor, so no handler runs without a decision of this module.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;

use super::{
    authorized::{Grant, Grants},
    removed::Removed,
};
use crate::{
    close::CloseCode,
    config::{Access, Scope},
    facts::{Address, LinkFacts, PeerKey, is_loopback},
    identity::Fingerprint,
};

/// Everything that a decision looks at, besides the connection and the time.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    grants: Arc<Grants>,
    removed: Arc<Removed>,
}

impl Policy {
    /// Judges by `grants`.
    #[must_use]
    pub fn new(grants: Arc<Grants>) -> Self {
        Self { grants, removed: Arc::default() }
    }

    /// The same, refusing enrolment to keys that were removed lately.
    #[must_use]
    pub fn with_removed(grants: Arc<Grants>, removed: Arc<Removed>) -> Self {
        Self { grants, removed }
    }

    /// The keys allowed.
    #[must_use]
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Judges a connection that is at `address` at the time `now`.
    ///
    /// # Errors
    /// [`Denial`], which says why; the peer is told a code only.
    pub fn judge(
        &self,
        facts: &LinkFacts,
        access: &Access,
        address: &Address,
        now: Timestamp,
    ) -> Result<Approval, Denial> {
        let grant = facts.peer.fingerprint().and_then(|key| self.grants.lookup(&key));
        match access {
            Access::Public => Ok(Approval::open(grant, facts, address, now)),
            Access::Loopback if address.satisfies(is_loopback) => Ok(Approval {
                bound_to_address: true,
                ..Approval::open(grant, facts, address, now)
            }),
            Access::Loopback => Err(Denial::NotLoopback),
            Access::Enroll => {
                let key = facts.peer.fingerprint().ok_or(Denial::NoKey)?;
                if self.removed.is_recent(&key, now) {
                    return Err(Denial::RemovedLately);
                }
                Ok(Approval::open(grant, facts, address, now))
            }
            Access::Peer(scope) => {
                facts.peer.fingerprint().ok_or(Denial::NoKey)?;
                let grant = grant.ok_or(Denial::UnknownKey)?;
                fits(grant, facts, address, now)?;
                match scope.name() {
                    Some(_) if !grant.scopes().contains(scope) => {
                        Err(Denial::MissingScope { scope: scope.clone() })
                    }
                    _ => Ok(Approval::of(grant)),
                }
            }
        }
    }
}

/// Whether every option of the grant holds, scopes apart.
fn fits(grant: &Grant, facts: &LinkFacts, address: &Address, now: Timestamp) -> Result<(), Denial> {
    if grant.expires().is_some_and(|end| now >= end) {
        return Err(Denial::Expired);
    }
    if grant.alpns().is_some_and(|allowed| !allowed.contains(&facts.alpn)) {
        return Err(Denial::WrongAlpn);
    }
    if !address.satisfies(|host| grant.allows_from(host)) {
        return Err(Denial::WrongAddress);
    }
    Ok(())
}

/// A yes, with what it depends on.
#[derive(Clone, Debug)]
pub struct Approval {
    grant: Option<Arc<Grant>>,
    /// The answer can change when the peer moves.
    bound_to_address: bool,
}

impl Approval {
    fn of(grant: &Arc<Grant>) -> Self {
        Self { bound_to_address: grant.from().is_some(), grant: Some(Arc::clone(grant)) }
    }

    /// A yes that asks for no grant: the grant is attached only where all its options hold, so that a
    /// handler never sees a name or scope that does not apply here and now.
    fn open(
        grant: Option<&Arc<Grant>>,
        facts: &LinkFacts,
        address: &Address,
        now: Timestamp,
    ) -> Self {
        let grant = grant.filter(|grant| fits(grant, facts, address, now).is_ok());
        let bound_to_address = grant.is_some_and(|grant| grant.from().is_some());
        Self { grant: grant.map(Arc::clone), bound_to_address }
    }

    /// Whether this yes still says all that `first` told the handler: name, tenant, scopes.
    pub(crate) fn upholds(&self, first: &Self) -> bool {
        let Some(told) = &first.grant else { return true };
        self.grant.as_ref().is_some_and(|now| {
            now.name() == told.name()
                && now.tenant() == told.tenant()
                && told.scopes().iter().all(|scope| now.scopes().contains(scope))
        })
    }

    /// Whether time or the peer's address can turn this yes into a no.
    pub(crate) fn needs_watching(&self) -> bool {
        self.bound_to_address || self.grant.as_ref().is_some_and(|grant| grant.expires().is_some())
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.grant.as_ref().and_then(|grant| grant.name())
    }
}

/// Why a connection is not allowed. For the log and the operator; the peer gets [`Denial::code`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// The grant came to its end.
    #[error("its grant has expired")]
    Expired,
    /// Its key has all connections that it may, another one came, and this one gave no sign of life.
    #[error("it did not answer when another connection of its key waited for its place")]
    GaveWay,
    /// The grant no longer gives the name, tenant or scopes that the handler was told of.
    #[error("its grant was changed")]
    GrantChanged,
    /// The operator ended the connection.
    #[error("it was kicked by the operator")]
    Kicked,
    /// The grant does not hold the scope that the handler asks for.
    #[error("its grant lacks the scope `{scope}`")]
    MissingScope {
        /// The scope asked for.
        scope: Scope,
    },
    /// The handler asks for a key and none was shown.
    #[error("it showed no key")]
    NoKey,
    /// The handler takes loopback addresses only.
    #[error("its address is not a loopback one")]
    NotLoopback,
    /// The key was removed within the last 90 days and may not enrol itself again.
    #[error("its key was removed within the last 90 days")]
    RemovedLately,
    /// The key has as many live connections as it may.
    #[error("its key has {limit} connections, which is its limit")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// The key does not stand in `authorized_peers`.
    #[error("its key is not in authorized_peers")]
    UnknownKey,
    /// The grant's `from=` does not hold the peer's address.
    #[error("its address is outside of its grant's `from`")]
    WrongAddress,
    /// The grant's `alpn=` does not hold the protocol.
    #[error("its grant does not allow this protocol")]
    WrongAlpn,
}

impl Denial {
    /// What the peer is told. `live` says that it was allowed before.
    #[must_use]
    pub fn code(&self, live: bool) -> CloseCode {
        match (self, live) {
            (Self::GaveWay | Self::TooManyConnections { .. }, _) => CloseCode::TooManyConnections,
            (Self::Expired, true) => CloseCode::Expired,
            (_, true) => CloseCode::Revoked,
            (_, false) => CloseCode::NotAuthorized,
        }
    }
}

/// The gate's yes to one connection: what a handler knows about its peer.
///
/// Only the gate can make one:
///
/// ```compile_fail,E0451
/// # use endpoint_core::{Permit, facts::PeerKey, trust::Approval};
/// fn forged(key: PeerKey, approval: Approval) -> Permit {
///     Permit { key, approval }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Permit {
    key: PeerKey,
    approval: Approval,
    /// Set when the grant went away from under a connection that needs none.
    grant_gone: Arc<AtomicBool>,
}

impl Permit {
    pub(super) fn new(key: PeerKey, approval: Approval, grant_gone: Arc<AtomicBool>) -> Self {
        Self { key, approval, grant_gone }
    }

    /// The grant, while it holds: handlers that everybody may reach outlive it.
    fn grant(&self) -> Option<&Grant> {
        self.approval.grant.as_deref().filter(|_| !self.grant_gone.load(Ordering::Acquire))
    }

    /// The name of the key that the peer proved to hold; `None` if it showed none.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.key.fingerprint()
    }

    /// The key and the form in which it was shown.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// Whether the peer stands in `authorized_peers` and all options of its line hold here.
    pub(crate) fn has_grant(&self) -> bool {
        self.grant().is_some()
    }

    /// The `name=` of the peer's grant.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.grant().and_then(Grant::name)
    }

    /// The `tenant=` of the peer's grant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.grant().and_then(Grant::tenant)
    }

    /// Whether the peer's grant holds `scope`.
    #[must_use]
    pub fn has_scope(&self, scope: &Scope) -> bool {
        self.scopes().contains(scope)
    }

    /// The scopes of the peer's grant.
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        self.grant().map_or(&[], Grant::scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alpn::Alpn,
        facts::{Carrier, KeyKind, Profile},
        trust::AuthorizedPeers,
    };

    const HOME: &str = "192.0.2.1";
    const AWAY: &str = "198.51.100.1";

    fn from(host: &str) -> Address {
        Address::at((host.parse::<std::net::IpAddr>().unwrap(), 1).into())
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-06-01T{time}Z").parse().unwrap()
    }

    fn key(n: u8) -> Fingerprint {
        Fingerprint::from_bytes([n; 32])
    }

    fn showing(peer: PeerKey) -> LinkFacts {
        LinkFacts {
            id: 1,
            carrier: Carrier::Quic,
            profile: Profile { server: KeyKind::Raw, client: peer.kind() },
            alpn: Alpn::ECHO_1,
            server_name: None,
            peer,
            remote: format!("{HOME}:1").parse().unwrap(),
            local: "127.0.0.1:1".parse().unwrap(),
        }
    }

    fn raw(n: u8) -> LinkFacts {
        showing(PeerKey::Proven(KeyKind::Raw, key(n)))
    }

    fn ops() -> Scope {
        Scope::new("ops").unwrap()
    }

    /// Key 1 with all options, key 2 with none, key 3 for another protocol, key 4 removed at 11:00.
    fn policy() -> Policy {
        let lines = format!(
            "from=\"192.0.2.0/24\",expires=\"2026-06-01T13:00:00Z\",scope=\"ops\",name=\"one\",\
             tenant=\"t\",max-connections=\"3\",alpn=\"echo/1\" {}\n{}\nalpn=\"ping/1\" {}\n",
            key(1),
            key(2),
            key(3)
        );
        let grants = Arc::clone(AuthorizedPeers::from_text(&lines).unwrap().policy().grants());
        let mut removed = Removed::default();
        removed.note(key(4), at("11:00:00"));
        Policy::with_removed(grants, Arc::new(removed))
    }

    fn judged(facts: &LinkFacts, access: &Access, remote: &str, time: &str) -> Option<Denial> {
        policy().judge(facts, access, &from(remote), at(time)).err()
    }

    #[test]
    fn each_rule_says_no_for_its_own_reason_and_yes_otherwise() {
        let (any, scoped) = (Access::Peer(Scope::ANY), Access::Peer(ops()));
        let nobody = showing(PeerKey::None);
        let x509 = showing(PeerKey::Proven(KeyKind::X509, key(1)));
        let missing = Denial::MissingScope { scope: ops() };
        let table = [
            (&raw(1), &any, HOME, "12:00:00", None),
            (&raw(1), &scoped, HOME, "12:00:00", None),
            (&x509, &scoped, HOME, "12:00:00", None),
            (&raw(1), &any, HOME, "12:59:59", None),
            (&raw(1), &any, HOME, "13:00:00", Some(Denial::Expired)),
            (&raw(1), &any, AWAY, "12:00:00", Some(Denial::WrongAddress)),
            (&raw(1), &any, "::ffff:192.0.2.9", "12:00:00", None),
            (&raw(2), &any, AWAY, "12:00:00", None),
            (&raw(2), &scoped, HOME, "12:00:00", Some(missing)),
            (&raw(3), &any, HOME, "12:00:00", Some(Denial::WrongAlpn)),
            (&raw(4), &any, HOME, "12:00:00", Some(Denial::UnknownKey)),
            (&nobody, &any, HOME, "12:00:00", Some(Denial::NoKey)),
            (&nobody, &Access::Enroll, HOME, "12:00:00", Some(Denial::NoKey)),
            (&raw(9), &Access::Enroll, HOME, "12:00:00", None),
            (&raw(4), &Access::Enroll, HOME, "12:00:00", Some(Denial::RemovedLately)),
            (&raw(1), &Access::Loopback, HOME, "12:00:00", Some(Denial::NotLoopback)),
            (&nobody, &Access::Loopback, "127.0.0.9", "12:00:00", None),
            (&nobody, &Access::Loopback, "::1", "12:00:00", None),
            (&nobody, &Access::Loopback, "::ffff:127.0.0.1", "12:00:00", None),
            (&nobody, &Access::Public, AWAY, "12:00:00", None),
            (&raw(4), &Access::Public, AWAY, "12:00:00", None),
        ];
        for (row, (facts, access, remote, time, expected)) in table.into_iter().enumerate() {
            assert_eq!(judged(facts, access, remote, time), expected, "row {row}");
        }
    }

    #[test]
    fn an_address_that_nobody_answered_from_turns_no_rule_to_yes() {
        let socket = |host: &str| (host.parse::<std::net::IpAddr>().unwrap(), 1).into();
        let between = |proven, present, traced| {
            Address::moved(socket(proven), socket(present), [None; 2], traced)
        };
        let table = [
            (Access::default(), between(AWAY, HOME, true), Some(Denial::WrongAddress)),
            (Access::default(), between(HOME, AWAY, true), Some(Denial::WrongAddress)),
            (Access::default(), between(HOME, HOME, false), Some(Denial::WrongAddress)),
            (Access::default(), between(HOME, "192.0.2.9", true), None),
            (Access::Loopback, between(AWAY, "127.0.0.1", true), Some(Denial::NotLoopback)),
            (Access::Loopback, between("127.0.0.1", AWAY, true), Some(Denial::NotLoopback)),
            (Access::Loopback, between("::1", "127.0.0.2", true), None),
        ];
        for (row, (access, address, expected)) in table.into_iter().enumerate() {
            let judged = policy().judge(&raw(1), &access, &address, at("12:00:00"));
            assert_eq!(judged.err(), expected, "row {row}");
        }
        let forged = between(AWAY, HOME, true);
        let public = policy().judge(&raw(1), &Access::Public, &forged, at("12:00:00")).unwrap();
        assert!(public.grant.is_none(), "a handler for everybody is not told of the grant");
        // A judge by the present address is fooled.
        let weak = Address::at(forged.present());
        let fooled = policy().judge(&raw(1), &Access::default(), &weak, at("12:00:00"));
        assert!(fooled.is_ok());
    }

    #[test]
    fn an_empty_set_is_nobody() {
        let (any, home) = (Access::default(), from(HOME));
        let judged = Policy::default().judge(&raw(1), &any, &home, at("12:00:00"));
        assert_eq!(judged.unwrap_err(), Denial::UnknownKey);
    }

    #[test]
    fn a_permit_names_the_grant_only_where_all_its_options_hold() {
        let permit = |access: &Access, remote: &str, time: &str| {
            let facts = raw(1);
            let approval = policy().judge(&facts, access, &from(remote), at(time));
            Permit::new(facts.peer, approval.unwrap(), Arc::default())
        };
        for access in [Access::Public, Access::Enroll, Access::Peer(ops())] {
            let here = permit(&access, HOME, "12:00:00");
            assert_eq!((here.name(), here.tenant()), (Some("one"), Some("t")));
            assert!(here.has_scope(&ops()));
            assert_eq!(here.fingerprint(), Some(key(1)));
        }
        for (remote, time) in [(AWAY, "12:00:00"), (HOME, "13:00:00")] {
            let elsewhere = permit(&Access::Public, remote, time);
            assert_eq!((elsewhere.name(), elsewhere.tenant()), (None, None));
            assert!(!elsewhere.has_scope(&ops()) && elsewhere.scopes().is_empty());
            assert_eq!(elsewhere.fingerprint(), Some(key(1)), "the key is proven all the same");
        }
    }

    #[test]
    fn watches_what_time_or_address_can_turn() {
        let needs = |facts: &LinkFacts, access: &Access, remote: &str| {
            let judged = policy().judge(facts, access, &from(remote), at("12:00:00"));
            judged.unwrap().needs_watching()
        };
        assert!(needs(&raw(1), &Access::default(), HOME));
        assert!(!needs(&raw(2), &Access::default(), HOME));
        assert!(needs(&showing(PeerKey::None), &Access::Loopback, "127.0.0.1"));
        assert!(!needs(&showing(PeerKey::None), &Access::Public, HOME));
    }

    #[test]
    fn tells_a_peer_that_was_allowed_more_than_one_that_never_was() {
        let others = [
            Denial::Kicked,
            Denial::MissingScope { scope: ops() },
            Denial::NoKey,
            Denial::NotLoopback,
            Denial::RemovedLately,
            Denial::UnknownKey,
            Denial::WrongAddress,
            Denial::WrongAlpn,
        ];
        for denial in others {
            assert_eq!(denial.code(true), CloseCode::Revoked, "{denial}");
            assert_eq!(denial.code(false), CloseCode::NotAuthorized, "{denial}");
        }
        assert_eq!(Denial::Expired.code(true), CloseCode::Expired);
        assert_eq!(Denial::Expired.code(false), CloseCode::NotAuthorized);
        let many = Denial::TooManyConnections { limit: 1 };
        assert_eq!(many.code(false), CloseCode::TooManyConnections);
    }
}
