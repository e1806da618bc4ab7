//! A tar file that holds a layout or a docker image, read in place.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::files::{Content, Files};
use crate::store::Session;
use crate::unpack::tar::{Kind, TarReader};
use crate::unpack::{Compression, decompress};
use crate::{Digest, ImageError, Limits};

/// Files that an archive may have: two for each layer and a few more.
const MOST_FILES: usize = 10_000;
/// Bytes of a file's name in an archive.
const LONGEST_NAME: usize = 1024;
/// Links that are followed from one file to another.
const MOST_LINKS: usize = 8;

/// An archive with an index of what lies where.
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    slots: BTreeMap<String, Slot>,
}

/// What lies under a name.
enum Slot {
    Content {
        offset: u64,
        size: u64,
    },
    /// `docker save` replaces repeated layers by links.
    Link(String),
}

/// Identifies an unchanged file: any change to it moves its change time, which nobody can set.
/// `None` for what is no regular file.
pub(super) fn key(path: &Path, name: Option<&str>) -> Result<Option<Digest>, ImageError> {
    let metadata = path.metadata().map_err(ImageError::io("open", path))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let text = format!(
        "{} {} {} {}.{} {}.{} {name:?}",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    );
    Ok(Some(Digest::of(text.as_bytes())))
}

/// False for a file that changed so lately that another change might carry the same time.
pub(super) fn is_settled(path: &Path) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    path.metadata().is_ok_and(|metadata| {
        u64::try_from(metadata.ctime()).is_ok_and(|changed| changed + 1 < now)
    })
}

impl Archive {
    /// Opens a tar file. A compressed one, and one that comes through a pipe, is written out into
    /// the session first, because layers are read out of order.
    pub(super) fn open(
        path: &Path,
        session: &Session,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let mut file = File::open(path).map_err(ImageError::io("open", path))?;
        let metadata = file.metadata().map_err(ImageError::io("look at", path))?;
        if metadata.is_dir() {
            return Err(ImageError::NotAnImage {
                path: path.to_owned(),
                reason: "it is a directory without an oci-layout file".to_owned(),
            });
        }
        let name = path.display().to_string();
        let (mut plain, compression) = decompress(&file, &name)?;
        if compression != Compression::None || !metadata.is_file() {
            let spooled = session.path("archive.tar");
            spool(plain.as_mut(), path, &spooled, limits)?;
            drop(plain);
            file = File::open(&spooled).map_err(ImageError::io("open", spooled))?;
        } else {
            drop(plain);
        }
        file.seek(SeekFrom::Start(0))
            .map_err(ImageError::io("read", path))?;
        let metadata = file.metadata().map_err(ImageError::io("look at", path))?;
        let slots = index(&file, &metadata, limits).map_err(|error| ImageError::NotAnImage {
            path: path.to_owned(),
            reason: format!("it is no readable tar archive ({error})"),
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            slots,
        })
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = normal(name)?;
        for _ in 0..MOST_LINKS {
            match self.slots.get(&name)? {
                Slot::Content { offset, size } => return Some((*offset, *size)),
                Slot::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

impl Files for Archive {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &str) -> Result<Option<Content<'_>>, ImageError> {
        Ok(self.find(name).map(|(offset, size)| {
            let section = Section {
                file: &self.file,
                at: offset,
                end: offset + size,
            };
            Box::new(section) as Content<'_>
        }))
    }
}

fn spool(
    plain: &mut dyn Read,
    path: &Path,
    target: &Path,
    limits: &Limits,
) -> Result<(), ImageError> {
    /// Bytes between two looks at the free space.
    const STEP: u64 = 16 << 20;
    let mut out = File::create(target).map_err(ImageError::io("create", target))?;
    let mut written = 0;
    loop {
        let space = rustix::fs::fstatvfs(&out)
            .map_err(|errno| ImageError::io("look at", target)(errno.into()))?;
        if space.f_bavail.saturating_mul(space.f_frsize) < limits.keep_free_bytes + STEP {
            return Err(ImageError::NoSpace {
                path: target.to_owned(),
            });
        }
        // An error of the source and one of the target look alike here; a full disk is told
        // apart by its kind.
        let count = io::copy(&mut plain.take(STEP), &mut out)
            .map_err(ImageError::io("decompress", path))?;
        written += count;
        if count == 0 {
            return Ok(());
        }
        if written > limits.layer_bytes {
            return Err(ImageError::TooLarge {
                what: path.display().to_string(),
                limit: limits.layer_bytes,
                unit: "bytes",
            });
        }
    }
}

fn index(file: &File, metadata: &Metadata, limits: &Limits) -> io::Result<BTreeMap<String, Slot>> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let length = metadata.len();
    let mut reader = TarReader::seekable(file, limits.header_bytes);
    let mut slots = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        // Names that no image uses, and what a file cannot be found under, are of no interest.
        let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(normal) else {
            continue;
        };
        let slot = match entry.kind {
            Kind::File if entry.sparse.is_some() => {
                return Err(invalid(format!("{name:?} is a sparse file")));
            }
            Kind::File => {
                let end = entry.offset.checked_add(entry.stored_size);
                if end.is_none_or(|end| end > length) {
                    return Err(invalid(format!("it ends in the middle of {name:?}")));
                }
                Slot::Content {
                    offset: entry.offset,
                    size: entry.stored_size,
                }
            }
            Kind::HardLink | Kind::Symlink => {
                let from = match entry.kind {
                    Kind::Symlink => name.rsplit_once('/').map_or("", |(parent, _)| parent),
                    _ => "",
                };
                let target = std::str::from_utf8(&entry.link)
                    .ok()
                    .and_then(|link| normal(&format!("{from}/{link}")));
                match target {
                    Some(target) => Slot::Link(target),
                    None => continue,
                }
            }
            _ => continue,
        };
        slots.insert(name, slot);
        if slots.len() > MOST_FILES {
            return Err(invalid(format!("it has more than {MOST_FILES} files")));
        }
    }
    Ok(slots)
}

/// Resolves `.` and `..` by the text alone; `None` for what leaves the archive.
fn normal(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let name = parts.join("/");
    (!name.is_empty() && name.len() <= LONGEST_NAME).then_some(name)
}

/// A part of a file, read without moving the file's own position.
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.end - self.at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
