//! A build without SQLite keeps nothing on a disk.

use std::{path::Path, sync::Arc};

use super::{Store, StoreError};
use crate::config::StoreSecret;

pub(super) async fn open(path: &Path, _: &StoreSecret) -> Result<Arc<dyn Store>, StoreError> {
    Err(absent(path))
}

pub(super) async fn rekey(path: &Path, _: &StoreSecret, _: &StoreSecret) -> Result<(), StoreError> {
    Err(absent(path))
}

fn absent(path: &Path) -> StoreError {
    StoreError::Unusable {
        place: path.display().to_string(),
        why: "this build has no SQLite; it needs feature `sqlite`".into(),
    }
}
