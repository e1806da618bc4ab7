//! Remembering what a probe found, until something changes that could change it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backend_api::{Accelerator, BackendError};
use serde::{Deserialize, Serialize};

use crate::{Probe, ProbeOutcome, Unusable};

/// The largest file that is read.
const LIMIT: u64 = 64 << 10;

/// How many outcomes are kept: those of installations that are used side by side.
const KEPT: usize = 8;

/// How long a guest that hung is believed to hang always. A host that was very busy looks the same.
const HUNG_FOR: Duration = Duration::from_secs(3600);

/// Why [`cached`] could not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The probe itself failed.
    #[error(transparent)]
    Probe(#[from] BackendError),
    /// What the outcome depends on can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The outcome can't be remembered.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

/// One version of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
}

/// Everything that the outcome depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    boot: String,
    emulation: bool,
    program: Stamp,
    kernel: Stamp,
    initrd: Stamp,
    /// Ownership and mode of the device, which the administrator may change at any time.
    device: Option<(u32, u32, u32)>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    key: Key,
    /// When the outcome was found.
    when: SystemTime,
    outcome: ProbeOutcome,
}

impl Remembered {
    fn holds(&self, key: &Key) -> bool {
        let hung = matches!(
            self.outcome,
            ProbeOutcome::Unusable {
                reason: Unusable::GuestHung { .. }
            }
        );
        self.key == *key && (!hung || self.when.elapsed().is_ok_and(|age| age < HUNG_FOR))
    }
}

/// What the probe found: remembered in `file` if nothing has changed since, otherwise found out now and remembered.
/// Only the owner of `file` should be able to write it.
///
/// # Errors
/// As for [`Probe::run`], and when `file` can't be written.
pub async fn cached(probe: &Probe, file: &Path) -> Result<ProbeOutcome, CacheError> {
    let key = Key::of(probe)?;
    if let Some(remembered) = read(file).into_iter().find(|known| known.holds(&key)) {
        return Ok(remembered.outcome);
    }
    let outcome = probe.run().await?;
    // Read again: others may have probed meanwhile.
    let mut all = read(file);
    all.retain(|known| known.key != key);
    all.truncate(KEPT - 1);
    let remembered = Remembered {
        key,
        when: SystemTime::now(),
        outcome: outcome.clone(),
    };
    all.insert(0, remembered);
    write(file, &all).map_err(|source| CacheError::Write {
        path: file.to_owned(),
        source,
    })?;
    Ok(outcome)
}

impl Key {
    fn of(probe: &Probe) -> Result<Self, CacheError> {
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        Ok(Self {
            boot: fs::read_to_string(boot)
                .map_err(|source| CacheError::Read {
                    path: boot.to_owned(),
                    source,
                })?
                .trim()
                .to_owned(),
            emulation: probe.backend.capabilities().accelerator == Accelerator::Emulation,
            program: Stamp::of("VMM program", &probe.program)?,
            kernel: Stamp::of("guest kernel", &probe.kernel)?,
            initrd: Stamp::of("guest image", &probe.initrd)?,
            device: fs::metadata("/dev/kvm")
                .ok()
                .map(|data| (data.uid(), data.gid(), data.mode())),
        })
    }
}

impl Stamp {
    fn of(what: &'static str, path: &Path) -> Result<Self, BackendError> {
        let metadata = fs::metadata(path).map_err(|source| BackendError::File {
            what,
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// What is remembered, the latest first; nothing when it can't be read or understood, which costs one more probe.
fn read(file: &Path) -> Vec<Remembered> {
    let text = fs::File::open(file).and_then(|file| {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, LIMIT), &mut text)?;
        Ok(text)
    });
    text.ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn write(file: &Path, remembered: &[Remembered]) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = file
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    // One draft per process: two that probe at the same time both write whole files.
    name.push(format!(".{}", std::process::id()));
    let draft = folder.join(name);
    let write = || {
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        out.write_all(&serde_json::to_vec(remembered)?)?;
        out.sync_all()?;
        fs::rename(&draft, file)?;
        fs::File::open(folder)?.sync_all()
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}
