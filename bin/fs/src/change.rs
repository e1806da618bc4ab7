//! Changing what a running server shows.
//!
//! The server can't: it has no right to mount left. This process is one of the driver's, with root's rights and a short
//! life. It opens sources where the host's names are, then enters the server's mount namespace and works there in the
//! server's own tmpfs only: no name that a guest could have made is ever walked.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use backend_process::namespace::{allow_writes, own_mounts};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, umask};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandbox_share::{Answer, Entry, EntryError, EntryKind};

use crate::entry::{check_paths, failed, inert_flags, is_folder, open_sources, prepare};
use crate::held::Held;
use crate::layout::STAGE;
use crate::{reason, step};

/// Shows these entries too, all or none.
pub fn add(entries: &[Entry], server: OwnedFd) -> Result<Answer, EntryError> {
    check_paths(entries)?;
    umask(Mode::WGRP | Mode::WOTH);
    let sources = entries
        .iter()
        .map(open_sources)
        .collect::<Result<Vec<_>, _>>()?;
    let server = Server::find(&server)?;
    if entries
        .iter()
        .any(|entry| matches!(entry.kind, EntryKind::Overlay { .. }))
    {
        own_mounts().map_err(step("cannot make a mount namespace"))?;
        mount(
            "tmpfs",
            STAGE,
            "tmpfs",
            inert_flags(),
            Some(c"mode=0755,size=4m"),
        )
        .map_err(step("cannot mount a tmpfs"))?;
        chdir(STAGE).map_err(step("cannot enter the tmpfs"))?;
    }
    let mounts = entries
        .iter()
        .zip(sources)
        .map(|(entry, sources)| prepare(entry, sources))
        .collect::<Result<Vec<_>, _>>()?;

    let tree = server.enter()?;
    let mut placed = Vec::new();
    for (entry, mount) in entries.iter().zip(&mounts) {
        if let Err(error) = tree.place(entry, mount, &mut placed) {
            // An error in here could only say the same again.
            let _undone = placed.iter().rev().try_for_each(|path| tree.remove(path));
            tree.remove_parents(&placed);
            return Err(error);
        }
    }
    Ok(Answer::Ready)
}

/// Shows the entries with these paths no longer.
pub fn remove(paths: &[PathBuf], server: OwnedFd) -> Result<Answer, EntryError> {
    for path in paths {
        let plain = |part| matches!(part, Component::Normal(_));
        if path.as_os_str().is_empty() || !path.components().all(plain) {
            return Err(not_removed(path)("not a relative path of plain names"));
        }
    }
    let found = Held::look_at(&server).and_then(|held| Ok((held, Server::find(&server)?)));
    let (held, found) = match found {
        // Its tree is gone with it, and this entry too: a pod's containers may go all at once.
        Err(_) if has_ended(&server) => return Ok(Answer::Ready),
        found => found?,
    };
    let tree = found.enter()?;
    let held = held.mounts_below(paths)?;
    for path in paths {
        tree.remove(path)?;
    }
    tree.remove_parents(paths);
    // Each keeps the tree's folders.
    drop(tree);
    Ok(if held.let_go()? {
        Answer::Ready
    } else {
        Answer::Held
    })
}

/// Whether the process of a folder in `/proc` is no more, or not reaped yet.
fn has_ended(folder: &OwnedFd) -> bool {
    let namespace = openat(
        folder,
        "ns/mnt",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    matches!(namespace, Err(Errno::NOENT | Errno::SRCH))
}

/// The server as the host sees it.
struct Server {
    namespace: OwnedFd,
    root: OwnedFd,
}

impl Server {
    /// `folder` is the server's in `/proc`.
    fn find(folder: &OwnedFd) -> Result<Self, EntryError> {
        let open = |name: &str, flags| {
            openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(step("cannot find the file server"))
        };
        Ok(Self {
            namespace: open("ns/mnt", OFlags::RDONLY)?,
            root: open("root", OFlags::PATH | OFlags::DIRECTORY)?,
        })
    }

    /// Enters the server's mount namespace; the host's names can't be reached afterwards.
    fn enter(self) -> Result<Tree, EntryError> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(step("cannot enter the file server's mount namespace"))?;
        // The server's own mount of the tmpfs is read-only, and stays so; this copy of it shows nothing that is mounted
        // in it.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let writable = open_tree(&self.root, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
            .and_then(|tree| allow_writes(&tree).map(|()| tree))
            .map_err(step("cannot open the share's tmpfs"))?;
        Ok(Tree {
            root: self.root,
            writable,
        })
    }
}

/// The server's tmpfs, from inside its mount namespace.
struct Tree {
    /// As the server has it.
    root: OwnedFd,
    /// The same folders without what is mounted on them.
    writable: OwnedFd,
}

impl Tree {
    /// Mounts an entry and notes it in `placed`.
    fn place(
        &self,
        entry: &Entry,
        mount: &OwnedFd,
        placed: &mut Vec<PathBuf>,
    ) -> Result<(), EntryError> {
        let path = entry.path.as_path();
        let made = || failed(entry, "cannot make a place for", path);
        let mut parents: Vec<_> = path.ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            match mkdirat(&self.writable, parent, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(made()(errno)),
            }
        }
        if is_folder(entry, mount)? {
            mkdirat(&self.writable, path, Mode::from_raw_mode(0o755)).map_err(made())?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&self.writable, path, flags, Mode::from_raw_mode(0o644)).map_err(made())?;
        }
        placed.push(path.to_owned());
        let target = self.own(path).map_err(made())?;
        move_mount(
            mount,
            "",
            &target,
            "",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
        .map_err(failed(entry, "cannot mount", path))
    }

    /// A file of the tmpfs itself, never one that is mounted in it.
    fn own(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        openat2(
            &self.root,
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
    }

    /// Unmounts an entry and removes its place, if it is there.
    fn remove(&self, path: &Path) -> Result<(), EntryError> {
        let fail = |errno: Errno| not_removed(path)(&reason(errno.into()));
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let parent = match self.own(parent.unwrap_or(Path::new("."))) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(fail)?,
        };
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        fchdir(&parent).map_err(fail)?;
        match unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Not there, or nothing was mounted on it yet.
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => return Err(fail(errno)),
        }
        match unlinkat(&self.writable, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR) => unlinkat(&self.writable, path, AtFlags::empty()).map_err(fail),
            Err(errno) => Err(fail(errno)),
        }
    }

    /// Removes the folders that these entries were in, unless others are in them too.
    fn remove_parents(&self, paths: &[PathBuf]) {
        for path in paths {
            for parent in path.ancestors().skip(1) {
                if parent == Path::new("")
                    || unlinkat(&self.writable, parent, AtFlags::REMOVEDIR).is_err()
                {
                    break;
                }
            }
        }
    }
}

fn not_removed(path: &Path) -> impl Fn(&str) -> EntryError {
    |why| EntryError::Entry {
        entry: path.to_owned(),
        what: "cannot remove".to_owned(),
        path: path.to_owned(),
        reason: why.to_owned(),
    }
}
