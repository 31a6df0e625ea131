//! What outlives a restart and is shared by several processes?
//!
//! Records of a kind and an id: certificates with their keys, accounts, histories, challenge answers.
//! Not here: what stands in a record (`certs`, `acme`).
//!
//! Always true: what a backend keeps on a disk is sealed; a record that was altered, put back or sealed
//! with another secret is an error that names it, never an absent one.
//!
//! What that does not prove: a whole store file that was put back from a backup is an older but whole state,
//! and is taken as that; so is a record that was put back, or taken away, together with what vouches for it, unless
//! a process runs that saw the newer one. After such a return certificates are older, and are renewed when their time comes.

#[cfg(test)]
pub(crate) mod contract;
mod memory;
#[cfg(feature = "sqlite")]
mod private;
#[cfg(feature = "sqlite")]
mod seal;
#[cfg(feature = "sqlite")]
mod secret;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(not(feature = "sqlite"))]
#[path = "sqlite_off.rs"]
mod sqlite;

use std::{fmt, future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use zeroize::Zeroizing;

pub use self::memory::Memory;
use crate::config::{StoreConfig, StoreSecret};

/// Opens the store that is configured; makes it, and its secret, if there is none.
///
/// # Errors
/// [`StoreError`] with the file at fault and what to do: a secret that is absent, unfit or not the one that the
/// store is sealed with; a file that others may read or change, that is no store of ours or of a newer
/// release; a build without the feature `sqlite`.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match config {
        StoreConfig::Memory => Ok(Arc::new(Memory::new())),
        StoreConfig::Sqlite { path, secret } => sqlite::open(path, secret).await,
    }
}

/// Seals the SQLite store in `path` with another secret. `old` and `new` may be the same file: then a new
/// secret is made in it.
///
/// One transaction: a crash leaves a store of the old secret or of the new one, and the next [`open`] finds
/// which. Programs that have the store open are told at their next call that they must be started again.
///
/// # Errors
/// [`StoreError`] if the old secret does not fit, a record cannot be trusted, or the disk fails; the store is
/// then as it was.
pub async fn rekey(path: &Path, old: &StoreSecret, new: &StoreSecret) -> Result<(), StoreError> {
    sqlite::rekey(path, old, new).await
}

/// An answer of the store that is yet to come.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What a record is about. Each kind has its own space of ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Kind {
    /// The certificate, chain and key, that a name is served with; id: the name.
    Certificate,
    /// The one before it; id: the name.
    Previous,
    /// An account at an authority; id: its directory and ours.
    Account,
    /// What was tried for a name, when, and what came of it; id: directory and name.
    History,
    /// The answer to a challenge that is pending; id: its kind and the name or token.
    Challenge,
    /// An OCSP answer; id: the certificate's digest.
    Staple,
    /// Why a certificate is not served while another one can be; id: the certificate's digest.
    Mark,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Certificate,
        Self::Previous,
        Self::Account,
        Self::History,
        Self::Challenge,
        Self::Staple,
        Self::Mark,
    ];

    /// Its name in the database and in errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Previous => "previous",
            Self::Account => "account",
            Self::History => "history",
            Self::Challenge => "challenge",
            Self::Staple => "staple",
            Self::Mark => "mark",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record as it was read.
#[derive(Clone)]
pub struct Record {
    /// Which write of the store this is: above that of every record that stood under the id before. Never used
    /// again, also not after a deletion. Records of one [`Store::write`] share it.
    pub generation: u64,
    /// When it was written.
    pub written: Timestamp,
    /// What stands in it; wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// One change of a [`Store::write`].
#[derive(Clone)]
pub enum Change {
    /// Writes a record that must not be there.
    Create(Kind, String, Zeroizing<Vec<u8>>),
    /// Writes over the record of that generation; `None`: over whatever is there, trusted or not, or nothing.
    Replace(Kind, String, Option<u64>, Zeroizing<Vec<u8>>),
    /// Takes a record away, if it is there, trusted or not.
    Delete(Kind, String),
    /// Moves a record out of the way and keeps it as it was found, with the reason: the one of that generation,
    /// which is whole and of no use; `None`: one that cannot be trusted.
    SetAside(Kind, String, Option<u64>, String),
}

impl Change {
    /// What it changes.
    #[must_use]
    pub fn about(&self) -> (Kind, &str) {
        match self {
            Self::Create(kind, id, _)
            | Self::Replace(kind, id, _, _)
            | Self::Delete(kind, id)
            | Self::SetAside(kind, id, ..) => (*kind, id),
        }
    }
}

/// A record that was set aside.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Aside {
    /// Names it together with kind and id.
    pub number: u64,
    /// Its kind, as it stands in the store.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` #{}", self.kind, self.id, self.number)
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = self.about();
        write!(f, "Change({kind} `{id}`)")
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A lock that was taken. It ends by [`Store::unlock`] or by time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// What is locked.
    pub name: String,
    /// Who holds it: unique to this taking.
    pub owner: String,
    /// When it ends by itself.
    pub until: Timestamp,
}

