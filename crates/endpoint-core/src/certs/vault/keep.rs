//! How is a certificate kept that was just issued?

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{Origin, Vault, VaultError};

impl Vault {
    /// Keeps a certificate that was issued for a name. The one before becomes the previous one in the same
    /// write.
    pub(crate) async fn keep(
        &self,
        name: &str,
        chain: &[CertificateDer<'static>],
        key: &[u8],
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        self.keep_under(&[name.to_owned()], chain, key, origin, now).await
    }
}
