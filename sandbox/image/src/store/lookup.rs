//! Finding an image by name or id.

use super::ImageStore;
use super::lock::FileLock;
use super::records::ImageRecord;
use crate::{Image, ImageError, Reference};

/// Digits that a short image id has at least.
const SHORTEST_ID: usize = 4;

impl ImageStore {
    /// The image that a reference means, when the store has it whole.
    pub(super) fn find(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        let lock = self.lock()?;
        let Some(record) = self.find_record(&lock, reference.text())? else {
            return Ok(None);
        };
        // Someone who tidied by hand must get the image again, not an error.
        let is_whole = self.blob_path(&record.digest).is_file()
            && record
                .layers
                .iter()
                .all(|layer| self.layer_path(layer).is_dir());
        if !is_whole {
            return Ok(None);
        }
        self.image(record).map(Some)
    }

    /// Looks for a name first and for an id then.
    pub(super) fn find_record(
        &self,
        held: &FileLock,
        text: &str,
    ) -> Result<Option<ImageRecord>, ImageError> {
        let records = self.images(held)?;
        if let Ok(reference) = Reference::parse(text) {
            let mut names = vec![reference.full()];
            names.extend(reference.local_aliases());
            for name in names {
                if let Some(record) = records.iter().find(|record| record.names.contains(&name)) {
                    return Ok(Some(record.clone()));
                }
            }
            if let Some(record) = records
                .iter()
                .find(|record| is_pinned_by(record, &reference))
            {
                return Ok(Some(record.clone()));
            }
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = prefix.len() >= SHORTEST_ID
            && prefix
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !is_id {
            return Ok(None);
        }
        let mut fitting = records
            .into_iter()
            .filter(|record| record.digest.hex().starts_with(prefix));
        match (fitting.next(), fitting.next()) {
            (Some(_), Some(_)) => Err(ImageError::AmbiguousId {
                prefix: prefix.to_owned(),
            }),
            (found, _) => Ok(found),
        }
    }

    /// What callers get for a record.
    pub(super) fn image(&self, record: ImageRecord) -> Result<Image, ImageError> {
        let config = self.read_config(&record)?;
        // Overlayfs refuses a directory twice. What the lower one gives is given again by the
        // upper one, path by path, so only the upper one counts.
        let layer_digests: Vec<_> = record
            .layers
            .iter()
            .enumerate()
            .filter(|(index, layer)| !record.layers[index + 1..].contains(layer))
            .map(|(_, layer)| layer.clone())
            .collect();
        Ok(Image {
            config,
            layers: layer_digests
                .iter()
                .map(|layer| self.layer_path(layer))
                .collect(),
            layer_digests,
            digest: record.digest,
            manifest_digest: record.manifest_digest,
            names: record.names,
        })
    }
}

/// True when the reference names a manifest by digest and the image came from that repository
/// with that very manifest, under a tag.
fn is_pinned_by(record: &ImageRecord, reference: &Reference) -> bool {
    let (Some(digest), Some(manifest)) = (reference.digest(), &record.manifest_digest) else {
        return false;
    };
    digest == manifest.to_string()
        && record.names.iter().any(|name| {
            Reference::parse(name).is_ok_and(|name| {
                name.registry() == reference.registry()
                    && name.repository() == reference.repository()
            })
        })
}
