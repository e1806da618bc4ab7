//! Looking into a root file system of layers without mounting it, and without ever leaving it.
//!
//! Nothing is followed by the kernel: each name is opened by itself in the folders that overlayfs would merge, the
//! topmost first, and symbolic links are resolved here, inside the tree. Whiteouts and opaque folders count as overlayfs
//! has them (Linux `Documentation/filesystems/overlayfs.rst`).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// Symbolic links on one way, at most; as the kernel's own limit.
const LINKS: usize = 40;
/// Components on one way, at most: links may make it longer than it was written.
const COMPONENTS: usize = 4096;
/// What overlayfs writes on a folder that hides those below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// The folders that are merged at one place, the topmost first.
type Merged = Vec<Rc<OwnedFd>>;

/// A root file system.
#[derive(Debug)]
pub struct Tree {
    root: Merged,
}

enum Found {
    Nothing,
    Folder(Merged),
    Link(OsString),
    Other(OwnedFd, FileType),
}

impl Tree {
    /// Opens the layers, the topmost first. One that is gone holds nothing.
    pub fn open(layers: &[PathBuf]) -> Result<Self> {
        let mut root = Merged::new();
        for layer in layers {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(layer, flags, Mode::empty())
                .with_context(|| format!("cannot open {}", layer.display()))?;
            root.push(Rc::new(folder));
        }
        Ok(Self { root })
    }

    /// The content of a regular file; nothing when there is none.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<String>> {
        let Found::Other(handle, FileType::RegularFile) = self.find(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        // The handle is of the file itself, so nothing is followed here but the kernel's own link to it.
        File::open(magic(&handle))
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {path} of the image"))?;
        if bytes.len() as u64 > limit {
            bail!("{path} of the image is larger than {limit} bytes");
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a regular file is there.
    pub fn has_file(&self, path: &str) -> Result<bool> {
        Ok(matches!(
            self.find(path)?,
            Found::Other(_, FileType::RegularFile)
        ))
    }

    /// Whether there is nothing, or an empty folder.
    pub fn is_empty(&self, path: &str) -> Result<bool> {
        let folders = match self.find(path)? {
            Found::Nothing => return Ok(true),
            Found::Folder(folders) => folders,
            Found::Link(_) | Found::Other(..) => return Ok(false),
        };
        for folder in folders {
            let mut entries = std::fs::read_dir(magic(&folder))
                .with_context(|| format!("cannot read {path} of the image"))?;
            if entries.next().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn find(&self, path: &str) -> Result<Found> {
        let mut way = vec![self.root.clone()];
        let mut rest = VecDeque::new();
        push_front(&mut rest, Path::new(path).as_os_str());
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = rest.pop_front() {
            steps += 1;
            if steps > COMPONENTS {
                bail!("{path} of the image leads too far");
            }
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let here = way.last().unwrap_or(&self.root);
            match lookup(here, &name)
                .with_context(|| format!("cannot look up {path} in the image"))?
            {
                Found::Nothing => return Ok(Found::Nothing),
                Found::Folder(folders) => way.push(folders),
                Found::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        bail!("{path} of the image has too many symbolic links");
                    }
                    if target.as_bytes().starts_with(b"/") {
                        way.truncate(1);
                    }
                    push_front(&mut rest, &target);
                }
                // Something below what is no folder is nothing.
                Found::Other(..) if !rest.is_empty() => return Ok(Found::Nothing),
                other => return Ok(other),
            }
        }
        Ok(Found::Folder(way.pop().unwrap_or_default()))
    }
}

fn push_front(rest: &mut VecDeque<OsString>, path: &OsStr) {
    for part in path.as_bytes().rsplit(|&byte| byte == b'/') {
        if !part.is_empty() && part != b"." {
            rest.push_front(OsString::from_vec(part.to_vec()));
        }
    }
}

/// One name in merged folders.
fn lookup(folders: &Merged, name: &OsStr) -> io::Result<Found> {
    let mut merged = Merged::new();
    for folder in folders {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match openat(folder.as_fd(), name, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(Errno::NAMETOOLONG) => return Ok(Found::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let status = fstat(&handle)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind == FileType::Directory {
            let hides = is_opaque(&handle);
            merged.push(Rc::new(handle));
            if hides {
                break;
            }
            continue;
        }
        let is_whiteout = kind == FileType::CharacterDevice && status.st_rdev == 0;
        if is_whiteout || !merged.is_empty() {
            break;
        }
        return Ok(match kind {
            FileType::Symlink => Found::Link(OsString::from_vec(
                readlinkat(&handle, "", Vec::new())?.into_bytes(),
            )),
            kind => Found::Other(handle, kind),
        });
    }
    Ok(if merged.is_empty() {
        Found::Nothing
    } else {
        Found::Folder(merged)
    })
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(magic(folder), OPAQUE, &mut value).is_ok_and(|length| length == 1)
        && value == *b"y"
}

/// The kernel's name of an open file.
fn magic(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_topmost_counts_and_links_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let (top, low) = (folder.path().join("top"), folder.path().join("low"));
        write(&low, "etc/passwd", "low");
        write(&low, "etc/group", "group");
        write(&low, "usr/share/x", "shared");
        write(&top, "etc/passwd", "top");
        write(folder.path(), "secret", "host");
        symlink("../../../../secret", low.join("etc/up")).unwrap();
        symlink(folder.path().join("secret"), low.join("etc/absolute")).unwrap();
        symlink("/usr/share", top.join("etc/share")).unwrap();
        symlink("loop", top.join("etc/loop")).unwrap();
        let tree = Tree::open(&[top, low]).unwrap();
        let read = |path: &str| tree.read(path, 100).unwrap();
        assert_eq!(read("/etc/passwd").as_deref(), Some("top"));
        assert_eq!(read("etc//./group").as_deref(), Some("group"));
        assert_eq!(read("/etc/share/x").as_deref(), Some("shared"));
        assert_eq!(
            read("/etc/share/../../etc/group").as_deref(),
            Some("group"),
            "`..` is that of the link's target"
        );
        assert_eq!(read("/../../etc/group").as_deref(), Some("group"));
        assert_eq!(read("/etc/up"), None);
        assert_eq!(read("/etc/absolute"), None);
        assert_eq!(read("/etc"), None);
        assert_eq!(read("/etc/passwd/x"), None);
        assert!(tree.read("/etc/loop", 100).is_err());
        assert!(tree.read("/etc/passwd", 2).is_err(), "too large");
        assert!(tree.has_file("/etc/group").unwrap() && !tree.has_file("/etc").unwrap());
        assert!(tree.is_empty("/nothing").unwrap() && !tree.is_empty("/etc").unwrap());
    }

    #[test]
    fn what_is_hidden_is_not_found() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: whiteouts need root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (top, low) = (folder.path().join("top"), folder.path().join("low"));
        write(&low, "etc/passwd", "low");
        write(&low, "opt/x", "low");
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::create_dir_all(top.join("opt")).unwrap();
        let node = rustix::fs::mknodat(
            rustix::fs::CWD,
            top.join("etc/passwd"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        );
        let mark = rustix::fs::setxattr(
            top.join("opt"),
            OPAQUE,
            b"y",
            rustix::fs::XattrFlags::empty(),
        );
        if node.is_err() || mark.is_err() {
            eprintln!("SKIPPED: no whiteouts on this file system: {node:?} {mark:?}");
            return;
        }
        let tree = Tree::open(&[top, low]).unwrap();
        assert_eq!(tree.read("/etc/passwd", 100).unwrap(), None);
        assert_eq!(tree.read("/opt/x", 100).unwrap(), None);
    }
}
