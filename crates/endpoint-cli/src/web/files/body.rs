//! The bytes of a file on their way out.
//!
//! Read piece by piece as the client takes them: a client that takes nothing costs one piece, and a small
//! file no more than its own bytes. What the kernel holds in memory is read where it is asked for: the way
//! to another thread and back costs more than the reading. What must come from a disk is read where it may
//! block (`disk`); if that does not answer, the answer is broken off.

use std::{
    io,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use endpoint_core::http::Requester;
use http_body::{Body, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};

use super::disk::Held;

/// Bytes read from a file in one go, by the answers that are under way on the connection: a client that
/// takes nothing makes each of them hold that once or twice.
const PIECE_BYTES: [(usize, usize); 3] = [(4, 128 * 1024), (24, 16 * 1024), (usize::MAX, 8 * 1024)];
/// The first piece, before the client has taken anything.
const FIRST_BYTES: usize = 64 * 1024;
/// A piece while the answers of all connections hold much.
const CROWDED_BYTES: usize = 8 * 1024;

/// A piece on its way from a disk.
type Reading = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>>;

/// A part of a file.
pub(super) struct FileBody {
    file: Arc<Held>,
    position: u64,
    left: u64,
    /// Who takes it.
    requester: Option<Requester>,
    /// Whether the first piece is out.
    begun: bool,
    most_bytes: usize,
    /// From a disk.
    reading: Option<Reading>,
}

impl FileBody {
    /// `length` bytes from `position` on.
    pub(super) fn new(
        file: Arc<Held>,
        position: u64,
        length: u64,
        requester: Option<Requester>,
    ) -> Self {
        let (begun, most_bytes, reading) = (false, usize::MAX, None);
        Self { file, position, left: length, requester, begun, most_bytes, reading }
    }

    /// Gives no piece of more bytes.
    pub(super) fn in_pieces_of(&mut self, bytes: usize) {
        self.most_bytes = bytes.max(1);
    }

    /// Bytes of the next piece.
    fn wanted(&self) -> usize {
        let answers = self.requester.as_ref().map_or(0, Requester::answers);
        let fits = PIECE_BYTES.iter().find(|(most, _)| answers <= *most);
        let most = fits.map_or(FIRST_BYTES, |(_, bytes)| *bytes);
        let most = if self.begun { most } else { most.min(FIRST_BYTES) };
        let crowded = self.requester.as_ref().is_some_and(Requester::is_crowded);
        let most = if crowded { most.min(CROWDED_BYTES) } else { most };
        usize::try_from(self.left).unwrap_or(usize::MAX).min(most).min(self.most_bytes)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if self.reading.is_none()
            && let Some(file) = self.file.at_once()
        {
            let mut bytes = vec![0; self.wanted()];
            let room = &mut [io::IoSliceMut::new(&mut bytes)];
            match rustix::io::preadv2(file, room, self.position, ReadWriteFlags::NOWAIT) {
                Ok(read) => {
                    bytes.truncate(read);
                    return Poll::Ready(Ok(bytes));
                }
                // Not in memory; or a file system, or a kernel, that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let wanted = self.wanted();
        let reading = self.reading.get_or_insert_with(|| {
            let (file, position) = (Arc::clone(&self.file), self.position);
            let disk = file.disk().clone();
            Box::pin(async move {
                let read = move || {
                    let mut bytes = vec![0; wanted];
                    let read = file.file()?.read_at(&mut bytes, position)?;
                    bytes.truncate(read);
                    Ok(bytes)
                };
                disk.ask(read).await
            })
        });
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(read)
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = ready!(self.poll_read(cx))?;
        if bytes.is_empty() {
            // It was longer when it was opened, and the client was told so.
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter");
            return Poll::Ready(Some(Err(error)));
        }
        self.begun = true;
        self.position = self.position.saturating_add(bytes.len() as u64);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use http_body_util::BodyExt;

    use super::{super::disk::Disk, *};

    /// Open, and read at once from memory or always where it may block.
    fn open(path: &std::path::Path, at_once: bool) -> Arc<Held> {
        Arc::new(Held::new(File::open(path).unwrap(), Disk::of(1), at_once))
    }

    fn text() -> Vec<u8> {
        (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect()
    }

    #[tokio::test]
    async fn reads_the_part_it_was_given_whatever_comes_after() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        for at_once in [true, false] {
            fs::write(&path, text()).unwrap();
            let file = open(&path, at_once);
            fs::write(&path, [&text()[..], b"more"].concat()).unwrap();
            for (position, length) in [(0, 200_000), (199_990, 10), (7, 100_000), (5, 0)] {
                let body = FileBody::new(Arc::clone(&file), position, length, None);
                assert_eq!(body.size_hint().exact(), Some(length));
                let read = body.collect().await.unwrap().to_bytes();
                let (from, to) = (position as usize, (position + length) as usize);
                assert_eq!(read, text()[from..to]);
            }
        }
    }

    #[tokio::test]
    async fn a_small_file_costs_its_own_bytes_and_one_poll() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        fs::write(&path, "thirteen byte").unwrap();
        let mut body = FileBody::new(open(&path, true), 0, 13, None);
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.is_end_stream());
        let vector: Vec<u8> = piece.into();
        assert_eq!((vector.len(), vector.capacity()), (13, 13));
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_does_not_look_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        fs::write(&path, "abc").unwrap();
        let body = FileBody::new(open(&path, true), 0, 10, None);
        assert!(body.collect().await.is_err());
    }
}
