//! The tree that the guest sees: a read-only tmpfs with the entries mounted in it, as the root of a mount namespace
//! that nothing else is in. It goes away with the process.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use backend_process::namespace::{Restriction, own_namespaces, restrict};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, UnmountFlags, mount, open_tree, unmount};
use rustix::process::{chdir, pivot_root, umask};
use sandbox_share::{Entry, EntryError};

use crate::entry::{
    at_fault, attach, check_paths, failed, inert_flags, is_folder, open_sources, prepare,
};
use crate::{reason, step};

/// Where the tmpfs is mounted until it becomes the root: a directory that is always there. The kernel's own files are
/// opened before they are covered.
pub const STAGE: &str = "/proc";

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
    own_namespaces(None).map_err(step("cannot make namespaces"))?;
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

/// Mounts an entry in the tmpfs, which is the working directory.
fn place(entry: &Entry, sources: Vec<OwnedFd>) -> Result<(), EntryError> {
    let tree = prepare(entry, sources)?;
    let target = entry.path.as_path();
    let made = |error| at_fault(entry, "cannot make a place for", target, &reason(error));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(made)?;
    }
    if is_folder(entry, &tree)? {
        fs::create_dir(target).map_err(made)?;
    } else {
        File::create(target).map_err(made)?;
    }
    attach(&tree, target).map_err(failed(entry, "cannot mount", target))
}
