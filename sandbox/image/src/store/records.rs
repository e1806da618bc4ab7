//! The small JSON files of the store: one for each image and each lease.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::session::{self, Session};
use crate::{Digest, ImageError};

/// An image, in `images/<hex of its digest>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the configuration.
    pub(crate) digest: Digest,
    pub(crate) manifest_digest: Option<Digest>,
    /// Full names. A name is in one record only.
    pub(crate) names: Vec<String>,
    /// Digests of the unpacked layers, bottom first.
    pub(crate) layers: Vec<Digest>,
    /// Seconds since 1970.
    pub(crate) imported: u64,
}

/// A container's use of an image, in `leases/<container id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) image: Digest,
    pub(crate) layers: Vec<Digest>,
}

/// An archive that was imported before, in `sources/<key>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    pub(crate) image: Digest,
}

/// Reads one record; `None` when there is none. An empty file is what a power failure leaves of
/// one that was not synced.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    let bytes = match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => return Ok(None),
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| ImageError::Store {
            path: path.to_owned(),
            problem: format!("is damaged ({error}): remove this file and import the image again"),
        })
}

/// Reads every record of a directory, with the path of each.
pub(super) fn read_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<(PathBuf, T)>, ImageError> {
    let mut records = Vec::new();
    for path in session::entries(dir)? {
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
            && let Some(record) = read(&path)?
        {
            records.push((path, record));
        }
    }
    Ok(records)
}

/// Writes a record so that a crash leaves the old one or the new one.
pub(super) fn write<T: Serialize>(
    session: &Session,
    path: &Path,
    record: &T,
) -> Result<(), ImageError> {
    write_bytes(session, path, &to_bytes(path, record)?)
}

/// Writes a record that need not outlive a power failure: no container does either.
pub(super) fn write_volatile<T: Serialize>(
    session: &Session,
    path: &Path,
    record: &T,
) -> Result<(), ImageError> {
    write_unsynced(session, path, &to_bytes(path, record)?)
}

fn to_bytes<T: Serialize>(path: &Path, record: &T) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec_pretty(record).map_err(|error| ImageError::Store {
        path: path.to_owned(),
        problem: format!("cannot be written ({error})"),
    })
}

/// Writes a file: temporary file, sync, rename, sync of the directory.
pub(super) fn write_bytes(session: &Session, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    put(session, path, bytes, true)?;
    sync_parent(path)
}

/// Writes a file that can be lost: temporary file, rename.
pub(super) fn write_unsynced(
    session: &Session,
    path: &Path,
    bytes: &[u8],
) -> Result<(), ImageError> {
    put(session, path, bytes, false)
}

fn put(session: &Session, path: &Path, bytes: &[u8], sync: bool) -> Result<(), ImageError> {
    let unfinished = session.path("record");
    let failed = |action| ImageError::io(action, path);
    let mut file = File::create(&unfinished).map_err(failed("create"))?;
    file.write_all(bytes).map_err(failed("write"))?;
    if sync {
        file.sync_all().map_err(failed("sync"))?;
    }
    fs::rename(&unfinished, path).map_err(failed("rename"))
}

/// Removes a file; one that comes back after a power failure is removed again by the next
/// collection.
pub(super) fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ImageError::io("remove", path)(error)),
    }
}

/// Makes a rename or removal in the directory of `path` last.
pub(super) fn sync_parent(path: &Path) -> Result<(), ImageError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(ImageError::io("sync", parent))
}
