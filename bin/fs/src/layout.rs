//! The tree that the guest sees: a read-only tmpfs with the entries mounted in it, as the root of a mount namespace
//! that nothing else is in. It goes away with the process.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use backend_process::namespace::{Restriction, own_namespaces, restrict};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root, umask};
use sandbox_share::{Entry, EntryError, EntryKind};

use crate::{reason, step};

/// Where the tmpfs is mounted until it becomes the root: a directory that is always there. The kernel's own files are
/// opened before they are covered.
const STAGE: &str = "/proc";

/// Where the lower directories of an overlay get names short enough for its option string.
const LOWER: &str = ".lower";

/// The kernel reads one page of mount options.
const OPTION_LIMIT: usize = 4095;

/// What was made, and what serving needs of the outside.
pub struct Tree {
    /// This process's `/proc/self/fd`, as a mount of its own that can't be left upwards.
    pub own_fds: File,
    /// This process's mount table, as the new root sees it.
    pub mount_table: File,
}

/// Makes the tree and enters it. The host's files can't be reached afterwards.
pub fn build(entries: &[Entry]) -> Result<Tree, EntryError> {
    check_paths(entries)?;
    own_namespaces().map_err(step("cannot make namespaces"))?;
    // What is made here is for the guest's users to walk through.
    umask(Mode::WGRP | Mode::WOTH);

    let own = openat(
        CWD,
        "/proc/self",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(step("cannot open /proc/self"))?;
    let own_fds = open_tree(
        &own,
        "fd",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .map_err(step("cannot open /proc/self/fd"))?;
    // All sources are opened before anything is covered.
    let sources = entries
        .iter()
        .map(open_sources)
        .collect::<Result<Vec<_>, _>>()?;

    mount(
        "tmpfs",
        STAGE,
        "tmpfs",
        inert_flags(),
        Some(c"mode=0755,size=4m"),
    )
    .map_err(step("cannot mount a tmpfs"))?;
    chdir(STAGE).map_err(step("cannot enter the tmpfs"))?;
    for (entry, sources) in entries.iter().zip(sources) {
        place(entry, sources)?;
    }
    restrict(
        CWD,
        c".",
        Restriction {
            read_only: true,
            inert: true,
            recursive: false,
        },
    )
    .map_err(step("cannot make the root read-only"))?;

    // The old root lands on top of the new one and is taken away from there.
    pivot_root(".", ".").map_err(step("cannot change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("cannot let go of the host's root"))?;
    chdir("/").map_err(step("cannot enter the new root"))?;

    // Only now: the table is relative to the root of the one who opens it.
    let mount_table = openat(
        &own,
        "mountinfo",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(step("cannot open /proc/self/mountinfo"))?;
    Ok(Tree {
        own_fds: own_fds.into(),
        mount_table: mount_table.into(),
    })
}

fn inert_flags() -> MountFlags {
    MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC
}

/// Refuses entries that lie outside the tree or in each other.
fn check_paths(entries: &[Entry]) -> Result<(), EntryError> {
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
fn open_sources(entry: &Entry) -> Result<Vec<OwnedFd>, EntryError> {
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

/// Mounts an entry in the tmpfs, which is the working directory.
fn place(entry: &Entry, sources: Vec<OwnedFd>) -> Result<(), EntryError> {
    let target = entry.path.as_path();
    let made = |what| move |error: std::io::Error| at_fault(entry, what, target, &reason(error));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(made("cannot make a place for"))?;
    }
    match &entry.kind {
        EntryKind::Bind {
            source,
            readonly,
            recursive,
        } => {
            let fail = |what| failed(entry, what, source);
            let restriction = Restriction {
                read_only: *readonly,
                inert: true,
                recursive: *recursive,
            };
            for tree in sources {
                let stat = fstat(&tree).map_err(fail("cannot stat"))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    fs::create_dir(target).map_err(made("cannot make a place for"))?;
                } else {
                    File::create(target).map_err(made("cannot make a place for"))?;
                }
                restrict(&tree, c"", restriction).map_err(fail("cannot restrict the mount of"))?;
                attach(&tree, target).map_err(fail("cannot mount"))?;
            }
        }
        EntryKind::Overlay { lower, upper, work } => {
            fs::create_dir(target).map_err(made("cannot make a place for"))?;
            place_overlay(entry, lower, upper, work, &sources)?;
        }
    }
    Ok(())
}

fn place_overlay(
    entry: &Entry,
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    sources: &[OwnedFd],
) -> Result<(), EntryError> {
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
    mount(
        "overlay",
        &entry.path,
        "overlay",
        inert_flags(),
        Some(options.as_c_str()),
    )
    .map_err(failed(entry, "cannot mount the overlay on", upper))?;
    // The overlay keeps the layers; their names go.
    for name in &short_names {
        unmount(name, UnmountFlags::DETACH).map_err(failed(entry, "cannot let go of", name))?;
    }
    fs::remove_dir_all(LOWER)
        .map_err(|error| at_fault(entry, "cannot remove", Path::new(LOWER), &reason(error)))
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

fn attach(tree: &OwnedFd, target: &Path) -> rustix::io::Result<()> {
    move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn failed(entry: &Entry, what: &'static str, path: &Path) -> impl FnOnce(Errno) -> EntryError {
    move |errno| at_fault(entry, what, path, &reason(errno.into()))
}

fn at_fault(entry: &Entry, what: &str, path: &Path, reason: &str) -> EntryError {
    EntryError::Entry {
        entry: entry.path.clone(),
        what: what.to_owned(),
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
