//! Taking an image into the store: layers one by one, the record last.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::lock::FileLock;
use super::records::{self, ImageRecord, SourceRecord};
use super::{ImageStore, Session};
use crate::digest::HashingReader;
use crate::unpack::{self, Unpacked};
use crate::{Digest, Event, Image, ImageConfig, ImageError, Progress};

/// Compressed bytes between two progress events.
const PROGRESS_INTERVAL: u64 = 1 << 20;

/// An image as its source describes it, configuration and manifest verified.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How errors call the image.
    pub(crate) label: String,
    /// Full names that the image gets.
    pub(crate) names: Vec<String>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Option<Vec<u8>>,
    /// Bottom first.
    pub(crate) layers: Vec<LayerSource>,
}

/// One layer of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerSource {
    /// Digest of the uncompressed tar, from the configuration.
    pub(crate) diff_id: Digest,
    /// Digest and length of the blob, where the source has a manifest that says so.
    pub(crate) blob: Option<(Digest, u64)>,
}

/// Gives the blobs of a [`Plan`]'s layers.
pub(crate) trait Layers {
    /// Opens the blob of a layer, by its position.
    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>, ImageError>;
}

impl Plan {
    /// Pairs the layers of a configuration with blobs and checks what can be checked at once.
    pub(crate) fn layers(
        label: &str,
        diff_ids: Vec<Digest>,
        blobs: Vec<Option<(Digest, u64)>>,
        most: usize,
    ) -> Result<Vec<LayerSource>, ImageError> {
        let bad = |reason: String| ImageError::BadManifest {
            name: label.to_owned(),
            reason,
        };
        if diff_ids.len() != blobs.len() {
            return Err(bad(format!(
                "it lists {} layers where the configuration has {}",
                blobs.len(),
                diff_ids.len()
            )));
        }
        if diff_ids.is_empty() {
            return Err(bad(
                "the image has no layers, so there is nothing to run".to_owned()
            ));
        }
        if diff_ids.len() > most {
            return Err(ImageError::TooLarge {
                what: label.to_owned(),
                limit: most as u64,
                unit: "layers",
            });
        }
        Ok(diff_ids
            .into_iter()
            .zip(blobs)
            .map(|(diff_id, blob)| LayerSource { diff_id, blob })
            .collect())
    }
}

impl ImageStore {
    /// Keeps layers from being collected during the session and says which are there already.
    pub(crate) fn pin(
        &self,
        session: &Session,
        layers: &[LayerSource],
    ) -> Result<Vec<bool>, ImageError> {
        let _lock = self.lock()?;
        layers
            .iter()
            .map(|layer| {
                session.pin(&layer.diff_id)?;
                Ok(self.layer_path(&layer.diff_id).is_dir())
            })
            .collect()
    }

    /// Unpacks what is missing and writes the image's record. When that fails, layers that were
    /// unpacked before are removed again.
    pub(crate) fn import(
        &self,
        session: &Session,
        plan: &Plan,
        blobs: &dyn Layers,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        let imported = self
            .add_layers(session, plan, blobs, progress)
            .and_then(|()| self.commit(session, plan));
        if imported.is_err()
            && let Err(error) = self.abandon(session)
        {
            tracing::warn!(%error, "layers of a failed import stay until the next removal");
        }
        imported
    }

    fn abandon(&self, session: &Session) -> Result<(), ImageError> {
        let lock = self.lock()?;
        session.unpin()?;
        self.collect(&lock).map(drop)
    }

    fn add_layers(
        &self,
        session: &Session,
        plan: &Plan,
        blobs: &dyn Layers,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let present = self.pin(session, &plan.layers)?;
        let missing: BTreeMap<&Digest, usize> = plan
            .layers
            .iter()
            .enumerate()
            .filter(|(index, _)| !present[*index])
            .map(|(index, layer)| (&layer.diff_id, index))
            .collect();
        // Everyone takes the locks in the order of the digests, so no two wait for each other.
        let _unpacking = missing
            .keys()
            .map(|diff_id| self.lock_layer(diff_id, progress))
            .collect::<Result<Vec<_>, _>>()?;
        let mut unpacked = BTreeMap::new();
        for (index, layer) in plan.layers.iter().enumerate() {
            let diff_id = &layer.diff_id;
            let is_first = missing.get(diff_id) == Some(&index);
            let reused = !is_first || self.layer_path(diff_id).is_dir();
            if !reused {
                unpacked.insert(
                    diff_id,
                    self.unpack_aside(session, plan, index, blobs, progress)?,
                );
            }
            progress.event(Event::LayerReady {
                layer: diff_id,
                reused,
            });
        }
        if let Some((path, _)) = unpacked.values().next() {
            unpack::sync(path)?;
        }
        for (diff_id, (path, content)) in unpacked {
            self.place_layer(session, diff_id, &path, content.content_bytes)?;
        }
        Ok(())
    }

    fn lock_layer(
        &self,
        diff_id: &Digest,
        progress: &dyn Progress,
    ) -> Result<FileLock, ImageError> {
        FileLock::acquire(
            &self.layer_lock_path(diff_id),
            self.settings.lock_timeout,
            "unpacking the same layer",
            || {
                progress.event(Event::Waiting {
                    what: "another process unpacks the same layer",
                });
            },
        )
    }

