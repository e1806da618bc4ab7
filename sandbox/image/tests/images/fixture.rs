//! Images made by hand, in every form that the store reads.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sandbox_image::{Digest, Event, Progress};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// True when this is root; tests of the store need it to set the owners that layers have.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can set the owners that layers have");
    }
    root
}

/// A tar of files; a path that ends in `/` is a directory.
pub fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, body) in files {
        let mut header = Header::new_gnu();
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let is_directory = path.ends_with('/');
        header.set_mode(if is_directory { 0o755 } else { 0o644 });
        header.set_entry_type(if is_directory {
            EntryType::Directory
        } else {
            EntryType::Regular
        });
        header.set_size(body.len() as u64);
        builder
            .append_data(&mut header, path, body.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// How blobs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }
}

/// An image: a configuration and blobs.
#[derive(Debug, Clone)]
pub struct Fixture {
    pub config: Value,
    /// Uncompressed.
    pub layers: Vec<Vec<u8>>,
    pub packing: Packing,
}

impl Fixture {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| Digest::of(layer).to_string())
            .collect();
        Self {
            config: json!({
                "architecture": "amd64",
                "os": "linux",
                "created": "2026-01-02T03:04:05Z",
                "config": {
                    "Entrypoint": ["/bin/entry"],
                    "Cmd": ["one", "two"],
                    "Env": ["PATH=/bin", "A=b"],
                    "User": "12:34",
                    "WorkingDir": "/work",
                    "StopSignal": "SIGINT",
                    "ExposedPorts": {"80/tcp": {}},
                    "Volumes": null,
                    "Labels": {"k": "v"}
                },
                "rootfs": {"type": "layers", "diff_ids": diff_ids}
            }),
            layers,
            packing: Packing::Gzip,
        }
    }

    pub fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).unwrap()
    }

    pub fn id(&self) -> Digest {
        Digest::of(&self.config_bytes())
    }

    pub fn blobs(&self) -> Vec<Vec<u8>> {
        self.layers
            .iter()
            .map(|layer| self.packing.pack(layer))
            .collect()
    }

    pub fn manifest(&self) -> Value {
        let config = self.config_bytes();
        let layers: Vec<Value> = self
            .blobs()
            .iter()
            .map(|blob| {
                json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.tar{}", self.packing.suffix()),
                    "digest": Digest::of(blob).to_string(),
                    "size": blob.len()
                })
            })
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config).to_string(),
                "size": config.len()
            },
            "layers": layers
        })
    }

    pub fn manifest_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.manifest()).unwrap()
    }

    /// An entry for an index.
    pub fn descriptor(&self, platform: Option<(&str, &str)>, name: Option<&str>) -> Value {
        let manifest = self.manifest_bytes();
        let mut entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest).to_string(),
            "size": manifest.len()
        });
        if let Some((os, architecture)) = platform {
            entry["platform"] = json!({"os": os, "architecture": architecture});
        }
        if let Some(name) = name {
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        entry
    }

    /// Writes an image layout with this one image.
    pub fn write_layout(&self, dir: &Path, name: Option<&str>) {
        write_layout(dir, &[self], vec![self.descriptor(None, name)]);
    }

    /// A docker-archive as `docker save` wrote it for years.
    pub fn docker_archive(&self, names: &[&str]) -> Vec<u8> {
        docker_archive(&[(self, names)])
    }
}

/// Writes an image layout with these images and this index.
pub fn write_layout(dir: &Path, images: &[&Fixture], entries: Vec<Value>) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: Vec<u8>| fs::write(blobs.join(Digest::of(&bytes).hex()), bytes).unwrap();
    for image in images {
        put(image.config_bytes());
        put(image.manifest_bytes());
        image.blobs().into_iter().for_each(put);
    }
    let index = json!({"schemaVersion": 2, "manifests": entries});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// A docker-archive with several images.
pub fn docker_archive(images: &[(&Fixture, &[&str])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let mut list = Vec::new();
    for (image, names) in images {
        let config = format!("{}.json", image.id().hex());
        add(&config, &image.config_bytes());
        let mut layers = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", Digest::of(layer).hex());
            add(&name, layer);
            layers.push(name);
        }
        list.push(json!({"Config": config, "RepoTags": names, "Layers": layers}));
    }
    add("manifest.json", Value::from(list).to_string().as_bytes());
    builder.into_inner().unwrap()
}

/// A tar of a directory, as `tar -C DIR -c .` writes it.
pub fn tar_of(dir: &Path) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

/// Everything in the store's directory that an import could leave behind.
pub fn leftovers(store: &Path) -> Vec<PathBuf> {
    ["tmp", "layers", "images", "blobs"]
        .iter()
        .flat_map(|name| fs::read_dir(store.join(name)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Writes down what it is told.
#[derive(Debug, Default)]
pub struct Recorder {
    lines: Mutex<Vec<String>>,
}

impl Progress for Recorder {
    fn event(&self, event: Event<'_>) {
        self.lines.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Recorder {
    pub fn count(&self, word: &str) -> usize {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.contains(word))
            .count()
    }
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
