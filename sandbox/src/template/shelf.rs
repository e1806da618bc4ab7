//! The folder that templates are kept in.
//!
//! ```text
//! KEY           a template, always whole: it got its name when it was
//! KEY.failed    why there is none; believed for a while
//! draft         one that is being made, by the holder of the lock
//! lock          held by whoever makes one
//! ```
//!
//! A template that is in use may be removed: who has opened it has it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::Key;

/// How many templates are kept: some sizes, and those of an installation that was just replaced.
pub const KEPT: usize = 4;

/// How long it is believed that what failed would fail again. The host may have been busy.
const FAILED_FOR: Duration = Duration::from_secs(600);

/// How much of a reason is kept.
const REASON: usize = 4096;

const DRAFT: &str = "draft";
const LOCK: &str = "lock";
const FAILED: &str = "failed";

/// What can go wrong with the folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others may write to it: what lies there cannot be trusted.
    #[error("{path} is not a {what} that only its owner, who runs this, may use")]
    NotOurs {
        /// Which one.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Shelf {
    folder: PathBuf,
}

/// The right to make a template; given back when this is dropped, or with the process's death.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held")] File);

/// A template that is being made. Dropping it removes it.
#[derive(Debug)]
pub struct Draft<'a> {
    shelf: &'a Shelf,
    file: File,
    kept: bool,
}

/// A template that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The text of its key.
    pub key: String,
    /// Its size on disk, in bytes.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError::Io {
        action,
        path,
        source,
    }
}

impl Shelf {
    /// Opens the folder, making it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to others.
    pub fn open(folder: &Path) -> Result<Self, ShelfError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io("make", folder))?;
        let data = fs::symlink_metadata(folder).map_err(io("look at", folder))?;
        if !data.is_dir() || !is_ours(&data) {
            return Err(ShelfError::NotOurs {
                path: folder.to_owned(),
                what: "folder",
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// A template, which counts as used now.
    ///
    /// # Errors
    /// When there is a file that cannot be opened or belongs to others.
    pub fn find(&self, key: &Key) -> Result<Option<File>, ShelfError> {
        let path = self.path(key);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io("open", &path))?,
        };
        let data = file.metadata().map_err(io("look at", &path))?;
        if !data.is_file() || !is_ours(&data) {
            return Err(ShelfError::NotOurs { path, what: "file" });
        }
        file.set_modified(SystemTime::now())
            .map_err(io("mark", &path))?;
        Ok(Some(file))
    }

    /// The right to make a template, if nobody else has it; with `wait`, when nobody else has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn lock(&self, wait: bool) -> Result<Option<Lock>, ShelfError> {
        let path = self.folder.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("open", &path))?;
        let operation = if wait {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(io("lock", &path)(errno.into())),
        }
    }

    /// A new template's file. What a maker left behind that was killed is overwritten.
    ///
    /// # Errors
    /// What the file system says.
    pub fn draft<'a>(&'a self, _lock: &'a Lock) -> Result<Draft<'a>, ShelfError> {
        let path = self.folder.join(DRAFT);
        remove(&path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("make", &path))?;
        Ok(Draft {
            shelf: self,
            file,
            kept: false,
        })
    }

    /// Removes a template. Does nothing when there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, key: &Key) -> Result<(), ShelfError> {
        remove(&self.path(key))
    }

    /// Removes all templates, and what is known of failures. Answers how many templates there were.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear(&self) -> Result<usize, ShelfError> {
        let all = self.list()?;
        for name in self.names()? {
            if is_template(&name) || Path::new(&name).extension() == Some(OsStr::new(FAILED)) {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(all.len())
    }

    /// All templates, the last used first.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list(&self) -> Result<Vec<Kept>, ShelfError> {
        let mut all = Vec::new();
        for key in self.names()?.into_iter().filter(|name| is_template(name)) {
            // Gone meanwhile: another's prune.
            let Ok(data) = fs::symlink_metadata(self.folder.join(&key)) else {
                continue;
            };
            all.push(Kept {
                key,
                size: data.blocks() * 512,
                used: data.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        all.sort_by(|one, other| other.used.cmp(&one.used).then(one.key.cmp(&other.key)));
        Ok(all)
    }

    /// Remembers why there is no template.
    pub(super) fn note_failure(&self, key: &Key, reason: &str) {
        let reason: String = reason.chars().take(REASON).collect();
        let path = self.failure(key);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, reason.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, "a failed template is not noted");
        }
    }

    /// Forgets why there was no template.
    pub(super) fn forget_failure(&self, key: &Key) -> Result<(), ShelfError> {
        remove(&self.failure(key))
    }

    /// Whether making or using such a template failed a short time ago.
    pub(super) fn failed_lately(&self, key: &Key) -> bool {
        is_recent(&self.failure(key))
    }

    /// Removes the templates that were not used for longest, and notes of failures that count no more.
    fn prune(&self) -> Result<(), ShelfError> {
        for old in self.list()?.into_iter().skip(KEPT) {
            remove(&self.folder.join(old.key))?;
        }
        for name in self.names()? {
            let path = self.folder.join(&name);
            if path.extension() == Some(OsStr::new(FAILED)) && !is_recent(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, ShelfError> {
        let list = || {
            let entries = fs::read_dir(&self.folder)?;
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        };
        list().map_err(io("list", &self.folder))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.0)
    }

    fn failure(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{key}.{FAILED}"))
    }
}

impl Draft<'_> {
    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes it the template of this key, and removes what is too much then.
    pub fn keep(mut self, key: &Key) -> Result<(), ShelfError> {
        let path = self.shelf.path(key);
        fs::rename(self.shelf.folder.join(DRAFT), &path).map_err(io("make", &path))?;
        self.kept = true;
        self.shelf.prune()
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove(&self.shelf.folder.join(DRAFT))
        {
            tracing::warn!(%error, "the draft of a template stays");
        }
    }
}

fn is_ours(data: &fs::Metadata) -> bool {
    data.uid() == rustix::process::geteuid().as_raw() && data.mode() & 0o077 == 0
}

fn is_template(name: &str) -> bool {
    name != LOCK && name != DRAFT && !name.contains('.')
}

fn is_recent(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|data| data.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FAILED_FOR))
}

