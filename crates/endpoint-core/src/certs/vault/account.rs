//! Which account do we have at an authority?

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Vault, VaultError};
use crate::store::{Change, Kind, StoreError};

/// The key of an account, PKCS#8, and its URL.
pub(crate) type KeptAccount = (Zeroizing<Vec<u8>>, String);

impl Vault {
    /// The account at that directory.
    pub(crate) async fn account(&self, directory: &str) -> Result<Option<KeptAccount>, VaultError> {
        let Some(record) = self.store.read(Kind::Account, directory).await? else {
            return Ok(None);
        };
        let read = |bytes: &[u8]| {
            let rest = bytes.strip_prefix(FORM)?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (key, url) = rest.split_at_checked(length)?;
            Some((Zeroizing::new(key.to_vec()), String::from_utf8(url.to_vec()).ok()?))
        };
        read(&record.body).map(Some).ok_or_else(|| VaultError::Invalid {
            kind: Kind::Account,
            name: directory.to_owned(),
            why: "its form is unknown; a newer release may have written it".into(),
        })
    }

    /// Sets the account at that directory aside, which cannot be used. `false`: somebody else did.
    pub(crate) async fn set_account_aside(
        &self,
        directory: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<bool, VaultError> {
        let generation = match self.store.read(Kind::Account, directory).await {
            Ok(None) => return Ok(false),
            Ok(Some(record)) => Some(record.generation),
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        match self.set_aside(Kind::Account, directory, generation, why, now).await {
            Ok(()) => Ok(true),
            Err(VaultError::Store(StoreError::Conflict { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps the account at that directory, in place of the one that there was.
    pub(crate) async fn keep_account(
        &self,
        directory: &str,
        key: &[u8],
        url: &str,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let length = u32::try_from(key.len())
            .map_err(|_| VaultError::Unfit("the account's key is too long".into()))?;
        let mut body = Zeroizing::new(Vec::with_capacity(FORM.len() + 4 + key.len() + url.len()));
        for part in [FORM, &length.to_be_bytes(), key, url.as_bytes()] {
            body.extend_from_slice(part);
        }
        let change = Change::Replace(Kind::Account, directory.to_owned(), None, body);
        Ok(self.store.write(vec![change], now).await?)
    }
}

const FORM: &[u8] = b"acc1";
