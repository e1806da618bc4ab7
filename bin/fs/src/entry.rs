//! Entries as mounts that are not visible anywhere yet.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use backend_process::namespace::{Restriction, restrict};
use rustix::fs::{CWD, FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};
use sandbox_share::{Entry, EntryError, EntryKind};

use crate::reason;

/// Where overlays are put together, with lower directories whose names are short enough for the option string.
const LOWER: &str = ".lower";

/// The kernel reads one page of mount options.
const OPTION_LIMIT: usize = 4095;

/// What every file system of ours is mounted with: files are nothing but data.
pub fn inert_flags() -> MountFlags {
    MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC
}

/// Refuses entries that lie outside the tree or in each other.
pub fn check_paths(entries: &[Entry]) -> Result<(), EntryError> {
    for (index, entry) in entries.iter().enumerate() {
        let plain = entry
            .path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let hidden = entry.path.starts_with(LOWER);
        if entry.path.as_os_str().is_empty() || !plain || hidden {
            return Err(at_fault(
                entry,
                "cannot use the name",
                &entry.path,
                "not a relative path of plain names",
            ));
        }
        for other in &entries[..index] {
            if entry.path.starts_with(&other.path) || other.path.starts_with(&entry.path) {
                return Err(at_fault(
                    entry,
                    "lies in or around",
                    &other.path,
                    "entries must be apart",
                ));
            }
        }
    }
    Ok(())
}

/// Copies of the mounts that an entry shows, not visible anywhere yet.
pub fn open_sources(entry: &Entry) -> Result<Vec<OwnedFd>, EntryError> {
    let open = |path: &Path, recursive: bool| {
        if !path.is_absolute() {
            return Err(at_fault(
                entry,
                "cannot share",
                path,
                "not an absolute path",
            ));
        }
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        open_tree(CWD, path, flags).map_err(failed(entry, "cannot open", path))
    };
    match &entry.kind {
        EntryKind::Bind {
            source, recursive, ..
        } => Ok(vec![open(source, *recursive)?]),
        EntryKind::Overlay { lower, .. } => lower.iter().map(|path| open(path, false)).collect(),
    }
}

/// One mount that can be put into the tree: the first source of a bind entry, or an overlay of all of them. Overlays
/// are made in the working directory, a tmpfs, of which nothing is left.
pub fn prepare(entry: &Entry, sources: Vec<OwnedFd>) -> Result<OwnedFd, EntryError> {
    match &entry.kind {
        EntryKind::Bind {
            source,
            readonly,
            recursive,
        } => {
            let restriction = Restriction {
                read_only: *readonly,
                inert: true,
                recursive: *recursive,
            };
            let tree = sources
                .into_iter()
                .next()
                .ok_or_else(|| at_fault(entry, "cannot open", source, "not opened"))?;
            restrict(&tree, c"", restriction).map_err(failed(
                entry,
                "cannot restrict the mount of",
                source,
            ))?;
            Ok(tree)
        }
        EntryKind::Overlay { lower, upper, work } => overlay(entry, lower, upper, work, &sources),
    }
}

fn overlay(
    entry: &Entry,
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    sources: &[OwnedFd],
) -> Result<OwnedFd, EntryError> {
    let stage = Path::new(LOWER).join("merged");
    fs::create_dir_all(&stage)
        .map_err(|error| at_fault(entry, "cannot make a place for", upper, &reason(error)))?;
    let mut short_names = Vec::new();
    for (index, (tree, path)) in sources.iter().zip(lower).enumerate() {
        let name = PathBuf::from(format!("{LOWER}/{index}"));
        fs::create_dir_all(&name)
            .map_err(|error| at_fault(entry, "cannot make a place for", path, &reason(error)))?;
        attach(tree, &name).map_err(failed(entry, "cannot mount the layer", path))?;
        short_names.push(name);
    }
    for path in [upper, work] {
        let kind = fs::metadata(path)
            .map_err(|error| at_fault(entry, "cannot open", path, &reason(error)))?;
        if !path.is_absolute() || !kind.is_dir() {
            return Err(at_fault(
                entry,
                "cannot use",
                path,
                "not the absolute path of a directory",
            ));
        }
    }
    let lower_option = short_names
        .iter()
        .map(|name| name.as_os_str().as_bytes())
        .collect::<Vec<_>>()
        .join(&b':');
    let mut options = b"lowerdir=".to_vec();
    options.extend(lower_option);
    options.extend(b",upperdir=");
    options.extend(escaped(upper));
    options.extend(b",workdir=");
    options.extend(escaped(work));
    let options = CString::new(options)
        .ok()
        .filter(|options| options.as_bytes().len() <= OPTION_LIMIT)
        .ok_or_else(|| {
            at_fault(
                entry,
                "cannot mount the overlay on",
                upper,
                "too many or too long paths",
            )
        })?;
    let fail = || failed(entry, "cannot mount the overlay on", upper);
    mount(
        "overlay",
        &stage,
        "overlay",
        inert_flags(),
        Some(options.as_c_str()),
    )
    .map_err(fail())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, &stage, flags).map_err(fail())?;
    // The overlay keeps the layers, and the copy of its mount the overlay; their names go.
    for name in short_names.iter().chain([&stage]) {
        unmount(name, UnmountFlags::DETACH).map_err(failed(entry, "cannot let go of", name))?;
    }
    fs::remove_dir_all(LOWER)
        .map_err(|error| at_fault(entry, "cannot remove", Path::new(LOWER), &reason(error)))?;
    Ok(tree)
}

/// A path as a value in overlayfs's options.
fn escaped(path: &Path) -> Vec<u8> {
    let mut value = Vec::new();
    for byte in path.as_os_str().to_owned().into_vec() {
        if matches!(byte, b'\\' | b',' | b':') {
            value.push(b'\\');
        }
        value.push(byte);
    }
    value
}

/// Whether a mount shows a directory.
pub fn is_folder(entry: &Entry, tree: &OwnedFd) -> Result<bool, EntryError> {
    let stat = fstat(tree).map_err(failed(entry, "cannot stat", &entry.path))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Puts a mount on a path in the working directory.
pub fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// An error about an entry, for `map_err` on a system call.
pub fn failed(entry: &Entry, what: &'static str, path: &Path) -> impl FnOnce(Errno) -> EntryError {
    move |errno| at_fault(entry, what, path, &reason(errno.into()))
}

/// An error about an entry.
pub fn at_fault(entry: &Entry, what: &str, path: &Path, reason: &str) -> EntryError {
    EntryError::Entry {
        entry: entry.path.clone(),
        what: what.to_owned(),
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
