//! One import or removal: a directory of its own for what is not finished.
//!
//! A session's directory holds a lock file, which is locked as long as the process lives. What a
//! killed process leaves is therefore known to be dead, and the next [`open`](super::ImageStore::open)
//! removes it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::FileLock;
use crate::{Digest, ImageError};

const LOCK: &str = "lock";
const PINS: &str = "pins";

/// A temporary directory in the store, removed when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    dir: PathBuf,
    _lock: FileLock,
}

impl Session {
    /// Begins a session below `tmp`. The caller holds the store's lock, so that no one takes the
    /// directory for dead before its lock is held.
    pub(super) fn begin(tmp: &Path) -> Result<Self, ImageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = tmp.join(format!("{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => break dir,
                // Left by an earlier process of the same number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ImageError::io("create", dir)(error)),
            }
        };
        let lock = FileLock::try_acquire(&dir.join(LOCK))?.ok_or_else(|| ImageError::Store {
            path: dir.clone(),
            problem: "was locked by another process the moment it was made".to_owned(),
        })?;
        let pins = dir.join(PINS);
        fs::create_dir(&pins).map_err(ImageError::io("create", pins))?;
        Ok(Self { dir, _lock: lock })
    }

    /// A path inside the session's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Keeps a layer from being collected while the session lives. The caller holds the store's
    /// lock.
    pub(super) fn pin(&self, layer: &Digest) -> Result<(), ImageError> {
        let path = self.dir.join(PINS).join(layer.hex());
        fs::write(&path, "").map_err(ImageError::io("create", path))
    }

    /// Gives up all pins. The caller holds the store's lock.
    pub(super) fn unpin(&self) -> Result<(), ImageError> {
        for pin in entries(&self.dir.join(PINS))? {
            fs::remove_file(&pin).map_err(ImageError::io("remove", pin))?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "temporary directory stays until the store is opened again");
        }
    }
}

/// Removes the directories of dead sessions and says how many. The caller holds the store's lock.
pub(super) fn remove_dead(tmp: &Path) -> Result<usize, ImageError> {
    let mut removed = 0;
    for dir in entries(tmp)? {
        if !dir.is_dir() {
            fs::remove_file(&dir).map_err(ImageError::io("remove", dir))?;
            continue;
        }
        if FileLock::try_acquire(&dir.join(LOCK))?.is_some() {
            fs::remove_dir_all(&dir).map_err(ImageError::io("remove", dir))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Layers that living sessions rely on. The caller holds the store's lock.
pub(super) fn pinned(tmp: &Path) -> Result<Vec<Digest>, ImageError> {
    let mut pinned = Vec::new();
    for dir in entries(tmp)? {
        let pins = match entries(&dir.join(PINS)) {
            Ok(pins) => pins,
            // The session ended between the two looks.
            Err(ImageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => return Err(error),
        };
        pinned.extend(pins.iter().filter_map(|pin| digest_of(pin)));
    }
    Ok(pinned)
}

/// The digest that a file or directory is called after.
pub(super) fn digest_of(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?)
}

/// Paths in a directory.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, ImageError> {
    fs::read_dir(dir)
        .and_then(|found| found.map(|entry| Ok(entry?.path())).collect())
        .map_err(ImageError::io("read", dir))
}