    /// Unpacks and verifies a layer in the session's directory.
    fn unpack_aside(
        &self,
        session: &Session,
        plan: &Plan,
        index: usize,
        blobs: &dyn Layers,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, Unpacked), ImageError> {
        let path = session.path(&format!("layer-{index}"));
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .map_err(ImageError::io("create", &path))?;
        // Most layers have no entry for their root, and the mode above went through the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(ImageError::io("set the mode of", &path))?;
        let unpacked = self.unpack(plan, index, blobs, &path, progress)?;
        Ok((path, unpacked))
    }

    /// Moves a verified and synced layer to its place.
    fn place_layer(
        &self,
        session: &Session,
        diff_id: &Digest,
        path: &Path,
        content_bytes: u64,
    ) -> Result<(), ImageError> {
        let target = self.layer_path(diff_id);
        let size = content_bytes.to_string();
        records::write_unsynced(session, &self.size_path(diff_id), size.as_bytes())?;
        match rustix::fs::renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            // There is one already only when locks do not work here; both are the same.
            Ok(()) | Err(Errno::EXIST) => records::sync_parent(&target),
            Err(errno) => Err(ImageError::io("rename to", target)(errno.into())),
        }
    }

    fn unpack(
        &self,
        plan: &Plan,
        index: usize,
        blobs: &dyn Layers,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<Unpacked, ImageError> {
        let layer = &plan.layers[index];
        let name = format!("{} of {}", index + 1, plan.label);
        let mut blob = HashingReader::new(Counted {
            inner: blobs.open(index)?,
            done: 0,
            told: 0,
            tell: |done| {
                progress.event(Event::Unpacking {
                    layer: &layer.diff_id,
                    index,
                    layers: plan.layers.len(),
                    done,
                    total: layer.blob.as_ref().map(|(_, size)| *size),
                });
            },
        });
        let unpacked = unpack::unpack_layer(&mut blob, target, &name, &self.settings.limits);
        if let Some((expected, size)) = &layer.blob {
            let what = || format!("layer {name}");
            match blob.finish() {
                Ok((actual, _)) if actual != *expected => {
                    // Says more than what the decoder thinks of the damage.
                    return Err(ImageError::DigestMismatch {
                        what: what(),
                        expected: expected.clone(),
                        actual,
                    });
                }
                Ok((_, bytes)) if bytes != *size => {
                    return Err(ImageError::SizeMismatch {
                        what: what(),
                        expected: *size,
                        actual: bytes,
                    });
                }
                Ok(_) => {}
                Err(source) => {
                    return Err(unpacked.err().unwrap_or(ImageError::BadLayer {
                        layer: name,
                        source,
                    }));
                }
            }
        }
        let unpacked = unpacked?;
        if unpacked.diff_id != layer.diff_id {
            return Err(ImageError::DigestMismatch {
                what: format!("layer {name} (uncompressed)"),
                expected: layer.diff_id.clone(),
                actual: unpacked.diff_id,
            });
        }
        Ok(unpacked)
    }

    fn commit(&self, session: &Session, plan: &Plan) -> Result<Image, ImageError> {
        let digest = Digest::of(&plan.config);
        ImageConfig::parse(&plan.config, &digest)?;
        let lock = self.lock()?;
        records::write_bytes(session, &self.blob_path(&digest), &plan.config)?;
        let manifest_digest = plan.manifest.as_deref().map(Digest::of);
        if let (Some(digest), Some(bytes)) = (&manifest_digest, &plan.manifest) {
            records::write_bytes(session, &self.blob_path(digest), bytes)?;
        }
        let mut record = ImageRecord {
            manifest_digest,
            names: Vec::new(),
            layers: plan
                .layers
                .iter()
                .map(|layer| layer.diff_id.clone())
                .collect(),
            imported: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            digest,
        };
        for other in self.images(&lock)? {
            if other.digest == record.digest {
                record.names = other.names;
                record.manifest_digest = record.manifest_digest.or(other.manifest_digest);
            } else if other.names.iter().any(|name| plan.names.contains(name)) {
                let mut other = other;
                other.names.retain(|name| !plan.names.contains(name));
                records::write(session, &self.image_path(&other.digest), &other)?;
            }
        }
        for name in &plan.names {
            if !record.names.contains(name) {
                record.names.push(name.clone());
            }
        }
        records::write(session, &self.image_path(&record.digest), &record)?;
        self.image(record)
    }

    /// The image that an unchanged archive was found to hold before.
    pub(crate) fn known_source(&self, key: &Digest) -> Result<Option<Image>, ImageError> {
        let lock = self.lock()?;
        let Some(source) = records::read::<SourceRecord>(&self.source_path(key))? else {
            return Ok(None);
        };
        let Some(record) = records::read::<ImageRecord>(&self.image_path(&source.image))? else {
            return Ok(None);
        };
        let is_whole = record
            .layers
            .iter()
            .all(|layer| self.layer_path(layer).is_dir());
        drop(lock);
        if is_whole {
            self.image(record).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Remembers what an archive holds.
    pub(crate) fn remember_source(
        &self,
        session: &Session,
        key: &Digest,
        image: &Image,
    ) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let record = SourceRecord {
            image: image.digest.clone(),
        };
        records::write(session, &self.source_path(key), &record)
    }

    fn source_path(&self, key: &Digest) -> PathBuf {
        self.dir.join("sources").join(format!("{}.json", key.hex()))
    }
}

/// Tells how many bytes went through.
struct Counted<R, F> {
    inner: R,
    done: u64,
    told: u64,
    tell: F,
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        let is_end = count == 0 && self.told < self.done;
        if is_end || self.done - self.told >= PROGRESS_INTERVAL {
            self.told = self.done;
            (self.tell)(self.done);
        }
        Ok(count)
    }
}
