//! `tmpcopyup`: a tmpfs that begins with what the root file system has in its place.
//!
//! The option is runc's own; Podman's `--read-only` uses it. libcontainer does not know it, so the
//! files are copied from outside when the container has been made and its process does not run yet.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat, fchmod, fchown,
    fstat, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat,
};

use super::ContainerError;

/// The option's name.
const OPTION: &str = "tmpcopyup";
/// Folders in folders, at most: each takes stack.
const DEPTH: usize = 64;

/// A tmpfs to be filled.
#[derive(Debug)]
pub(super) struct CopyUp {
    destination: PathBuf,
    /// Whether the mount options say what mode the folder itself has.
    has_mode: bool,
}

/// Takes the option from a spec's mounts; what is to be filled.
pub(super) fn take(spec: &mut Spec) -> Vec<CopyUp> {
    let mut found = Vec::new();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &mut mounts {
        if mount.typ().as_deref() != Some("tmpfs") {
            continue;
        }
        let mut options = mount.options().clone().unwrap_or_default();
        let before = options.len();
        options.retain(|option| option != OPTION);
        if options.len() < before {
            found.push(CopyUp {
                destination: mount.destination().clone(),
                has_mode: options.iter().any(|option| option.starts_with("mode=")),
            });
            mount.set_options(Some(options));
        }
    }
    if !found.is_empty() {
        spec.set_mounts(Some(mounts));
    }
    found
}

/// Fills them in the container whose first process is `pid`, from the root file system at `root`.
pub(super) fn fill(root: &Path, pid: i32, wanted: &[CopyUp]) -> Result<(), ContainerError> {
    for one in wanted {
        let inside = format!("/proc/{pid}/root");
        fill_one(root, Path::new(&inside), one)
            .map_err(ContainerError::file("copy up", &one.destination))?;
    }
    Ok(())
}

fn fill_one(root: &Path, inside: &Path, one: &CopyUp) -> io::Result<()> {
    let folder = |root: &Path| -> io::Result<OwnedFd> {
        let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, path, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Links in the container's files lead nowhere else.
        Ok(openat2(
            root,
            &one.destination,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )?)
    };
    let from = match folder(root) {
        Ok(from) => from,
        // It was made for the mount.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let to = folder(inside)?;
    let status = fstat(&from)?;
    copy_folder(&from, &to, DEPTH)?;
    if !one.has_mode {
        let (user, group) = owner(&status);
        fchown(&to, user, group)?;
        fchmod(&to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    }
    Ok(())
}

fn copy_folder(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("too many folders in folders"));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn copy(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
    let status = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
    let (user, group) = owner(&status);
    let kind = FileType::from_raw_mode(status.st_mode);
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let flags = read | OFlags::DIRECTORY;
            let below = openat(from, name, flags, Mode::empty())?;
            let made = openat(to, name, flags, Mode::empty())?;
            copy_folder(&below, &made, depth - 1)?;
            fchown(&made, user, group)?;
            fchmod(&made, mode)?;
        }
        FileType::RegularFile => {
            let mut source = File::from(openat(from, name, read, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut made = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut source, &mut made)?;
            // The owner first: a change of it takes set-user-id away.
            fchown(made.as_fd(), user, group)?;
            fchmod(made.as_fd(), mode)?;
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(target, to, name)?;
            chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        _ => {
            mknodat(to, name, kind, mode, status.st_rdev)?;
            chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

fn owner(status: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use oci_spec::runtime::{MountBuilder, SpecBuilder};

    use super::*;

    #[test]
    fn the_option_is_taken_from_tmpfs_alone() {
        let mount = |typ: &str, destination: &str| {
            MountBuilder::default()
                .typ(typ)
                .destination(destination)
                .options([OPTION.to_owned(), "mode=700".to_owned()])
                .build()
                .expect("a mount")
        };
        let mut spec = SpecBuilder::default()
            .mounts([mount("tmpfs", "/run"), mount("bind", "/data")])
            .build()
            .expect("a spec");
        let taken = take(&mut spec);
        assert_eq!(taken.len(), 1);
        assert!(taken[0].has_mode && taken[0].destination == Path::new("/run"));
        let left: Vec<_> = spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mount.options().iter().flatten().count())
            .collect();
        assert_eq!(left, [1, 2]);
        assert!(take(&mut spec).is_empty());
    }

    #[test]
    fn files_folders_and_links_come_along() {
        let (root, inside) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let source = root.path().join("run");
        fs::create_dir_all(source.join("lock/deep")).expect("a folder");
        fs::create_dir(inside.path().join("run")).expect("a folder");
        fs::write(source.join("lock/deep/file"), "words").expect("a file");
        fs::set_permissions(source.join("lock"), fs::Permissions::from_mode(0o1777))
            .expect("a mode");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o750)).expect("a mode");
        symlink("/etc/shadow", source.join("link")).expect("a link");
        let one = CopyUp {
            destination: "/run".into(),
            has_mode: false,
        };
        fill_one(root.path(), inside.path(), &one).expect("a copy");
        let copy = inside.path().join("run");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(
            fs::read_to_string(copy.join("lock/deep/file")).expect("a file"),
            "words"
        );
        assert_eq!((mode(&copy), mode(&copy.join("lock"))), (0o750, 0o1777));
        assert_eq!(
            fs::read_link(copy.join("link")).expect("a link"),
            Path::new("/etc/shadow")
        );
        let missing = CopyUp {
            destination: "/none".into(),
            has_mode: false,
        };
        fill_one(root.path(), inside.path(), &missing).expect("nothing to do");
    }
}
