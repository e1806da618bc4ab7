//! Puts one tar entry after another into the layer's directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

use super::archive_path::ArchivePath;
use super::root::{Place, Root, is_whiteout, os};
use super::tar::{Entry, Kind, TarReader};
use super::{Failure, metadata};
use crate::{BadEntry, ImageError, Limits};

/// Prefix of a name that hides the rest of the name in the layers below.
const WHITEOUT: &[u8] = b".wh.";
/// Hides everything that the layers below have in the directory it lies in.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept beside: no part of any image.
const AUFS: &[u8] = b".wh..wh.";

/// Bytes written between two looks at the free space.
const SPACE_INTERVAL: u64 = 16 << 20;
/// Entries made between two looks at the free space.
const ENTRY_INTERVAL: u64 = 2048;

/// Character devices that every container has in `/dev` and that give access to nothing: images
/// made from a root file system (`debootstrap`) bring them along.
const HARMLESS_DEVICES: [(u32, u32); 8] = [
    (1, 3), // null
    (1, 5), // zero
    (1, 7), // full
    (1, 8), // random
    (1, 9), // urandom
    (5, 0), // tty
    (5, 1), // console
    (5, 2), // ptmx
];

/// The state of one layer's unpacking.
pub(super) struct Unpacker<'a> {
    root: Root,
    limits: &'a Limits,
    entries: u64,
    content_bytes: u64,
    unchecked_bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    pub(super) fn open(target: &Path, limits: &'a Limits) -> Result<Self, ImageError> {
        let root = Root::open(target, limits.path_depth)
            .map_err(|errno| ImageError::io("open", target)(errno.into()))?;
        Ok(Self {
            root,
            limits,
            entries: 0,
            content_bytes: 0,
            unchecked_bytes: 0,
            buffer: vec![0; 128 << 10],
        })
    }

    pub(super) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Applies one entry, whose content `reader` is about to give.
    pub(super) fn apply<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), Failure> {
        self.entries += 1;
        if self.entries > self.limits.layer_entries {
            return Err(Failure::Entries);
        }
        if self.entries.is_multiple_of(ENTRY_INTERVAL) || self.entries == 1 {
            self.check_space(0)?;
        }
        let path = ArchivePath::parse(&entry.path, self.limits)?;
        if is_aufs_metadata(&path) {
            return Ok(());
        }
        let Some((parents, name)) = path.split_last() else {
            return self.apply_root(entry);
        };
        if parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
            return Err(BadEntry::BadWhiteout.into());
        }
        let Some(place) = self.root.place(&path)? else {
            return self.apply_root(entry);
        };
        if name.as_bytes() == OPAQUE {
            return Ok(self.hide_everything(parents)?);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return Ok(hide(place, OsStr::from_bytes(hidden))?);
        }
        self.put(entry, &path, place, reader)
    }

    fn put<R: Read>(
        &mut self,
        entry: &Entry,
        path: &ArchivePath,
        place: Place<'_>,
        reader: &mut TarReader<R>,
    ) -> Result<(), Failure> {
        let mut hides_below = false;
        if let Some(found) = place.stat()? {
            let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            if is_directory && entry.kind == Kind::Directory {
                metadata::apply(place.open_directory()?, entry)?;
                return Ok(());
            }
            hides_below = is_whiteout(&found);
            let links_itself = entry.kind == Kind::HardLink
                && ArchivePath::parse(&entry.link, self.limits)? == *path;
            if links_itself {
                return Ok(());
            }
            place.remove(&found)?;
        }
        match entry.kind {
            Kind::File => self.put_file(entry, &place, reader)?,
            Kind::Directory => {
                place.make_directory()?;
                let directory = place.open_directory()?;
                if hides_below {
                    metadata::set_opaque(&directory)?;
                }
                metadata::apply(&directory, entry)?;
            }
            Kind::Symlink => put_symlink(entry, &place)?,
            Kind::HardLink => self.put_hard_link(entry, &place)?,
            Kind::Fifo => put_node(entry, &place, FileType::Fifo, 0)?,
            Kind::CharDevice if entry.device == (0, 0) => put_whiteout(&place)?,
            Kind::CharDevice if HARMLESS_DEVICES.contains(&entry.device) => {
                let (major, minor) = entry.device;
                put_node(
                    entry,
                    &place,
                    FileType::CharacterDevice,
                    makedev(major, minor),
                )?;
            }
            Kind::CharDevice | Kind::BlockDevice => return Err(refuse_device(entry).into()),
            Kind::Unknown(flag) => {
                return Err(BadEntry::Unsupported(format!(
                    "tar entry type {:?}",
                    char::from(flag)
                ))
                .into());
            }
        }
        Ok(place.finish()?)
    }

    /// `./` in an archive carries the metadata of the root directory.
    fn apply_root(&self, entry: &Entry) -> Result<(), Failure> {
        if entry.kind != Kind::Directory {
            return Err(BadEntry::BadPath("only a directory can be the root").into());
        }
        Ok(metadata::apply(self.root.fd(), entry)?)
    }

    fn put_file<R: Read>(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        reader: &mut TarReader<R>,
    ) -> Result<(), Failure> {
        self.check_space(entry.stored_size)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.parent(), place.name(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(os("create"))?;
        let mut file = File::from(file);
        match &entry.sparse {
            None => self.copy(reader, &mut file, entry.stored_size)?,
            Some(map) => {
                for (offset, length) in &map.pieces {
                    file.seek(SeekFrom::Start(*offset)).map_err(write_failed)?;
                    self.copy(reader, &mut file, *length)?;
                }
                file.set_len(map.real_size).map_err(write_failed)?;
            }
        }
        Ok(metadata::apply(&file, entry)?)
    }

    fn copy<R: Read>(
        &mut self,
        reader: &mut TarReader<R>,
        file: &mut File,
        length: u64,
    ) -> Result<(), Failure> {
        let mut left = length;
        while left > 0 {
            let part = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            reader
                .read_exact(&mut self.buffer[..part])
                .map_err(Failure::Stream)?;
            file.write_all(&self.buffer[..part]).map_err(write_failed)?;
            left -= part as u64;
            self.content_bytes += part as u64;
            self.unchecked_bytes += part as u64;
            if self.unchecked_bytes >= SPACE_INTERVAL {
                self.check_space(0)?;
            }
        }
        Ok(())
    }

    /// Fails early when `wanted` more bytes do not fit and leave the margin free.
    fn check_space(&mut self, wanted: u64) -> Result<(), Failure> {
        if wanted > 0 && wanted < SPACE_INTERVAL {
            return Ok(());
        }
        self.unchecked_bytes = 0;
        let space = rustix::fs::fstatvfs(self.root.fd()).map_err(os("look at the space for"))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < wanted.saturating_add(self.limits.keep_free_bytes) {
            return Err(Failure::NoSpace);
        }
        Ok(())
    }

    fn put_hard_link(&self, entry: &Entry, place: &Place<'_>) -> Result<(), BadEntry> {
        let cannot = |errno: Errno| BadEntry::BadHardLink {
            target: String::from_utf8_lossy(&entry.link)
                .chars()
                .take(300)
                .collect(),
            source: errno.into(),
        };
        let target = ArchivePath::parse(&entry.link, self.limits)?;
        let target = self
            .root
            .existing_place(&target)
            .map_err(cannot)?
            .ok_or_else(|| cannot(Errno::ISDIR))?;
        // Without a follow flag a link to a symbolic link is one to the link itself.
        rustix::fs::linkat(
            target.parent(),
            target.name(),
            place.parent(),
            place.name(),
            AtFlags::empty(),
        )
        .map_err(cannot)
    }

    /// Makes the directory with these components opaque; the marker's own place was found in it.
    fn hide_everything(&self, components: &[Vec<u8>]) -> Result<(), BadEntry> {
        let directory = self
            .root
            .open_directory(components)
            .map_err(os("open the directory of"))?;
        metadata::set_opaque(directory)
    }
}

