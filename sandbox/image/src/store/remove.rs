//! Removing images, and what nothing needs any more.

use std::collections::BTreeSet;
use std::fs;

use super::ImageStore;
use super::lock::FileLock;
use super::records::{self, SourceRecord};
use super::session::{self, Session, digest_of};
use crate::{Digest, ImageError, Reference, Removed};

pub(super) fn remove(
    store: &ImageStore,
    reference_or_digest: &str,
    force: bool,
) -> Result<Removed, ImageError> {
    let lock = store.lock()?;
    let mut record = store
        .find_record(&lock, reference_or_digest)?
        .ok_or_else(|| ImageError::NotFound {
            name: reference_or_digest.chars().take(300).collect(),
            hint: "",
        })?;
    let mut removed = Removed::default();
    let name = Reference::parse(reference_or_digest)
        .ok()
        .and_then(|reference| {
            let mut names = vec![reference.full()];
            names.extend(reference.local_aliases());
            names.into_iter().find(|name| record.names.contains(name))
        });
    if let Some(name) = name
        && record.names.len() > 1
    {
        record.names.retain(|other| *other != name);
        let session = store.session(&lock)?;
        records::write(&session, &store.image_path(&record.digest), &record)?;
        removed.untagged.push(name);
        return Ok(removed);
    }
    let users: Vec<String> = store
        .lease_records(&lock)?
        .into_iter()
        .filter(|(_, lease)| lease.image == record.digest)
        .map(|(container, _)| container)
        .collect();
    if !users.is_empty() && !force {
        return Err(ImageError::InUse {
            name: reference_or_digest.to_owned(),
            containers: users.join(", "),
        });
    }
    let path = store.image_path(&record.digest);
    records::remove(&path)?;
    // Before its layers go, or a power failure could leave a record without them.
    records::sync_parent(&path)?;
    removed.untagged = record.names;
    removed.deleted = Some(record.digest);
    let (layers, garbage) = store.set_aside(&lock)?;
    removed.layers = layers;
    // Removing a large tree takes a while, and nobody needs to wait for it.
    drop(lock);
    drop(garbage);
    Ok(removed)
}

impl ImageStore {
    /// Removes layers and blobs that no image, no lease and no session needs.
    pub(super) fn collect(&self, held: &FileLock) -> Result<Vec<Digest>, ImageError> {
        self.set_aside(held).map(|(layers, _)| layers)
    }

    /// Moves unneeded layers into a session, whose end removes them.
    fn set_aside(&self, held: &FileLock) -> Result<(Vec<Digest>, Session), ImageError> {
        let images = self.images(held)?;
        let mut layers: BTreeSet<Digest> =
            session::pinned(&self.path("tmp"))?.into_iter().collect();
        let mut blobs = BTreeSet::new();
        for image in &images {
            layers.extend(image.layers.iter().cloned());
            blobs.insert(image.digest.clone());
            blobs.extend(image.manifest_digest.clone());
        }
        for (_, lease) in self.lease_records(held)? {
            layers.extend(lease.layers);
        }
        let session = self.session(held)?;
        let mut removed = Vec::new();
        for path in session::entries(&self.path("layers"))? {
            let Some(digest) = digest_of(&path).filter(|digest| !layers.contains(digest)) else {
                continue;
            };
            let aside = session.path(&format!("removed-{}", digest.hex()));
            fs::rename(&path, &aside).map_err(ImageError::io("remove", path))?;
            records::remove(&self.size_path(&digest))?;
            removed.push(digest);
        }
        for path in session::entries(&self.path("locks"))? {
            let unneeded = digest_of(&path).is_some_and(|digest| !layers.contains(&digest));
            // Held: someone unpacks it right now. Removing it while it is held by this process is
            // safe, because whoever locks a file looks whether it is still there.
            if unneeded && let Some(_lock) = FileLock::try_acquire(&path)? {
                records::remove(&path)?;
            }
        }
        for path in session::entries(&self.path("blobs"))? {
            if digest_of(&path).is_some_and(|digest| !blobs.contains(&digest)) {
                records::remove(&path)?;
            }
        }
        for (path, source) in records::read_all::<SourceRecord>(&self.path("sources"))? {
            if !images.iter().any(|image| image.digest == source.image) {
                records::remove(&path)?;
            }
        }
        Ok((removed, session))
    }
}
