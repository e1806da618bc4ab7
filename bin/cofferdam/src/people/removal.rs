//! Removing a folder that a guest has filled.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a folder and all below it; nothing happens when it is not there.
///
/// Folders may be nested deeper than there are descriptors or stack, so this does not recurse: a folder that is not empty
/// is first moved up to the top. Symbolic links are removed, not followed.
pub fn remove_tree(path: &Path) -> Result<()> {
    remove(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn remove(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut next = 0_u64;
    loop {
        let mut folders = false;
        for name in names(&top)? {
            if is_removed(&top, &name)? {
                continue;
            }
            let folder = match openat(&top, &name, flags, Mode::empty()) {
                Ok(folder) => folder,
                // Somebody else removes it, too.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            folders = true;
            for below in names(&folder)? {
                if !is_removed(&folder, &below)? {
                    next += 1;
                    lift(&folder, &below, &top, next)?;
                }
            }
        }
        if !folders {
            break;
        }
    }
    match rustix::fs::rmdir(path) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Moves a folder up under a free name.
fn lift(from: &OwnedFd, name: &OsString, top: &OwnedFd, number: u64) -> Result<(), Errno> {
    let lifted = format!("~{}.{number}", std::process::id());
    // The mode may forbid what the content needs; a moved folder's `..` is written to.
    match renameat(from, name, top, &lifted) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes what is no folder, or an empty one.
fn is_removed(folder: &OwnedFd, name: &OsString) -> Result<bool, Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn names(folder: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    // A descriptor of its own: the position in a folder belongs to the open file.
    let own = openat(
        folder.as_fd(),
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut names = Vec::new();
    for entry in Dir::new(File::from(own))? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn deep_and_wide_folders_go_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        for number in 0..50 {
            fs::create_dir_all(tree.join(format!("a{number}/b/c"))).unwrap();
            fs::write(tree.join(format!("a{number}/b/file")), "x").unwrap();
        }
        // Deeper than a path may be long, and than there are descriptors.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut deep = rustix::fs::open(&tree, flags, Mode::empty()).unwrap();
        for _ in 0..2500 {
            rustix::fs::mkdirat(&deep, "deep", Mode::RWXU).unwrap();
            deep = openat(&deep, "deep", flags, Mode::empty()).unwrap();
        }
        drop(deep);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        remove_tree(&tree).unwrap();
    }
}
