//! What the server still has open of mounts that were taken from it.
//!
//! A mount lives as long as a descriptor is open below it, and with it its file system. The server opens and closes
//! descriptors as the guest tells it to look files up and to forget them, so that the guest decides.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use sandbox_share::EntryError;

use crate::step;

/// How long a guest may take to let go of what was removed: one that has told its kernel to is done in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The server's descriptors.
pub struct Held {
    /// The host's `/proc`.
    proc: OwnedFd,
    /// The server's `fdinfo` in it.
    descriptors: OwnedFd,
}

/// Mounts of the server's, by their ids.
pub struct Mounts {
    ids: HashSet<u64>,
    descriptors: OwnedFd,
}

impl Held {
    /// `server` is the server's folder in `/proc`. Call it where the host's names are.
    pub fn look_at(server: &OwnedFd) -> Result<Self, EntryError> {
        let open = |at: rustix::fd::BorrowedFd<'_>, name: &str| {
            openat(
                at,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(step("cannot look at the file server"))
        };
        Ok(Self {
            proc: open(CWD, "/proc")?,
            descriptors: open(rustix::fd::AsFd::as_fd(server), "fdinfo")?,
        })
    }

    /// The mounts of these entries and those below them. Call it in the server's mount namespace.
    pub fn mounts_below(self, paths: &[PathBuf]) -> Result<Mounts, EntryError> {
        let table = openat(
            &self.proc,
            "self/mountinfo",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(step("cannot open the mount table"))?;
        let mut text = Vec::new();
        std::fs::File::from(table)
            .read_to_end(&mut text)
            .map_err(|error| EntryError::Confine {
                step: "cannot read the mount table".to_owned(),
                reason: crate::reason(error),
            })?;
        let ids = text
            .split(|&byte| byte == b'\n')
            .filter_map(mount)
            .filter(|(_, point)| {
                paths.iter().any(|path| {
                    point
                        .strip_prefix(b"/")
                        .and_then(|point| point.strip_prefix(path.as_os_str().as_bytes()))
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
                })
            })
            .map(|(id, _)| id)
            .collect();
        Ok(Mounts {
            ids,
            descriptors: self.descriptors,
        })
    }
}

impl Mounts {
    /// Waits a while until the server has nothing open in these mounts; whether it has not.
    pub fn let_go(&self) -> Result<bool, EntryError> {
        let end = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        while self
            .are_held()
            .map_err(step("cannot look at the file server"))?
        {
            if Instant::now() >= end {
                return Ok(false);
            }
            sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
        Ok(true)
    }

    fn are_held(&self) -> rustix::io::Result<bool> {
        if self.ids.is_empty() {
            return Ok(false);
        }
        let mut list = match Dir::read_from(&self.descriptors) {
            // The server has ended, and all is gone.
            Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
            list => list?,
        };
        while let Some(entry) = list.read() {
            let entry = match entry {
                Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
                entry => entry?,
            };
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            // One that is closed meanwhile holds nothing.
            let Ok(file) = openat(&self.descriptors, entry.file_name(), flags, Mode::empty())
            else {
                continue;
            };
            let mut text = String::new();
            if std::fs::File::from(file).read_to_string(&mut text).is_err() {
                continue;
            }
            let id = text
                .lines()
                .find_map(|line| line.strip_prefix("mnt_id:"))
                .and_then(|id| id.trim().parse().ok());
            if id.is_some_and(|id: u64| self.ids.contains(&id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Id and mount point of a line of the mount table, see proc(5).
fn mount(line: &[u8]) -> Option<(u64, Vec<u8>)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = fields.nth(3)?;
    Some((id, unescaped(point)))
}

/// Spaces, tabs, line feeds and backslashes are three octal digits in the table.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| byte == b'\\');
        let escaped = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                plain.push(byte);
                rest = &behind[3..];
            }
            None => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table_of_mounts() {
        let line = b"36 35 98:0 /mnt1 /c1/a\\040b\\134 rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount(line), Some((36, b"/c1/a b\\".to_vec())));
        assert_eq!(mount(b""), None);
        assert_eq!(mount(b"x 1 2 3 4"), None);
        assert_eq!(unescaped(b"\\9"), b"\\9");
    }
}
