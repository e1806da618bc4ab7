//! Files by name, from a directory or from an archive.

use std::io::{self, Read};
use std::path::Path;

use crate::store::Layers;
use crate::{Digest, ImageError};

/// A content of an opened file.
pub(super) type Content<'a> = Box<dyn Read + 'a>;

/// Where the files of a layout or of a docker-archive lie.
pub(super) trait Files {
    /// What errors call it.
    fn path(&self) -> &Path;

    /// Opens a file by its relative name; `None` when there is none.
    fn open(&self, name: &str) -> Result<Option<Content<'_>>, ImageError>;

    /// Reads a whole file of at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(content) = self.open(name)? else {
            return Ok(None);
        };
        let path = self.path().join(name);
        read_bounded(content, limit)
            .map_err(ImageError::io("read", &path))?
            .map(Some)
            .ok_or_else(|| ImageError::TooLarge {
                what: path.display().to_string(),
                limit,
                unit: "bytes",
            })
    }

    /// Reads a whole file that must be there.
    fn require(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        self.read(name, limit)?
            .ok_or_else(|| missing(self.path(), name))
    }
}

/// The error for a file that a list promises and that is not there.
pub(super) fn missing(path: &Path, name: &str) -> ImageError {
    ImageError::NotAnImage {
        path: path.to_owned(),
        reason: format!("it lacks {:?}", name.chars().take(200).collect::<String>()),
    }
}

/// `None` when there is more than `limit`.
fn read_bounded(content: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    content
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Where the blob of a digest lies in an image layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Layers that lie under names.
pub(super) struct NamedLayers<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) names: Vec<String>,
}

impl Layers for NamedLayers<'_> {
    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>, ImageError> {
        let name = self
            .names
            .get(index)
            .map(String::as_str)
            .unwrap_or_default();
        self.files
            .open(name)?
            .ok_or_else(|| missing(self.files.path(), name))
    }
}
