//! The directory that a layer is unpacked into, and the only way to a path inside it.
//!
//! Every path is resolved by `openat2` with `RESOLVE_IN_ROOT`: the kernel follows symbolic links
//! of the layer as if the directory were `/`, so neither an absolute link nor `..` in a link's
//! target leads out. The last component is never followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use super::archive_path::{ArchivePath, join};
use super::metadata;
use crate::BadEntry;

/// The root directory of one layer. Nobody else writes below it.
pub(super) struct Root {
    fd: OwnedFd,
    path: PathBuf,
    depth: usize,
}

/// A name in an existing directory of the layer.
pub(super) struct Place<'a> {
    parent: OwnedFd,
    name: &'a OsStr,
    times: Timestamps,
}

impl Root {
    pub(super) fn open(path: &Path, depth: usize) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        // The path as the kernel sees it, to measure how deep a resolved directory lies.
        let path = path_of(fd.as_fd())?;
        Ok(Self { fd, path, depth })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The place that a path names; missing parents are made. `None` for the root itself.
    pub(super) fn place<'a>(&self, path: &'a ArchivePath) -> Result<Option<Place<'a>>, BadEntry> {
        let Some((parents, name)) = path.split_last() else {
            return Ok(None);
        };
        let parent = match self.directory(parents) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parents)?,
            found => found.map_err(os("find the directory of"))?,
        };
        Place::new(parent, name).map(Some)
    }

    /// The place that a path names, in a directory that must exist.
    pub(super) fn existing_place<'a>(
        &self,
        path: &'a ArchivePath,
    ) -> Result<Option<Place<'a>>, Errno> {
        let Some((parents, name)) = path.split_last() else {
            return Ok(None);
        };
        Place::in_directory(self.directory(parents)?, name).map(Some)
    }

    /// Opens an existing directory for changes to itself.
    pub(super) fn open_directory(&self, components: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        let found = self.directory(components)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(found, ".", flags, Mode::empty())
    }

    fn directory(&self, components: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        let path = match components {
            [] => PathBuf::from("."),
            _ => join(components),
        };
        let open = |resolve| {
            rustix::fs::openat2(
                &self.fd,
                &path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                resolve | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
            )
        };
        match open(ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => {}
            found => return found,
        }
        let found = open(ResolveFlags::IN_ROOT)?;
        // Links can lead deeper than the path's own components; removing a tree of any depth
        // would need as many descriptors.
        let resolved = path_of(found.as_fd())?;
        let inside = resolved.strip_prefix(&self.path).map_err(|_| Errno::XDEV)?;
        if inside.components().count() > self.depth {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(found)
    }

    fn make_parents(&self, components: &[Vec<u8>]) -> Result<OwnedFd, BadEntry> {
        let mut above = self.directory(&[]).map_err(os("open the root above"))?;
        for end in 1..=components.len() {
            let path = &components[..end];
            above = match self.directory(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let name = OsStr::from_bytes(&components[end - 1]);
                    self.make_parent(above, name, path)?
                }
                found => found.map_err(os("find the directory of"))?,
            };
        }
        Ok(above)
    }

    fn make_parent(
        &self,
        above: OwnedFd,
        name: &OsStr,
        path: &[Vec<u8>],
    ) -> Result<OwnedFd, BadEntry> {
        let not_a_directory =
            || BadEntry::ParentNotDirectory(join(path).to_string_lossy().into_owned());
        let place = Place::new(above, name)?;
        match place.stat()? {
            None => place.make_directory()?,
            Some(found) if is_whiteout(&found) => {
                // The layer hides what was there and puts something new in its place.
                place.remove(&found)?;
                place.make_directory()?;
                metadata::set_opaque(&place.open_directory()?)?;
            }
            Some(_) => return Err(not_a_directory()),
        }
        place.finish()?;
        self.directory(path).map_err(|_| not_a_directory())
    }
}

impl<'a> Place<'a> {
    fn new(parent: OwnedFd, name: &'a OsStr) -> Result<Self, BadEntry> {
        Self::in_directory(parent, name).map_err(os("look at the directory of"))
    }

    fn in_directory(parent: OwnedFd, name: &'a OsStr) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&parent)?;
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        };
        Ok(Self {
            parent,
            name,
            times,
        })
    }

    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(super) fn name(&self) -> &'a OsStr {
        self.name
    }

    /// The same directory, another name.
    pub(super) fn sibling<'b>(self, name: &'b OsStr) -> Place<'b> {
        Place {
            parent: self.parent,
            name,
            times: self.times,
        }
    }

    /// What is there, without following a link.
    pub(super) fn stat(&self) -> Result<Option<Stat>, BadEntry> {
        match rustix::fs::statat(&self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(os("look at")(errno)),
        }
    }

    /// Removes what is there, a directory with everything in it.
    pub(super) fn remove(&self, found: &Stat) -> Result<(), BadEntry> {
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let parent = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
            return std::fs::remove_dir_all(parent.join(self.name)).map_err(|source| {
                BadEntry::Os {
                    action: "replace the directory at",
                    source,
                }
            });
        }
        rustix::fs::unlinkat(&self.parent, self.name, AtFlags::empty()).map_err(os("replace"))
    }

    pub(super) fn make_directory(&self) -> Result<(), BadEntry> {
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        rustix::fs::mkdirat(&self.parent, self.name, mode).map_err(os("create"))?;
        // The mode above went through the umask.
        let made = self.open_directory()?;
        rustix::fs::fchmod(&made, mode).map_err(os("set the mode of"))
    }

    pub(super) fn open_directory(&self) -> Result<OwnedFd, BadEntry> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.parent, self.name, flags, Mode::empty()).map_err(os("open"))
    }

    /// Gives the directory its modification time back, which the change in it moved.
    pub(super) fn finish(self) -> Result<(), BadEntry> {
        rustix::fs::utimensat(&self.parent, ".", &self.times, AtFlags::empty())
            .map_err(os("set the time of the directory of"))
    }
}

/// Overlayfs' form of "nothing here, whatever lies below".
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// For `map_err` on a system call.
pub(super) fn os(action: &'static str) -> impl FnOnce(Errno) -> BadEntry {
    move |errno| BadEntry::Os {
        action,
        source: errno.into(),
    }
}

fn path_of(fd: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}
