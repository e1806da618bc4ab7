//! The store: a directory that several processes share.
//!
//! ```text
//! format              version of this layout
//! lock                held for moments: by whoever changes records, leases or the set of layers
//! images/HEX.json     an image: names, layers (HEX is the digest of its configuration)
//! blobs/HEX           configurations and manifests, as they came
//! layers/HEX/         an unpacked layer (HEX is the digest of its uncompressed tar)
//! sizes/HEX           bytes of content in that layer
//! locks/HEX           held by whoever unpacks that layer
//! leases/ID.json      layers that a container uses
//! sources/KEY.json    the image that an archive file was found to hold
//! tmp/PID-N/          what one process has not finished
//! ```
//!
//! A layer appears by one rename after its digest was verified and its content synced, so what
//! is in `layers` is whole. Nothing in the store is readable by other users: layers contain
//! set-id programs.

mod import;
mod lock;
mod lookup;
mod records;
mod remove;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::import as sources;
use crate::{
    Digest, Image, ImageConfig, ImageError, ImageSource, ImageSummary, Progress, PullPolicy,
    Removed, Settings,
};

pub(crate) use import::{Layers, Plan};
use lock::FileLock;
use records::{ImageRecord, LeaseRecord};
pub(crate) use session::Session;

/// Version of the layout on disk.
const FORMAT: &str = "1";

/// Longest wait for the store's own lock, which nobody holds for more than a moment.
const STORE_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Images on disk.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
    settings: Settings,
}

