//! The pause image: busybox that sleeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The name of the image that [`pause`] makes.
pub const PAUSE: &str = "localhost/pause:latest";

/// Makes an archive in `folder` out of docker's archive of busybox.
pub fn pause(folder: &Path, busybox: &Path) -> PathBuf {
    let content = folder.join("pause");
    fs::create_dir(&content).expect("a folder");
    tar(&["-xf", text(busybox), "-C", text(&content)]);
    let read = |name: &str| -> Value {
        let bytes = fs::read(content.join(name)).expect("a file of the archive");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let write = |name: &str, value: &Value| {
        fs::write(content.join(name), value.to_string()).expect("a file of the archive");
    };
    let mut manifest = read("manifest.json");
    let name = manifest[0]["Config"].as_str().expect("a name").to_owned();
    let mut config = read(&name);
    config["config"]["Cmd"] = json!(["sleep", "1000000"]);
    write(&name, &config);
    manifest[0]["RepoTags"] = json!([PAUSE]);
    write("manifest.json", &manifest);
    let archive = folder.join("pause.tar");
    tar(&["-cf", text(&archive), "-C", text(&content), "."]);
    archive
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

fn tar(args: &[&str]) {
    let status = Command::new("tar").args(args).status().expect("tar runs");
    assert!(status.success(), "tar {args:?}");
}
