//! Manifests and indexes: image specification v1.1 and docker's distribution schema 2.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Digest, ImageError};

/// Points at content.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: Option<String>,
    digest: String,
    pub(super) size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// A manifest of one image.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// What a manifest document turned out to be.
#[derive(Debug, Clone)]
pub(super) enum Document {
    Image(Manifest),
    Index(Vec<Descriptor>),
}

/// Every field that tells the kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
}

/// This machine's architecture as images spell it.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Document {
    /// Reads a manifest or an index. `name` names it in errors.
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let bad = |reason: String| ImageError::BadManifest {
            name: name.to_owned(),
            reason,
        };
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(bad(
                "it has schema version 1, which registries gave up: push the image again"
                    .to_owned(),
            ));
        }
        if raw.schema_version != Some(2) {
            return Err(bad("it has no schemaVersion 2".to_owned()));
        }
        let kind = raw.media_type.as_deref().unwrap_or_default();
        // A document that reads as both would be one image here and another one elsewhere.
        match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), None)
                if !kind.contains("index") && !kind.contains("list") =>
            {
                Ok(Self::Image(Manifest { config, layers }))
            }
            (None, None, Some(manifests)) if !kind.contains("manifest.v1") => {
                Ok(Self::Index(manifests))
            }
            _ => Err(bad(format!(
                "it is neither an image manifest nor an index (media type {kind:?})"
            ))),
        }
    }
}

impl Manifest {
    /// Refuses what is no runnable image, by name.
    pub(super) fn check(&self, name: &str) -> Result<(), ImageError> {
        let bad = |reason: String| ImageError::BadManifest {
            name: name.to_owned(),
            reason,
        };
        let config = self.config.media_type.as_deref().unwrap_or_default();
        let is_image = config.is_empty()
            || config == "application/vnd.oci.image.config.v1+json"
            || config == "application/vnd.docker.container.image.v1+json"
            || config == "application/octet-stream";
        if !is_image {
            return Err(bad(format!(
                "it is no container image (its configuration is {config:?})"
            )));
        }
        let encrypted = self
            .layers
            .iter()
            .filter_map(|layer| layer.media_type.as_deref())
            .find(|kind| kind.contains("encrypted"));
        match encrypted {
            Some(kind) => Err(bad(format!("encrypted layers ({kind}) are not supported"))),
            None => Ok(()),
        }
    }
}

impl Descriptor {
    pub(super) fn digest(&self) -> Result<Digest, ImageError> {
        self.digest.parse()
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// True for build records that lie in an index beside the images they describe.
    fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type").is_some()
    }

    fn platform_text(&self) -> String {
        match &self.platform {
            Some(platform) => format!("{}/{}", platform.os, platform.architecture),
            None => "an unnamed platform".to_owned(),
        }
    }
}

/// The entries of an index that this machine can run: those that say so, else those that do not
/// say what they are for.
pub(super) fn for_this_machine(entries: &[Descriptor]) -> Vec<&Descriptor> {
    let candidates = || entries.iter().filter(|entry| !entry.is_attestation());
    let fitting: Vec<_> = candidates()
        .filter(|entry| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os == "linux" && platform.architecture == host_architecture()
            })
        })
        .collect();
    if !fitting.is_empty() {
        return fitting;
    }
    candidates()
        .filter(|entry| entry.platform.is_none())
        .collect()
}

/// The error for an index without an entry for this machine.
pub(super) fn wrong_platform(name: &str, entries: &[Descriptor]) -> ImageError {
    let mut found: Vec<_> = entries.iter().map(Descriptor::platform_text).collect();
    found.dedup();
    found.truncate(12);
    ImageError::WrongPlatform {
        name: name.to_owned(),
        wanted: format!("linux/{}", host_architecture()),
        found: if found.is_empty() {
            "none at all".to_owned()
        } else {
            found.join(", ")
        },
    }
}

/// Refuses the configuration of an image for other machines.
pub(super) fn check_platform(name: &str, config: &crate::ImageConfig) -> Result<(), ImageError> {
    let fits = |value: &str, wanted: &str| value.is_empty() || value == wanted;
    if fits(&config.os, "linux") && fits(&config.architecture, host_architecture()) {
        return Ok(());
    }
    Err(ImageError::WrongPlatform {
        name: name.to_owned(),
        wanted: format!("linux/{}", host_architecture()),
        found: format!("{}/{}", config.os, config.architecture),
    })
}