/// A store of records.
///
/// An implementation MUST keep these, and `store/contract.rs` holds every one against them:
///
/// - A [`write`](Self::write) MUST be atomic: after it, or after any crash in it, all of its changes are
///   there or none. When it has returned, they MUST survive a crash of the machine.
/// - A `Create` of what is there and a `Replace` of another generation MUST fail with
///   [`StoreError::Conflict`] and change nothing.
/// - A reader MUST see the newest write that returned before the read began, in whichever process.
/// - A record that was altered, put back to an older generation, moved to another id, or sealed with another
///   secret MUST be an error that names it; it MUST NOT look absent, and no plaintext of it may be given.
/// - A `SetAside` without a generation of a record that can be trusted or is not there, and one of another
///   generation, MUST fail with [`StoreError::Conflict`]; after one the record MUST be absent, and
///   [`asides`](Self::asides) MUST name what was moved. A record that cannot be trusted and is written over or
///   deleted, other than a challenge or an OCSP answer, MUST be set aside too: it may hold the only copy of a key.
/// - At most one owner MUST hold a lock at a time; a lock whose time is over MUST be free for all, and so
///   MUST one that would last more than twice as long as is asked for now: its holder's clock was ahead. So
///   whoever takes a lock of one name asks for the same time.
/// - Bodies and secrets MUST NOT stand in `Debug`, errors or logs.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Where it keeps its records, for messages.
    fn place(&self) -> String;

    /// The record of that id, if there is one.
    fn read<'a>(&'a self, kind: Kind, id: &'a str) -> Pending<'a, Option<Record>>;

    /// Every id of that kind with its generation, in order of the ids.
    fn list(&self, kind: Kind) -> Pending<'_, Vec<(String, u64)>>;

    /// Makes all of these changes, or none.
    fn write<'a>(&'a self, changes: Vec<Change>, now: Timestamp) -> Pending<'a, ()>;

    /// What was set aside, oldest first.
    fn asides(&self) -> Pending<'_, Vec<Aside>>;

    /// A number that is another one after each change by anybody. Cheap enough for once a second.
    fn version(&self) -> Pending<'_, u64>;

    /// Takes a lock for that long, if nobody else holds it.
    fn lock<'a>(
        &'a self,
        name: &'a str,
        now: Timestamp,
        time: Duration,
    ) -> Pending<'a, Option<Lease>>;

    /// Gives a lock back. One that ended by time and is held by somebody else stays theirs.
    fn unlock(&self, lease: Lease) -> Pending<'_, ()>;
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The record is not what was written: altered, put back, or sealed with another secret.
    #[error("the record {kind} `{id}` in {place} cannot be trusted: {why}")]
    Damaged {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// The store.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Somebody else changed the record first.
    #[error("the record {kind} `{id}` was changed by somebody else")]
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// The secret is absent, too short, unreadable for us or readable for others.
    #[error("{0}")]
    Secret(String),
    /// The store can be read at best: its disk is full, read-only or fails.
    #[error("the store {place} cannot be used: {why}")]
    Unwritable {
        /// The store.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The store cannot be opened, read or written.
    #[error("the store {place} cannot be used: {why}")]
    Unusable {
        /// The store.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl StoreError {
    /// Whether the store itself fails, and not what stands in it.
    #[must_use]
    pub const fn is_of_the_store(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Unusable { .. } | Self::Unwritable { .. })
    }
}

/// A name for one taking of a lock.
fn owner() -> Result<String, &'static str> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gives no randomness")?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
