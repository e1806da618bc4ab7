//! Control groups for a sandbox's VMM and file server alone, where nobody names any.
//!
//! They are where runc has those of a container without a path. With version 1 they are in the caller's own groups, so that
//! what limits the caller limits its machines too. With version 2 they are beside the caller's group, below the same parent:
//! a group that holds processes hands no controllers down.
//!
//! Whoever has made a group holds a lock on it as long as it is wanted. The kernel takes the lock away with the process, so a
//! group that nobody holds is a leftover: whoever makes the next one there removes it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{CgroupError, Hierarchies, make, remove, system};

/// What the names of these groups end with, so that nobody else's group is taken for one.
const SUFFIX: &str = ".cofferdam";

/// The kernel takes names of 255 bytes.
const NAME: usize = 128;

/// How long others may take to make theirs.
const OTHERS: Duration = Duration::from_secs(30);

/// Folders for new groups of a sandbox of this name, in each hierarchy of the host; none without root, who alone could make
/// them. [`Own::make`] makes them.
///
/// # Errors
/// When the host shows no control groups, or not which the caller is in.
pub fn own_folders(name: &str) -> Result<Vec<PathBuf>, CgroupError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    let hierarchies = Hierarchies::read()?.mounted()?;
    // Names are one state directory's own, hierarchies the whole host's.
    let mut random = [0; 4];
    let filled = getrandom(&mut random, GetRandomFlags::empty()).unwrap_or_default();
    if filled != random.len() {
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(system("find a name below", Path::new("/sys/fs/cgroup"))(
            source,
        ));
    }
    let group = called(name, random);
    let homes = hierarchies.homes()?;
    Ok(homes.into_iter().map(|home| home.join(&group)).collect())
}

/// The name of a group.
fn called(name: &str, random: [u8; 4]) -> String {
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.+".contains(*letter);
    let plain = name
        .chars()
        .map(|letter| Some(letter).filter(is_plain).unwrap_or('_'))
        .take(NAME);
    let mut group: String = plain.collect();
    group.push('-');
    for byte in random {
        // Writing to a string does not fail.
        let _written = write!(group, "{byte:02x}");
    }
    group + SUFFIX
}

/// Groups of a sandbox's own. Dropping it removes them: what was in them has ended by then.
#[derive(Debug)]
pub struct Own {
    folders: Vec<PathBuf>,
    /// Says that somebody wants them.
    lock: Option<File>,
}

impl Own {
    /// Makes them, and removes what others have left beside them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(folders: Vec<PathBuf>) -> Result<Self, CgroupError> {
        let mut own = Self {
            folders,
            lock: None,
        };
        let Some(first) = own.folders.first().cloned() else {
            return Ok(own);
        };
        // Nobody else makes or sweeps meanwhile: what is made and not held yet would be taken for a leftover.
        let home = first.parent().unwrap_or(&first);
        let _alone = hold_soon(home).map_err(system("lock", home))?;
        sweep(&own.folders);
        make(&own.folders)?;
        own.lock = Some(hold(&first).map_err(system("lock", &first))?);
        Ok(own)
    }

    /// What a child writes itself into; see `backend_process::Program::groups`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn entrances(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let open = |folder: &PathBuf| {
            let file = folder.join("cgroup.procs");
            let opened = File::options().write(true).open(&file);
            opened.map(OwnedFd::from).map_err(system("open", &file))
        };
        self.folders.iter().map(open).collect()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folders) {
            tracing::warn!(
                error = crate::chain(&error),
                "control groups are not removed"
            );
        }
    }
}

/// A lock on a group that nobody else holds.
fn hold(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// The same, as soon as nobody else does.
fn hold_soon(folder: &Path) -> io::Result<File> {
    let end = Instant::now() + OTHERS;
    loop {
        match hold(folder) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                sleep(Duration::from_millis(1));
            }
            held => return held,
        }
    }
}

/// Removes groups beside these that belonged to processes which were killed. What cannot be removed is in use.
fn sweep(folders: &[PathBuf]) {
    let homes: Vec<_> = folders
        .iter()
        .filter_map(|folder| folder.parent())
        .collect();
    let Some(&first) = homes.first() else {
        return;
    };
    let Ok(entries) = fs::read_dir(first) else {
        return;
    };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        if !name.to_str().is_some_and(|name| name.ends_with(SUFFIX)) {
            continue;
        }
        let Ok(_lock) = hold(&first.join(&name)) else {
            continue;
        };
        // The one that is held last, so that nobody is left who would be found without it.
        for home in homes.iter().rev() {
            let folder = home.join(&name);
            match fs::remove_dir(&folder) {
                Ok(()) => tracing::info!(folder = %folder.display(), "removed a leftover"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!(%error, folder = %folder.display(), "a leftover stays");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_end_alike() {
        assert_eq!(called("web.1", [0, 1, 2, 255]), "web.1-000102ff.cofferdam");
        assert_eq!(called("../a b\n", [0; 4]), ".._a_b_-00000000.cofferdam");
        assert!(called(&"x".repeat(4096), [0; 4]).len() < 255);
    }

    #[test]
    fn a_group_that_is_held_is_no_leftover() {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let at = |name: &str| {
            homes
                .iter()
                .map(|home| home.path().join(name))
                .collect::<Vec<_>>()
        };
        let all = |name: &str| at(name).into_iter().all(|folder| folder.exists());
        let none = |name: &str| !at(name).into_iter().any(|folder| folder.exists());
        let (held, left, others) = ("a-1.cofferdam", "b-1.cofferdam", "cofferdam");
        for name in [held, left, others] {
            at(name)
                .iter()
                .for_each(|folder| fs::create_dir(folder).unwrap());
        }
        let lock = hold(&at(held)[0]).unwrap();
        sweep(&at("c-1.cofferdam"));
        assert!(all(held) && none(left) && all(others));
        drop(lock);
        sweep(&at("c-1.cofferdam"));
        assert!(none(held) && all(others));
    }

    #[test]
    fn those_that_are_made_at_once_leave_each_other() {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let folders = |name: &str| homes.iter().map(|home| home.path().join(name)).collect();
        std::thread::scope(|scope| {
            for maker in 0..4 {
                let folders = &folders;
                scope.spawn(move || {
                    for round in 0..50 {
                        let own =
                            Own::make(folders(&format!("{maker}-{round}.cofferdam"))).unwrap();
                        assert!(own.folders.iter().all(|folder| folder.exists()));
                    }
                });
            }
        });
        for home in &homes {
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        }
    }
}
