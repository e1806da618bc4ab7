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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageConfig;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Documents that look like manifests and configurations, with anything anywhere.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "(sha256:[0-9a-f]{64}|layers|linux|amd64|application/vnd.oci.image.index.v1\\+json)"
                .prop_map(Value::from),
        ];
        let key = "(schemaVersion|mediaType|config|layers|manifests|digest|size|platform|os\
            |architecture|annotations|rootfs|type|diff_ids|Env|Cmd|Entrypoint|Labels|Volumes|fsLayers)";
        leaf.prop_recursive(5, 60, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(key, inner, 0..8)
                    .prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn any_document_parses_or_is_refused(document in document()) {
            let bytes = document.to_string().into_bytes();
            match Document::parse(&bytes, "test") {
                Ok(Document::Image(manifest)) => {
                    let _ = manifest.check("test");
                    let _: Vec<_> = manifest.layers.iter().map(Descriptor::digest).collect();
                }
                Ok(Document::Index(entries)) => {
                    if for_this_machine(&entries).is_empty() {
                        let _ = wrong_platform("test", &entries).to_string();
                    }
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
            if let Ok((config, _)) = ImageConfig::parse(&bytes, &Digest::of(&bytes)) {
                let _ = check_platform("test", &config);
            }
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Document::parse(&bytes, "test");
            let _ = ImageConfig::parse(&bytes, &Digest::of(&bytes));
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let bytes = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Document::parse(bytes.as_bytes(), "test").is_err());
        let bytes = format!("{{\"config\":{bytes}}}");
        assert!(ImageConfig::parse(bytes.as_bytes(), &Digest::of(b"")).is_err());
    }

    #[test]
    fn a_document_of_two_kinds_is_refused() {
        for text in [
            r#"{"schemaVersion":2,"config":{"digest":"x","size":1},"layers":[],"manifests":[]}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{"digest":"x","size":1},"layers":[]}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"layers":[],"config":{"digest":"x","size":1}}"#,
        ] {
            assert!(Document::parse(text.as_bytes(), "test").is_err(), "{text}");
        }
    }
}
