//! From a layer's compressed tar stream to a directory that overlayfs can use.
//!
//! Layers follow the image specification v1.1, "Image Layer Filesystem Changeset"; the directory
//! follows Linux `Documentation/filesystems/overlayfs.rst`. A layer is hostile input: it is read
//! by a tar reader with bounds ([`tar`]), and everything it asks for happens below a directory
//! descriptor that the kernel confines ([`root`]).

mod apply;
mod archive_path;
mod compression;
mod metadata;
mod pax;
mod root;
mod sparse;
pub(crate) mod tar;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::digest::HashingReader;
use crate::error::is_full;
use crate::{BadEntry, Digest, ImageError, Limits};

pub(crate) use compression::{Compression, decompress};

/// What a layer turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Digest of the uncompressed stream, the layer's `diff_id`.
    pub(crate) diff_id: Digest,
    /// Bytes of file content.
    pub(crate) content_bytes: u64,
}

/// Unpacks one layer into `target`, an existing empty directory that nobody else touches.
/// `layer` names the layer in errors.
///
/// The caller compares the digest before it believes anything in `target`.
pub(crate) fn unpack_layer(
    input: impl Read,
    target: &Path,
    layer: &str,
    limits: &Limits,
) -> Result<Unpacked, ImageError> {
    let (plain, _) = decompress(input, layer)?;
    let bounded = Bounded {
        inner: plain,
        left: limits.layer_bytes,
    };
    let mut reader = tar::TarReader::new(HashingReader::new(bounded), limits.header_bytes);
    let mut unpacker = apply::Unpacker::open(target, limits)?;
    let broken = |source: io::Error| broken(source, layer, limits);
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        unpacker
            .apply(&entry, &mut reader)
            .map_err(|failure| failure.describe(layer, &entry, target, limits))?;
    }
    let content_bytes = unpacker.content_bytes();
    let (diff_id, _) = reader.into_inner().finish().map_err(broken)?;
    Ok(Unpacked {
        diff_id,
        content_bytes,
    })
}

/// Makes everything written to the file system of `target` durable.
pub(crate) fn sync(target: &Path) -> Result<(), ImageError> {
    let dir = File::open(target).map_err(ImageError::io("open", target))?;
    rustix::fs::syncfs(&dir).map_err(|errno| ImageError::io("sync", target)(errno.into()))
}

/// Why an entry was not applied.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The entry is refused.
    Entry(BadEntry),
    /// The stream broke while the entry's content was read.
    Stream(io::Error),
    /// The file system has less space than must stay free.
    NoSpace,
    /// More entries than allowed.
    Entries,
}

impl From<BadEntry> for Failure {
    fn from(entry: BadEntry) -> Self {
        match entry {
            BadEntry::Os { ref source, .. } if is_full(source) => Self::NoSpace,
            entry => Self::Entry(entry),
        }
    }
}

impl Failure {
    fn describe(
        self,
        layer: &str,
        entry: &tar::Entry,
        target: &Path,
        limits: &Limits,
    ) -> ImageError {
        match self {
            Self::Entry(source) => ImageError::BadEntry {
                layer: layer.to_owned(),
                entry: String::from_utf8_lossy(&entry.path)
                    .chars()
                    .take(300)
                    .collect(),
                source,
            },
            Self::Stream(source) => broken(source, layer, limits),
            Self::NoSpace => ImageError::NoSpace {
                path: target.to_owned(),
            },
            Self::Entries => ImageError::TooLarge {
                what: format!("layer {layer}"),
                limit: limits.layer_entries,
                unit: "entries",
            },
        }
    }
}

fn broken(source: io::Error, layer: &str, limits: &Limits) -> ImageError {
    if source.kind() == io::ErrorKind::FileTooLarge {
        return ImageError::TooLarge {
            what: format!("layer {layer}"),
            limit: limits.layer_bytes,
            unit: "bytes",
        };
    }
    ImageError::BadLayer {
        layer: layer.to_owned(),
        source,
    }
}

/// Fails when more than an allowed number of bytes comes out: a decompression bomb.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(count)
    }
}