/// Hides one name in the layers below. What this very layer has under the name stays, and then a
/// directory must not be merged with the one below.
fn hide(marker: Place<'_>, hidden: &OsStr) -> Result<(), BadEntry> {
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(BadEntry::BadWhiteout);
    }
    let place = marker.sibling(hidden);
    match place.stat()? {
        None => put_whiteout(&place)?,
        Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            metadata::set_opaque(place.open_directory()?)?;
        }
        Some(_) => {}
    }
    place.finish()
}

fn put_whiteout(place: &Place<'_>) -> Result<(), BadEntry> {
    rustix::fs::mknodat(
        place.parent(),
        place.name(),
        FileType::CharacterDevice,
        Mode::empty(),
        makedev(0, 0),
    )
    .map_err(|errno| BadEntry::Os {
        action: "make an overlay whiteout for",
        source: match errno {
            Errno::PERM => io::Error::other(
                "the file system of the image store takes no whiteouts (is it an overlay itself?), or this is not root",
            ),
            errno => errno.into(),
        },
    })
}

fn put_symlink(entry: &Entry, place: &Place<'_>) -> Result<(), BadEntry> {
    if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > 4095 {
        return Err(BadEntry::BadPath(
            "its link target is empty, too long or has a NUL byte",
        ));
    }
    let target = OsStr::from_bytes(&entry.link);
    rustix::fs::symlinkat(target, place.parent(), place.name()).map_err(os("create"))?;
    metadata::apply_at(place, entry)
}

fn put_node(entry: &Entry, place: &Place<'_>, kind: FileType, device: u64) -> Result<(), BadEntry> {
    let (parent, name) = (place.parent(), place.name());
    rustix::fs::mknodat(parent, name, kind, Mode::RUSR, device).map_err(os("create"))?;
    metadata::apply_at(place, entry)?;
    // The node was made a moment ago in a directory nobody else has, so it is no link.
    rustix::fs::chmodat(
        parent,
        name,
        Mode::from_raw_mode(entry.mode),
        AtFlags::empty(),
    )
    .map_err(os("set the mode of"))
}

fn refuse_device(entry: &Entry) -> BadEntry {
    let (major, minor) = entry.device;
    BadEntry::Device {
        kind: match entry.kind {
            Kind::BlockDevice => "block",
            _ => "character",
        },
        major,
        minor,
    }
}

fn is_aufs_metadata(path: &ArchivePath) -> bool {
    path.components()
        .iter()
        .any(|component| component.starts_with(AUFS) && component.as_slice() != OPAQUE)
}

fn write_failed(source: io::Error) -> Failure {
    BadEntry::Os {
        action: "write",
        source,
    }
    .into()
}
