//! The state directory: one folder per container, each with a record that is always whole.
//!
//! A container exists from the moment its folder appears under its name. The folder is made
//! beside it and renamed, so that it never exists without a record.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};

use crate::id::ContainerId;
use crate::state::Record;

const RECORD: &str = "state.json";
/// Prefix of folders that are not containers yet (or no more); no container id begins so.
const TEMPORARY: &str = "~";
/// No record that we wrote is larger.
const RECORD_LIMIT: u64 = 8 << 20;

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The name is taken.
    #[error("container with given ID already exists: {0}")]
    Exists(ContainerId),
    /// There is no such container.
    #[error("container {0} does not exist")]
    Missing(ContainerId),
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A record that we cannot have written.
    #[error("{path} is not a container's state")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The state directory of one `--root`.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the directory, making it (mode 0711, as runc does) when it is not there.
    ///
    /// # Errors
    /// [`StateError::Io`] when it cannot be made.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)
            .map_err(io("make", root))?;
        let root = fs::canonicalize(root).map_err(io("find", root))?;
        Ok(Self { root })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one container, whether it exists or not.
    #[must_use]
    pub fn folder(&self, id: &ContainerId) -> PathBuf {
        id.below(&self.root)
    }

    /// Takes the name for a new container.
    ///
    /// # Errors
    /// [`StateError::Exists`] when it is taken, [`StateError::Io`].
    pub fn create(&self, record: &Record) -> Result<(), StateError> {
        let folder = self.folder(&record.id);
        let temporary = self
            .root
            .join(format!("{TEMPORARY}{}.{}", record.creator.pid, record.id));
        remove_folder(&temporary)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&temporary)
            .map_err(io("make", &temporary))?;
        let made = write_record(&temporary, record).and_then(|()| {
            // Never onto an existing folder: two creates with one name race here, one wins.
            renameat_with(
                rustix::fs::CWD,
                &temporary,
                rustix::fs::CWD,
                &folder,
                RenameFlags::NOREPLACE,
            )
            .map_err(|errno| match errno {
                rustix::io::Errno::EXIST => StateError::Exists(record.id.clone()),
                other => io("make", &folder)(other.into()),
            })
        });
        if made.is_err() {
            remove_folder(&temporary)?;
        }
        made
    }

    /// Reads a container's record.
    ///
    /// # Errors
    /// [`StateError::Missing`], [`StateError::Malformed`] or [`StateError::Io`].
    pub fn load(&self, id: &ContainerId) -> Result<Record, StateError> {
        read_record(&self.folder(id).join(RECORD)).map_err(|error| match error {
            StateError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                StateError::Missing(id.clone())
            }
            other => other,
        })
    }

    /// Changes a container's record, alone among all processes.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn update(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut Record),
    ) -> Result<Record, StateError> {
        let folder = self.folder(id);
        let handle = File::open(&folder).map_err(|source| match source.kind() {
            ErrorKind::NotFound => StateError::Missing(id.clone()),
            _ => io("open", &folder)(source),
        })?;
        flock(&handle, FlockOperation::LockExclusive)
            .map_err(|errno| io("lock", &folder)(errno.into()))?;
        let mut record = self.load(id)?;
        change(&mut record);
        write_record(&folder, &record)?;
        Ok(record)
    }

    /// Every container, by name. Folders that disappear meanwhile are left out.
    ///
    /// # Errors
    /// [`StateError::Io`] when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, StateError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(io("read", &self.root))? {
            let entry = entry.map_err(io("read", &self.root))?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| ContainerId::new(name).ok())
            else {
                continue;
            };
            match self.load(&id) {
                Ok(record) => records.push(record),
                // Something else lies there, or it was deleted just now.
                Err(StateError::Missing(_)) => {}
                // One container's damage is not the others'.
                Err(error @ StateError::Malformed { .. }) => {
                    tracing::warn!(error = crate::error::chain(&error), "left out");
                }
                Err(error) => return Err(error),
            }
        }
        records.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(records)
    }

    /// Frees the name, and removes all that lies under it.
    ///
    /// # Errors
    /// [`StateError::Missing`], [`StateError::Io`].
    pub fn remove(&self, id: &ContainerId) -> Result<(), StateError> {
        let folder = self.folder(id);
        let temporary = self
            .root
            .join(format!("{TEMPORARY}gone.{}.{id}", std::process::id()));
        remove_folder(&temporary)?;
        // The name is free at once; a kill in between leaves a folder that the next sweep takes.
        fs::rename(&folder, &temporary).map_err(|source| match source.kind() {
            ErrorKind::NotFound => StateError::Missing(id.clone()),
            _ => io("remove", &folder)(source),
        })?;
        remove_folder(&temporary)?;
        self.sweep();
        Ok(())
    }

    /// Removes what killed commands left half made. Best effort: the next call tries again.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(owner) = temporary_owner(&name) else {
                continue;
            };
            if !Path::new(&format!("/proc/{owner}")).exists() {
                let _retried_later = remove_folder(&entry.path());
            }
        }
    }
}

