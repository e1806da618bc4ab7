//! File locks with a bounded wait.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::ImageError;

/// An exclusive lock on a file, released when dropped or when the process dies.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock at most `timeout`. `what` says what a holder does; `on_wait` is called
    /// once when the lock is not free.
    pub(crate) fn acquire(
        path: &Path,
        timeout: Duration,
        what: &'static str,
        on_wait: impl FnOnce(),
    ) -> Result<Self, ImageError> {
        let begin = Instant::now();
        let mut on_wait = Some(on_wait);
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(lock);
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            if begin.elapsed() >= timeout {
                return Err(ImageError::Busy {
                    what,
                    path: path.to_owned(),
                    seconds: timeout.as_secs(),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// `None` when another process (or another thread) holds the lock.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>, ImageError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(ImageError::io("open", path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(ImageError::io("lock", path)(errno.into())),
        }
        // A lock file may be removed by the one who held it before: what is locked then is a
        // file that nobody else can find any more.
        let mine = file.metadata().map_err(ImageError::io("look at", path))?;
        match path.metadata() {
            Ok(there) if there.ino() == mine.ino() && there.dev() == mine.dev() => {
                Ok(Some(Self { _file: file }))
            }
            _ => Ok(None),
        }
    }
}
