//! Images that differ from the busybox image by their configuration only.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Keeps a pod's namespaces: does nothing, and reaps whatever is left to it.
pub const PAUSE: &str = "pause";

/// Names and configurations.
fn variants() -> Vec<(&'static str, Value)> {
    let pause = "while :; do sleep 100000 & wait; done";
    vec![
        ("busybox", json!({ "Cmd": ["sh"] })),
        (PAUSE, json!({ "Entrypoint": ["sh", "-c", pause] })),
        (
            "configured",
            json!({
                "Entrypoint": ["echo", "entry"],
                "Cmd": ["from", "image"],
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "FROM_IMAGE=1"],
                "User": "user",
                "WorkingDir": "/home/user",
                "StopSignal": "SIGUSR1",
            }),
        ),
    ]
}

/// Writes a layout for each below `folder`; answers names and layouts.
pub fn write(busybox: &Path, folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let variants = variants().into_iter();
    variants
        .map(|(name, config)| {
            let layout = folder.join(name);
            variant(busybox, &layout, &config);
            (name, layout)
        })
        .collect()
}

/// Writes one more below `folder`, which has the others; its configuration has its name.
pub fn own(folder: &Path, name: &str) -> PathBuf {
    let layout = folder.join(name);
    let settings = json!({ "Cmd": ["echo", name], "User": "user" });
    variant(&folder.join("busybox"), &layout, &settings);
    layout
}

fn variant(busybox: &Path, layout: &Path, settings: &Value) {
    let mut settings = settings.clone();
    if settings.get("Env").is_none() {
        settings["Env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    }
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a layout");
    for blob in fs::read_dir(busybox.join("blobs/sha256")).expect("a layout") {
        let blob = blob.expect("a blob");
        fs::copy(blob.path(), blobs.join(blob.file_name())).expect("a blob");
    }
    let mut index = read(&busybox.join("index.json"));
    let mut manifest = read(&blob(layout, &index["manifests"][0]["digest"]));
    let mut config = read(&blob(layout, &manifest["config"]["digest"]));
    config["config"] = settings;
    put(layout, &config, &mut manifest["config"]);
    put(layout, &manifest, &mut index["manifests"][0]);
    fs::write(layout.join("index.json"), index.to_string()).expect("an index");
    fs::copy(busybox.join("oci-layout"), layout.join("oci-layout")).expect("a layout");
}

/// Writes a blob and lets its descriptor say so.
fn put(layout: &Path, content: &Value, descriptor: &mut Value) {
    let bytes = content.to_string().into_bytes();
    let digest = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    fs::write(layout.join("blobs/sha256").join(&digest), &bytes).expect("a blob");
    descriptor["size"] = json!(bytes.len());
    descriptor["digest"] = json!(format!("sha256:{digest}"));
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    let digest = digest
        .as_str()
        .and_then(|text| text.strip_prefix("sha256:"));
    layout
        .join("blobs/sha256")
        .join(digest.expect("a sha256 digest"))
}

fn read(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}
