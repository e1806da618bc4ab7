//! What the store gives its callers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Digest, ImageError};

/// An image that is in the store, every layer unpacked.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image's id: the digest of its configuration, as docker and podman show it.
    pub digest: Digest,
    /// Digest of the manifest, when the image came with one (a docker-archive has none).
    pub manifest_digest: Option<Digest>,
    /// Full names that lead to this image, e.g. `docker.io/library/busybox:latest`.
    pub names: Vec<String>,
    /// How a container of this image runs unless told otherwise.
    pub config: ImageConfig,
    /// Unpacked layers, bottom first. Never write to them: images share them.
    pub layers: Vec<PathBuf>,
    pub(crate) layer_digests: Vec<Digest>,
}

/// The run configuration of an image (image specification v1.1, "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Words that always begin the command.
    pub entrypoint: Vec<String>,
    /// Words that follow the entrypoint unless the user gives others.
    pub cmd: Vec<String>,
    /// `NAME=value` entries.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` …; empty means root.
    pub user: String,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Signal that asks the workload to stop, a name or a number.
    pub stop_signal: Option<String>,
    /// `port/protocol` entries.
    pub exposed_ports: Vec<String>,
    /// Paths that the image wants on a volume.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Architecture in Go's spelling, e.g. `amd64`.
    pub architecture: String,
    /// Operating system in Go's spelling.
    pub os: String,
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
}

impl ImageConfig {
    /// Entrypoint and cmd joined: what runs when the user gives no command.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }

    /// Reads the configuration document of an image.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`] for anything that is not one.
    pub fn parse(bytes: &[u8], digest: &Digest) -> Result<(Self, Vec<Digest>), ImageError> {
        let bad = |reason: String| ImageError::BadConfig {
            digest: digest.to_string(),
            reason,
        };
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if document.rootfs.kind != "layers" {
            return Err(bad(format!("rootfs type {:?}", document.rootfs.kind)));
        }
        let run = document.config.unwrap_or_default();
        let config = Self {
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            stop_signal: run.stop_signal.filter(|text| !text.is_empty()),
            exposed_ports: keys(run.exposed_ports),
            volumes: keys(run.volumes),
            labels: run.labels.unwrap_or_default(),
            architecture: document.architecture.unwrap_or_default(),
            os: document.os.unwrap_or_default(),
            created: document.created,
        };
        config.refuse_nul().map_err(bad)?;
        Ok((config, document.rootfs.diff_ids))
    }

    /// A NUL would cut an argument or a variable short on its way to `execve`.
    fn refuse_nul(&self) -> Result<(), String> {
        let words = self.entrypoint.iter().chain(&self.cmd).chain(&self.env);
        let paths = [&self.user, &self.working_dir]
            .into_iter()
            .chain(&self.volumes);
        match words.chain(paths).find(|text| text.contains('\0')) {
            Some(text) => Err(format!("a NUL byte in {text:?}")),
            None => Ok(()),
        }
    }
}

/// The parts of the configuration document that are used. `oci-spec` has a type for it, which
/// refuses the `null` that docker writes for an empty `Volumes` or `ExposedPorts`.
#[derive(Deserialize)]
struct Document {
    architecture: Option<String>,
    os: Option<String>,
    created: Option<String>,
    config: Option<Run>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

/// Go writes a set as an object with empty values.
fn keys(set: Option<BTreeMap<String, IgnoredAny>>) -> Vec<String> {
    set.unwrap_or_default().into_keys().collect()
}

/// One line of `cofferdam images`.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    /// The image's id.
    pub digest: Digest,
    /// Digest of the manifest, when there was one.
    pub manifest_digest: Option<Digest>,
    /// Full names; empty for an image whose name moved to another one.
    pub names: Vec<String>,
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
    /// Architecture in Go's spelling.
    pub architecture: String,
    /// Operating system in Go's spelling.
    pub os: String,
    /// Bytes of file content in its layers; layers shared with other images count in each.
    pub size: u64,
    /// Containers that use the image.
    pub used_by: BTreeSet<String>,
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that no longer lead anywhere.
    pub untagged: Vec<String>,
    /// The image, when its last name went (or it was named by its digest).
    pub deleted: Option<Digest>,
    /// Unpacked layers that nothing needed any more.
    pub layers: Vec<Digest>,
}
