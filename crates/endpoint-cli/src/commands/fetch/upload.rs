//! What the request carries.

use std::{io, path::Path};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{CliError, Result};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body and its length, where that is known.
pub(super) struct Upload {
    pub(super) stream: Body,
    pub(super) length: Option<u64>,
}

/// Text, `@FILE`, or `@-` for stdin.
pub(super) async fn open(data: Option<&str>) -> Result<Upload> {
    let never = |never| match never {};
    let Some(data) = data else {
        return Ok(Upload { stream: Empty::new().map_err(never).boxed_unsync(), length: None });
    };
    let Some(name) = data.strip_prefix('@') else {
        let bytes = Bytes::copy_from_slice(data.as_bytes());
        let length = Some(bytes.len() as u64);
        return Ok(Upload { stream: Full::new(bytes).map_err(never).boxed_unsync(), length });
    };
    if name == "-" {
        return Ok(Upload { stream: streamed(tokio::io::stdin()), length: None });
    }
    let path = Path::new(name);
    let file = tokio::fs::File::open(path).await.map_err(|e| CliError::io("read", path, &e))?;
    let about = file.metadata().await.map_err(|e| CliError::io("read", path, &e))?;
    if about.is_dir() {
        return Err(CliError::usage("usage", format!("{name} is a folder"))
            .hint("name a file: --data @FILE"));
    }
    // A pipe's length is not known before its end.
    let length = about.is_file().then_some(about.len());
    let stream = match length {
        // What grows while it is read is sent as it was.
        Some(length) => streamed(file.take(length)),
        None => streamed(file),
    };
    Ok(Upload { stream, length })
}

fn streamed(source: impl AsyncRead + Send + Unpin + 'static) -> Body {
    let frames = stream::unfold(Some(source), |source| async {
        let mut source = source?;
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        match source.read_buf(&mut buffer).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Frame::data(buffer.freeze())), Some(source))),
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

const CHUNK_BYTES: usize = 64 * 1024;
