//! OCI image layout, image specification v1.1: `index.json` and `blobs/`.

use super::files::{Files, blob_name, missing};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::{Form, Found, full_name};
use crate::store::Plan;
use crate::{Digest, ImageConfig, ImageError, Limits, Progress};

/// Indexes inside indexes that are followed.
const MOST_INDEXES: usize = 4;

/// Annotations that carry a name: containerd's has the full one.
const NAME_KEYS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// The images of `index.json`; `None` when there is no such file.
pub(super) fn list(
    files: &dyn Files,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<Option<Vec<Found>>, ImageError> {
    let Some(bytes) = files.read("index.json", limits.manifest_bytes)? else {
        return Ok(None);
    };
    let name = files.path().join("index.json").display().to_string();
    let Document::Index(entries) = Document::parse(&bytes, &name)? else {
        return Err(ImageError::BadManifest {
            name,
            reason: "it is not an index".to_owned(),
        });
    };
    let fitting = manifest::for_this_machine(&entries);
    if fitting.is_empty() {
        return Err(manifest::wrong_platform(&name, &entries));
    }
    let mut found: Vec<Found> = Vec::new();
    for entry in fitting {
        let mut labels: Vec<String> = NAME_KEYS
            .iter()
            .filter_map(|key| entry.annotation(key))
            .map(str::to_owned)
            .collect();
        labels.dedup();
        let names = labels.iter().filter_map(|label| full_name(label, progress));
        let names: Vec<String> = names.collect();
        let digest = entry.digest()?;
        // One image under several names has one entry for each.
        let same = found.iter_mut().find(|found| match &found.form {
            Form::Oci(other) => other.digest().is_ok_and(|other| other == digest),
            Form::Docker(_) => false,
        });
        match same {
            Some(same) => {
                same.labels.extend(labels);
                same.names.extend(names);
            }
            None => found.push(Found {
                names,
                labels,
                form: Form::Oci(entry.clone()),
            }),
        }
    }
    Ok(Some(found))
}

/// Reads and verifies manifest and configuration; gives the plan and the names of the blobs.
pub(super) fn plan(
    files: &dyn Files,
    descriptor: &Descriptor,
    names: &[String],
    limits: &Limits,
) -> Result<(Plan, Vec<String>), ImageError> {
    let label = names
        .first()
        .cloned()
        .unwrap_or_else(|| files.path().display().to_string());
    let (bytes, manifest) = image_manifest(files, descriptor, &label, limits)?;
    let config_bytes = blob(
        files,
        &manifest.config,
        "configuration of",
        &label,
        limits.config_bytes,
    )?;
    let plan = plan_from(
        label,
        names.to_vec(),
        bytes,
        &manifest,
        config_bytes,
        limits,
    )?;
    let blobs = manifest
        .layers
        .iter()
        .map(|layer| layer.digest().map(|digest| blob_name(&digest)))
        .collect::<Result<_, _>>()?;
    Ok((plan, blobs))
}

/// The plan for a manifest and its configuration, both verified.
pub(super) fn plan_from(
    label: String,
    names: Vec<String>,
    manifest_bytes: Vec<u8>,
    manifest: &Manifest,
    config: Vec<u8>,
    limits: &Limits,
) -> Result<Plan, ImageError> {
    let (run, diff_ids) = ImageConfig::parse(&config, &Digest::of(&config))?;
    manifest::check_platform(&label, &run)?;
    let blobs = manifest
        .layers
        .iter()
        .map(|layer| Ok(Some((layer.digest()?, layer.size))))
        .collect::<Result<_, ImageError>>()?;
    Ok(Plan {
        layers: Plan::layers(&label, diff_ids, blobs, limits.layers)?,
        label,
        names,
        config,
        manifest: Some(manifest_bytes),
    })
}

/// Follows indexes to the manifest for this machine.
fn image_manifest(
    files: &dyn Files,
    descriptor: &Descriptor,
    label: &str,
    limits: &Limits,
) -> Result<(Vec<u8>, Manifest), ImageError> {
    let mut descriptor = descriptor.clone();
    for _ in 0..=MOST_INDEXES {
        let bytes = blob(
            files,
            &descriptor,
            "manifest of",
            label,
            limits.manifest_bytes,
        )?;
        match Document::parse(&bytes, label)? {
            Document::Image(manifest) => {
                manifest.check(label)?;
                return Ok((bytes, manifest));
            }
            Document::Index(entries) => {
                descriptor = manifest::for_this_machine(&entries)
                    .first()
                    .map(|entry| (*entry).clone())
                    .ok_or_else(|| manifest::wrong_platform(label, &entries))?;
            }
        }
    }
    Err(too_many_indexes(label))
}

/// The error for an index in an index in an index.
pub(super) fn too_many_indexes(label: &str) -> ImageError {
    ImageError::BadManifest {
        name: label.to_owned(),
        reason: format!("more than {MOST_INDEXES} indexes lead to one another"),
    }
}

/// Reads a small blob and compares its digest.
fn blob(
    files: &dyn Files,
    descriptor: &Descriptor,
    what: &str,
    label: &str,
    limit: u64,
) -> Result<Vec<u8>, ImageError> {
    let expected = descriptor.digest()?;
    let name = blob_name(&expected);
    let bytes = files
        .read(&name, limit)?
        .ok_or_else(|| missing(files.path(), &name))?;
    verify(&bytes, &expected, || format!("{what} {label}"))?;
    Ok(bytes)
}

/// Compares the digest of what was read as a whole.
pub(super) fn verify(
    bytes: &[u8],
    expected: &Digest,
    what: impl FnOnce() -> String,
) -> Result<(), ImageError> {
    let actual = Digest::of(bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        what: what(),
        expected: expected.clone(),
        actual,
    })
}
