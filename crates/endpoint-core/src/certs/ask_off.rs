//! How do certificate sources ask over HTTP? Not in a build without an HTTP client.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

/// A client that cannot be made.
#[derive(Clone, Debug)]
pub(crate) enum Web {}

/// What nobody answers.
#[derive(Debug)]
pub(crate) enum Answer {}

impl Web {
    pub(crate) fn new(_: Option<&[u8]>, _: Arc<CryptoProvider>, _: usize) -> Result<Self, String> {
        Err(OFF.into())
    }

    pub(crate) fn plain(_: Arc<CryptoProvider>, _: usize) -> Result<Self, String> {
        Err(OFF.into())
    }

    pub(crate) async fn get(&self, _: &str) -> Result<Answer, String> {
        match *self {}
    }

    pub(crate) async fn get_over_unix(&self, _: &Path, _: &str, _: &str) -> Result<Answer, String> {
        match *self {}
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        match *self {}
    }

    pub(crate) fn body(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn into_body(self) -> Zeroizing<Vec<u8>> {
        match self {}
    }

    pub(crate) fn retry_at(&self, _: Timestamp) -> Option<Timestamp> {
        match *self {}
    }
}

const OFF: &str = "this build has no HTTP client; build with feature `http3` or `acme`";
