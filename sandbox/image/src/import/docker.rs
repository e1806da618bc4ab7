//! What `docker save` and `podman save` write: `manifest.json`, a configuration and layers.

use serde::Deserialize;

use super::files::Files;
use super::{Form, Found, full_name, layout, manifest};
use crate::store::Plan;
use crate::{Digest, ImageConfig, ImageError, Limits, Progress};

/// One image of `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of `manifest.json`; `None` when there is no such file.
pub(super) fn list(
    files: &dyn Files,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<Option<Vec<Found>>, ImageError> {
    let Some(bytes) = files.read("manifest.json", limits.manifest_bytes)? else {
        return Ok(None);
    };
    let entries: Vec<Entry> =
        serde_json::from_slice(&bytes).map_err(|error| ImageError::BadManifest {
            name: files.path().join("manifest.json").display().to_string(),
            reason: error.to_string(),
        })?;
    let found = entries.into_iter().map(|entry| {
        let labels = entry.repo_tags.clone().unwrap_or_default();
        Found {
            names: labels
                .iter()
                .filter_map(|label| full_name(label, progress))
                .collect(),
            labels,
            form: Form::Docker(entry),
        }
    });
    Ok(Some(found.collect()))
}

/// Reads the configuration; gives the plan and the names of the layers' files.
pub(super) fn plan(
    files: &dyn Files,
    entry: &Entry,
    names: &[String],
    limits: &Limits,
) -> Result<(Plan, Vec<String>), ImageError> {
    let label = names
        .first()
        .cloned()
        .unwrap_or_else(|| files.path().display().to_string());
    let config = files.require(&entry.config, limits.config_bytes)?;
    // The file is called after its digest: `HEX.json`, or `blobs/sha256/HEX` from newer ones.
    let stem = entry.config.rsplit('/').next().unwrap_or_default();
    if let Some(expected) = Digest::from_hex(stem.strip_suffix(".json").unwrap_or(stem)) {
        layout::verify(&config, &expected, || format!("configuration of {label}"))?;
    }
    let (run, diff_ids) = ImageConfig::parse(&config, &Digest::of(&config))?;
    manifest::check_platform(&label, &run)?;
    // No manifest says the blobs' digests; the configuration's are those of the plain layers, and
    // every layer is compared with them.
    let blobs = vec![None; entry.layers.len()];
    let plan = Plan {
        layers: Plan::layers(&label, diff_ids, blobs, limits.layers)?,
        label,
        names: names.to_vec(),
        config,
        manifest: None,
    };
    Ok((plan, entry.layers.clone()))
}
