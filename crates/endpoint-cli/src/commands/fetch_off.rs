//! A build without HTTP fetches nothing.

use super::Context;
use crate::{
    args::Fetch,
    error::{CliError, Result},
};

pub(super) async fn run(_: Fetch, _: &Context) -> Result<()> {
    Err(CliError::usage("not-in-this-build", "this build has no HTTP")
        .hint("build the program with it: cargo build --features http3"))
}
