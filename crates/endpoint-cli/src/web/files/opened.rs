//! What tower-http is told of a file, and what we keep of it.
//!
//! tower-http finds the file, its form and the range, and reads nothing: its reader takes a whole piece of
//! memory for the smallest file. The file is noted here, and `body` reads it.

use std::{
    fs::{self, Metadata},
    io::{self, SeekFrom},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{File as BackendFile, Metadata as BackendMetadata};

use super::disk::Held;

/// What tower-http asks of a file's metadata.
#[derive(Clone, Debug)]
pub(super) struct About(pub(super) Metadata);

impl BackendMetadata for About {
    fn is_dir(&self) -> bool {
        self.0.is_dir()
    }

    fn modified(&self) -> io::Result<SystemTime> {
        self.0.modified()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// What a request met: the file that it opened last, and where in it the answer begins; or that the disk did
/// not answer. Clones are the same note.
#[derive(Clone, Debug, Default)]
pub(super) struct Note(Arc<Mutex<Met>>);

#[derive(Debug, Default)]
struct Met {
    place: Option<Place>,
    late: bool,
}

/// A place in a file.
type Place = (Arc<Held>, u64);

impl Note {
    /// Takes the place that was noted.
    pub(super) fn take(&self) -> Option<Place> {
        self.met().place.take()
    }

    /// Notes that the disk did not answer.
    pub(super) fn late(&self) {
        self.met().late = true;
    }

    /// Whether that is noted.
    pub(super) fn is_late(&self) -> bool {
        self.met().late
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file, to its end as it was when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    note: Note,
    about: About,
    position: u64,
}

impl Opened {
    /// Notes the file.
    pub(super) fn new(file: Held, about: fs::Metadata, note: Note) -> Self {
        note.met().place = Some((Arc::new(file), 0));
        Self { note, about: About(about), position: 0 }
    }
}

impl BackendFile for Opened {
    type Metadata = About;
    type MetadataFuture<'a> = std::future::Ready<io::Result<About>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.about.clone()))
    }
}

impl AsyncRead for Opened {
    /// Nothing: see the module.
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Opened {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let moved = match position {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.about.0.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let at = moved.ok_or(io::ErrorKind::InvalidInput)?;
        self.position = at;
        if let Some((_, position)) = &mut self.note.met().place {
            *position = at;
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
