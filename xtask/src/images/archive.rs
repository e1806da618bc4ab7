//! Image formats: docker-archive (what `docker save` writes) and OCI image layout.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use crate::digest;

use super::layer::{Layer, Owner};

/// The instant of [`super::layer::TIME`], as configurations write it.
const CREATED: &str = "2024-01-01T00:00:00Z";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image of one layer that starts a shell.
pub struct Image<'a> {
    /// Name and tag, `localhost/name:tag`.
    pub reference: &'a str,
    /// What runs by default.
    pub command: &'a [&'a str],
    /// The layer's tar archive.
    pub layer: &'a [u8],
}

impl Image<'_> {
    fn configuration(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": { "Env": [PATH], "Cmd": self.command, "WorkingDir": "/" },
            "rootfs": {
                "type": "layers",
                "diff_ids": [format!("sha256:{}", digest::of_bytes(self.layer))],
            },
            "history": [{ "created": CREATED, "created_by": "cargo xtask images" }],
        }))?)
    }

    /// Writes a docker-archive.
    pub fn docker_archive(&self, path: &Path) -> Result<()> {
        let configuration = self.configuration()?;
        let configuration_name = format!("{}.json", digest::of_bytes(&configuration));
        let folder = digest::of_bytes(self.layer);
        let layer_name = format!("{folder}/layer.tar");
        let manifest = serde_json::to_vec(&json!([{
            "Config": configuration_name,
            "RepoTags": [self.reference],
            "Layers": [layer_name],
        }]))?;
        let file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut archive = Layer::new(file);
        archive.file(&configuration_name, Owner::root(0o644), &configuration)?;
        archive.directory(&folder, Owner::root(0o755))?;
        archive.file(&layer_name, Owner::root(0o644), self.layer)?;
        archive.file("manifest.json", Owner::root(0o644), &manifest)?;
        archive.finish()?;
        Ok(())
    }

    /// Writes an OCI image layout with a gzip layer (image-spec 1.1, "OCI Image Layout").
    pub fn oci_layout(&self, directory: &Path) -> Result<()> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
        // The header's time is zero: the same layer gives the same digest.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        gzip.write_all(self.layer).context("compress the layer")?;
        let layer = gzip.finish().context("compress the layer")?;

        let blob = |kind: &str, content: &[u8]| -> Result<Value> {
            let digest = digest::of_bytes(content);
            write(&blobs.join(&digest), content)?;
            Ok(json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{digest}"),
                "size": content.len(),
            }))
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.v1+json", &self.configuration()?)?,
            "layers": [blob("layer.v1.tar+gzip", &layer)?],
        });
        let mut descriptor = blob("manifest.v1+json", &serde_json::to_vec(&manifest)?)?;
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": self.reference });
        descriptor["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        write(&directory.join("index.json"), &serde_json::to_vec(&index)?)?;
        write(
            &directory.join("oci-layout"),
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )
    }
}

/// Writes a file, with its name in the error.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
