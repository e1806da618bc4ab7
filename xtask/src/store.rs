//! A cache of built things, outside the tree.
//!
//! ```text
//! <cache>/<kind>/lock            held while building: two builds never collide
//! <cache>/<kind>/.stage-XXXXXX/  a build in progress, or what a killed one left
//! <cache>/<kind>/<key>/          complete, because it appears by a rename
//! ```

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::TempDir;

const STAGE: &str = ".stage-";

/// One kind of built things. Looking needs no lock, because entries appear complete.
pub struct Store {
    directory: PathBuf,
}

/// A store that only this process may change.
pub struct Locked<'a> {
    store: &'a Store,
    // Closing the file gives the lock back.
    _lock: File,
}

impl Store {
    /// Opens the store.
    pub fn open(cache: &Path, kind: &str) -> Result<Self> {
        let directory = cache.join(kind);
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// The folder of the store, for what belongs beside its entries.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The entry of that key, if it was built.
    pub fn find(&self, key: &str) -> Option<PathBuf> {
        let path = self.directory.join(key);
        path.is_dir().then_some(path)
    }

    /// The newest entry that the caller accepts by its path.
    pub fn newest(&self, accept: impl Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
        let mut entries = Vec::new();
        for (path, name) in self.entries()? {
            if !name.starts_with('.') && path.is_dir() && accept(&path) {
                let made = fs::metadata(&path)
                    .and_then(|about| about.modified())
                    .with_context(|| format!("read {}", path.display()))?;
                entries.push((made, path));
            }
        }
        Ok(entries.into_iter().max().map(|(_, path)| path))
    }

    /// Waits for another build of the same kind, and clears what a killed build left.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let path = self.directory.join("lock");
        let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                eprintln!("waiting for another build ({})", path.display());
                flock(&lock, FlockOperation::LockExclusive)
                    .with_context(|| format!("lock {}", path.display()))?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        for (path, name) in self.entries()? {
            if name.starts_with(STAGE) {
                remove(&path)?;
            }
        }
        Ok(Locked {
            store: self,
            _lock: lock,
        })
    }

    fn entries(&self) -> Result<Vec<(PathBuf, String)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory)
            .with_context(|| format!("read {}", self.directory.display()))?
        {
            let entry = entry.with_context(|| format!("read {}", self.directory.display()))?;
            entries.push((
                entry.path(),
                entry.file_name().to_string_lossy().into_owned(),
            ));
        }
        Ok(entries)
    }
}

impl Deref for Locked<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

impl Locked<'_> {
    /// A folder to build in, on the same file system as the entries.
    pub fn stage(&self) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix(STAGE)
            .tempdir_in(&self.directory)
            .with_context(|| format!("create a folder in {}", self.directory.display()))
    }

    /// Makes a finished folder the entry of that key.
    pub fn publish(&self, finished: &Path, key: &str) -> Result<PathBuf> {
        let path = self.directory.join(key);
        fs::rename(finished, &path).with_context(|| format!("publish {}", path.display()))?;
        Ok(path)
    }

    /// Removes all but the `keep` newest entries among those that `of_kind` accepts by name.
    pub fn prune(&self, keep: usize, of_kind: impl Fn(&str) -> bool) -> Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
        for (path, name) in self.entries()? {
            if path.is_dir() && of_kind(&name) {
                let changed = fs::metadata(&path)
                    .and_then(|metadata| metadata.modified())
                    .with_context(|| format!("read {}", path.display()))?;
                entries.push((changed, path));
            }
        }
        entries.sort();
        let surplus = entries.len().saturating_sub(keep);
        for (_, path) in entries.drain(..surplus) {
            remove(&path)?;
        }
        Ok(())
    }
}

fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_build_is_cleared_and_an_entry_survives() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path(), "kernel").unwrap();
        let locked = store.lock().unwrap();
        let killed = locked.stage().unwrap().keep();
        let stage = locked.stage().unwrap();
        fs::create_dir(stage.path().join("out")).unwrap();
        let entry = locked.publish(&stage.path().join("out"), "abc").unwrap();
        drop(stage);
        drop(locked);
        assert!(killed.exists());

        let _locked = store.lock().unwrap();
        assert!(!killed.exists());
        assert_eq!(store.find("abc"), Some(entry));
        assert_eq!(store.find("abd"), None);
    }

    #[test]
    fn pruning_keeps_the_newest() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path(), "kernel").unwrap();
        for (age, name) in [(30, "old"), (20, "middle"), (10, "new"), (40, "apt")] {
            let path = cache.path().join("kernel").join(name);
            fs::create_dir(&path).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
        let locked = store.lock().unwrap();
        locked.prune(2, |name| name != "apt").unwrap();
        assert!(store.find("old").is_none());
        for kept in ["middle", "new", "apt"] {
            assert!(store.find(kept).is_some(), "{kept}");
        }
    }
}