/// The pid in the name of a temporary folder.
fn temporary_owner(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?.strip_prefix(TEMPORARY)?;
    let name = name.strip_prefix("gone.").unwrap_or(name);
    name.split('.').next()?.parse().ok()
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        action,
        path,
        source,
    }
}

fn remove_folder(path: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn read_record(path: &Path) -> Result<Record, StateError> {
    let file = File::open(path).map_err(io("read", path))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, RECORD_LIMIT), &mut bytes)
        .map_err(io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| StateError::Malformed {
        path: path.to_owned(),
        source,
    })
}

fn write_record(folder: &Path, record: &Record) -> Result<(), StateError> {
    let path = folder.join(RECORD);
    let temporary = folder.join(format!("{TEMPORARY}{RECORD}"));
    let bytes = serde_json::to_vec(record).map_err(|source| StateError::Malformed {
        path: path.clone(),
        source,
    })?;
    let mut file = File::create(&temporary).map_err(io("write", &temporary))?;
    file.write_all(&bytes).map_err(io("write", &temporary))?;
    file.sync_all().map_err(io("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(io("write", &path))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io("write", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ProcessIdentity;
    use std::collections::HashMap;

    fn record(id: &str) -> Record {
        Record {
            id: ContainerId::new(id).unwrap(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            annotations: HashMap::new(),
            creator: ProcessIdentity::current(),
            driver: None,
            init: None,
            helpers: Vec::new(),
            cgroups: Vec::new(),
            machine_cgroups: Vec::new(),
            poststop: Vec::new(),
            network: None,
            exit: None,
            finished: None,
            run: None,
        }
    }

    #[test]
    fn a_name_is_taken_once_and_free_after_removal() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("deep/root")).unwrap();
        let one = record("one");
        store.create(&one).unwrap();
        assert!(matches!(store.create(&one), Err(StateError::Exists(_))));
        assert_eq!(store.load(&one.id).unwrap(), one);
        store.remove(&one.id).unwrap();
        assert!(matches!(store.load(&one.id), Err(StateError::Missing(_))));
        assert!(matches!(store.remove(&one.id), Err(StateError::Missing(_))));
        store.create(&one).unwrap();
        store.remove(&one.id).unwrap();
        assert_eq!(
            fs::read_dir(store.root()).unwrap().count(),
            0,
            "nothing is left"
        );
    }

    #[test]
    fn updates_from_many_threads_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let id = record("x").id;
        store.create(&record("x")).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, id) = (&store, &id);
                scope.spawn(move || {
                    for round in 0..10 {
                        store
                            .update(id, |record| {
                                record
                                    .annotations
                                    .insert(format!("{thread}.{round}"), String::new());
                            })
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(store.load(&id).unwrap().annotations.len(), 40);
    }

    #[test]
    fn a_list_has_containers_only_and_sweeping_spares_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for id in ["b", "a"] {
            store.create(&record(id)).unwrap();
        }
        let dead = folder.path().join("~4194305.killed");
        let alive = folder.path().join(format!("~{}.busy", std::process::id()));
        fs::create_dir_all(dead.join("x")).unwrap();
        fs::create_dir(&alive).unwrap();
        fs::create_dir(folder.path().join("foreign")).unwrap();
        let names: Vec<_> = store
            .list()
            .unwrap()
            .into_iter()
            .map(|record| record.id.to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
        store.remove(&record("a").id).unwrap();
        assert!(!dead.exists() && alive.exists());
    }

    #[test]
    fn a_damaged_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.create(&record("x")).unwrap();
        fs::write(folder.path().join("x/state.json"), "{").unwrap();
        let error = store.load(&record("x").id).unwrap_err();
        assert!(error.to_string().contains("x/state.json"), "{error}");
    }
}