fn remove(path: &Path) -> Result<(), ShelfError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(&folder.path().join("templates")).unwrap();
        (folder, shelf)
    }

    fn put(shelf: &Shelf, key: &Key, text: &str) {
        let lock = shelf.lock(false).unwrap().expect("nobody has it");
        let draft = shelf.draft(&lock).unwrap();
        draft.file().write_all(text.as_bytes()).unwrap();
        draft.keep(key).unwrap();
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_not_leaves_nothing() {
        let (_folder, shelf) = shelf();
        let key = Key("256m-1-a".to_owned());
        assert!(shelf.find(&key).unwrap().is_none());
        let lock = shelf.lock(false).unwrap().expect("nobody has it");
        assert!(shelf.lock(false).unwrap().is_none(), "two may make one");
        drop(shelf.draft(&lock).unwrap());
        drop(lock);
        assert_eq!(shelf.names().unwrap(), [LOCK]);
        put(&shelf, &key, "whole");
        let mut text = String::new();
        let mut file = shelf.find(&key).unwrap().expect("it is there");
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");
        shelf.remove(&key).unwrap();
        shelf.remove(&key).unwrap();
        assert!(shelf.find(&key).unwrap().is_none());
    }

    #[test]
    fn a_draft_of_a_killed_maker_is_overwritten() {
        let (_folder, shelf) = shelf();
        fs::write(shelf.folder.join(DRAFT), "half").unwrap();
        assert!(shelf.list().unwrap().is_empty());
        put(&shelf, &Key("k".to_owned()), "whole");
        assert_eq!(shelf.list().unwrap().len(), 1);
        assert!(!shelf.folder.join(DRAFT).exists());
    }

    #[test]
    fn those_that_were_used_last_are_kept() {
        let (_folder, shelf) = shelf();
        let key = |number: usize| Key(format!("k{number}"));
        for number in 0..KEPT {
            put(&shelf, &key(number), "");
            let age = Duration::from_secs(1000 - number as u64);
            let file = File::open(shelf.path(&key(number))).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        shelf.find(&key(0)).unwrap().expect("used again");
        put(&shelf, &key(KEPT), "");
        let kept: Vec<_> = shelf.list().unwrap().into_iter().map(|it| it.key).collect();
        assert_eq!(kept.len(), KEPT);
        assert!(kept.contains(&"k0".to_owned()) && !kept.contains(&"k1".to_owned()));
    }

    #[test]
    fn failures_are_believed_for_a_while() {
        let (_folder, shelf) = shelf();
        let key = Key("k".to_owned());
        assert!(!shelf.failed_lately(&key));
        shelf.note_failure(&key, "no luck");
        assert!(shelf.failed_lately(&key));
        assert!(shelf.list().unwrap().is_empty());
        let old = SystemTime::now() - FAILED_FOR;
        let file = File::options().write(true).open(shelf.failure(&key));
        file.unwrap().set_modified(old).unwrap();
        assert!(!shelf.failed_lately(&key));
        shelf.note_failure(&key, "again");
        shelf.forget_failure(&key).unwrap();
        assert!(!shelf.failed_lately(&key));
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        let (_folder, shelf) = shelf();
        let key = Key("k".to_owned());
        put(&shelf, &key, "");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&shelf.path(&key), 0o644);
        assert!(shelf.find(&key).is_err());
        fs::remove_file(shelf.path(&key)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", shelf.path(&key)).unwrap();
        assert!(shelf.find(&key).is_err());
        mode(&shelf.folder, 0o755);
        assert!(Shelf::open(&shelf.folder).is_err());
    }
}