impl ImageStore {
    /// Opens the store, which is made when it does not exist. Leftovers of processes that were
    /// killed are removed.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        Self::open_with(dir, Settings::default())
    }

    /// Opens the store with settings of the caller's own.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn open_with(dir: &Path, settings: Settings) -> Result<Self, ImageError> {
        for name in [
            "", "images", "blobs", "layers", "sizes", "locks", "leases", "sources", "tmp",
        ] {
            let path = dir.join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(ImageError::io("create", path))?;
        }
        let dir = dir.canonicalize().map_err(ImageError::io("find", dir))?;
        let store = Self { dir, settings };
        let lock = store.lock()?;
        store.check_format()?;
        if session::remove_dead(&store.path("tmp"))? > 0 {
            store.collect(&lock)?;
        }
        drop(lock);
        Ok(store)
    }

    /// Gives the image that a source means, importing or pulling what is missing.
    ///
    /// # Errors
    /// Whatever is wrong with the image, its source or the store; nothing is left behind then.
    pub fn resolve(
        &self,
        source: &ImageSource,
        policy: PullPolicy,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        match source {
            ImageSource::OciLayout { path, name } => {
                sources::from_layout(self, path, name.as_deref(), progress)
            }
            ImageSource::Archive { path, name } => {
                sources::from_archive(self, path, name.as_deref(), progress)
            }
            ImageSource::Registry(reference) => {
                if policy != PullPolicy::Always
                    && let Some(image) = self.find(reference)?
                {
                    return Ok(image);
                }
                if policy == PullPolicy::Never {
                    return Err(ImageError::NotFound {
                        name: reference.full(),
                        hint: ", and the pull policy forbids to ask its registry",
                    });
                }
                sources::from_registry(self, reference, progress)
            }
        }
    }

    /// Imports every image of an archive or layout (`cofferdam load`).
    ///
    /// # Errors
    /// As [`ImageStore::resolve`].
    pub fn load(
        &self,
        source: &ImageSource,
        progress: &dyn Progress,
    ) -> Result<Vec<Image>, ImageError> {
        match source {
            ImageSource::OciLayout { path, name: None } => {
                sources::all_from_layout(self, path, progress)
            }
            ImageSource::Archive { path, name: None } => {
                sources::all_from_archive(self, path, progress)
            }
            one => Ok(vec![self.resolve(one, PullPolicy::Always, progress)?]),
        }
    }

    /// Every image, newest import first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let lock = self.lock()?;
        let mut records = self.images(&lock)?;
        let mut users: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for (container, lease) in self.lease_records(&lock)? {
            users.entry(lease.image).or_default().insert(container);
        }
        records.sort_by(|one, other| {
            (other.imported, &one.digest).cmp(&(one.imported, &other.digest))
        });
        records
            .into_iter()
            .map(|record| {
                let config = self.read_config(&record)?;
                Ok(ImageSummary {
                    size: record
                        .layers
                        .iter()
                        .map(|layer| self.layer_size(layer))
                        .sum(),
                    used_by: users.remove(&record.digest).unwrap_or_default(),
                    digest: record.digest,
                    manifest_digest: record.manifest_digest,
                    names: record.names,
                    created: config.created,
                    architecture: config.architecture,
                    os: config.os,
                })
            })
            .collect()
    }

    /// Removes a name, and the image with its last name or when its id was given. With `force`
    /// also when containers use it; their layers stay until they are released.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::InUse`], or when the store cannot be changed.
    pub fn remove(&self, reference_or_digest: &str, force: bool) -> Result<Removed, ImageError> {
        remove::remove(self, reference_or_digest, force)
    }

    /// Keeps the layers of an image for a container until [`ImageStore::release`].
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when the image was removed meanwhile.
    pub fn lease(&self, image: &Image, container_id: &str) -> Result<(), ImageError> {
        let path = self.lease_path(container_id)?;
        let lock = self.lock()?;
        if image.layers.iter().any(|layer| !layer.is_dir()) {
            return Err(ImageError::NotFound {
                name: image.digest.to_string(),
                hint: " any more: it was removed meanwhile",
            });
        }
        let session = self.session(&lock)?;
        let record = LeaseRecord {
            image: image.digest.clone(),
            layers: image.layer_digests.clone(),
        };
        records::write_volatile(&session, &path, &record)
    }

    /// Ends a container's lease; without one nothing happens.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn release(&self, container_id: &str) -> Result<(), ImageError> {
        let path = self.lease_path(container_id)?;
        let lock = self.lock()?;
        let Some(lease) = records::read::<LeaseRecord>(&path)? else {
            return Ok(());
        };
        records::remove(&path)?;
        let removed_by_force = !self.image_path(&lease.image).exists();
        if removed_by_force {
            self.collect(&lock)?;
        }
        Ok(())
    }

    /// Containers that hold a lease, so that a caller can release those that are gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn leases(&self) -> Result<Vec<String>, ImageError> {
        let lock = self.lock()?;
        Ok(self
            .lease_records(&lock)?
            .into_iter()
            .map(|(container, _)| container)
            .collect())
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Begins a session, taking the lock for a moment.
    pub(crate) fn begin(&self) -> Result<Session, ImageError> {
        let lock = self.lock()?;
        self.session(&lock)
    }

    fn session(&self, _held: &FileLock) -> Result<Session, ImageError> {
        Session::begin(&self.path("tmp"))
    }

    fn lock(&self) -> Result<FileLock, ImageError> {
        FileLock::acquire(
            &self.path("lock"),
            STORE_LOCK_TIMEOUT,
            "changing the image store",
            || (),
        )
    }

    fn check_format(&self) -> Result<(), ImageError> {
        let path = self.path("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == FORMAT => Ok(()),
            Ok(text) => Err(ImageError::Store {
                path: self.dir.clone(),
                problem: format!(
                    "has format {:?} where this program knows {FORMAT}: use another directory",
                    text.trim().chars().take(20).collect::<String>()
                ),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::write(&path, FORMAT).map_err(ImageError::io("write", path))
            }
            Err(error) => Err(ImageError::io("read", path)(error)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.dir
            .join("images")
            .join(format!("{}.json", digest.hex()))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.hex())
    }

    fn layer_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("layers").join(digest.hex())
    }

    fn size_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("sizes").join(digest.hex())
    }

    fn layer_lock_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("locks").join(digest.hex())
    }

    fn lease_path(&self, container_id: &str) -> Result<PathBuf, ImageError> {
        let valid = (1..=200).contains(&container_id.len())
            && !container_id.starts_with('.')
            && container_id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte));
        if !valid {
            return Err(ImageError::BadContainerId {
                id: container_id.chars().take(200).collect(),
            });
        }
        Ok(self.dir.join("leases").join(format!("{container_id}.json")))
    }

    /// Bytes of content; 0 when it is not known (a crash between two files).
    fn layer_size(&self, digest: &Digest) -> u64 {
        fs::read_to_string(self.size_path(digest))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    fn images(&self, _held: &FileLock) -> Result<Vec<ImageRecord>, ImageError> {
        let records = records::read_all(&self.path("images"))?;
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    fn lease_records(&self, _held: &FileLock) -> Result<Vec<(String, LeaseRecord)>, ImageError> {
        let records = records::read_all::<LeaseRecord>(&self.path("leases"))?;
        Ok(records
            .into_iter()
            .filter_map(|(path, record)| Some((path.file_stem()?.to_str()?.to_owned(), record)))
            .collect())
    }

    fn read_config(&self, record: &ImageRecord) -> Result<ImageConfig, ImageError> {
        let path = self.blob_path(&record.digest);
        let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
        let actual = Digest::of(&bytes);
        if actual != record.digest {
            return Err(ImageError::DigestMismatch {
                what: path.display().to_string(),
                expected: record.digest.clone(),
                actual,
            });
        }
        ImageConfig::parse(&bytes, &record.digest).map(|(config, _)| config)
    }
}
