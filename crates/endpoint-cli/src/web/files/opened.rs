//! A file that is being read.
//!
//! What the kernel holds in memory is read where it is asked for: the way to another thread and back costs
//! more than the reading. What must come from a disk is read where it may block.

use std::{
    fs::{self, File, Metadata},
    io::{self, IoSliceMut, SeekFrom},
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use rustix::io::{Errno, ReadWriteFlags};
use tokio::{
    io::{AsyncRead, AsyncSeek, ReadBuf},
    task::JoinHandle,
};
use tower_http::services::fs::{File as BackendFile, Metadata as BackendMetadata};

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

/// A file, to its end as it was when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    file: Arc<File>,
    about: About,
    position: u64,
    /// From a disk.
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl Opened {
    pub(super) fn new(file: File, about: fs::Metadata) -> Self {
        Self { file: Arc::new(file), about: About(about), position: 0, reading: None }
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
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.about.0.len().saturating_sub(this.position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.remaining());
        if wanted == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.reading.is_none() {
            let room = buffer.initialize_unfilled_to(wanted);
            match rustix::io::preadv2(
                &*this.file,
                &mut [IoSliceMut::new(room)],
                this.position,
                ReadWriteFlags::NOWAIT,
            ) {
                Ok(read) => {
                    buffer.advance(read);
                    this.position += read as u64;
                    return Poll::Ready(Ok(()));
                }
                // Not in memory; or a file system, or a kernel, that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let reading = this.reading.get_or_insert_with(|| {
            let (file, position) = (Arc::clone(&this.file), this.position);
            tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; wanted];
                let read = file.read_at(&mut bytes, position)?;
                bytes.truncate(read);
                Ok(bytes)
            })
        });
        let read = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other);
        this.reading = None;
        let bytes = read??;
        let fits = bytes.get(..bytes.len().min(wanted)).unwrap_or_default();
        buffer.put_slice(fits);
        this.position += fits.len() as u64;
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
        self.position = moved.ok_or(io::ErrorKind::InvalidInput)?;
        self.reading = None;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};

    use super::*;

    #[tokio::test]
    async fn reads_to_the_end_it_had_when_it_was_opened() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let text: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        fs::write(&path, &text).unwrap();
        let file = File::open(&path).unwrap();
        let about = file.metadata().unwrap();
        let mut opened = Opened::new(file, about);
        fs::write(&path, [&text[..], b"more"].concat()).unwrap();
        let mut read = Vec::new();
        opened.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, text);
        opened.seek(SeekFrom::Start(199_990)).await.unwrap();
        read.clear();
        opened.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, text[199_990..]);
    }
}
