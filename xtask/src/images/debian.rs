//! The Debian image: what debootstrap makes of the smallest variant.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::digest::Inputs;
use crate::mirror;
use crate::store::Store;

use super::archive::{Image, write};
use super::layer::{Layer, Owner};

/// Changes when the image below changes.
const RECIPE: &str = "1";

const SUITE: &str = "bookworm";

/// What differs from one run to the next, or is of no use in an image.
const LEFT_OUT: [&str; 8] = [
    "dev",
    "run",
    "tmp",
    "var/cache/apt",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists",
    "var/log",
    "etc/machine-id",
];

/// The cache entry, built if it is not there.
pub fn find_or_build(store: &Store) -> Result<PathBuf> {
    let mut inputs = Inputs::default();
    inputs.add("debian").add(RECIPE).add(SUITE);
    let key = format!("debian-{}", inputs.key());
    if let Some(entry) = store.find(&key) {
        return Ok(entry);
    }
    let store = store.lock()?;
    if let Some(entry) = store.find(&key) {
        return Ok(entry);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("debootstrap needs root: run `cargo xtask images debian` as root once");
    }
    let stage = store.stage()?;
    let root = stage.path().join("root");
    let finished = stage.path().join("finished");
    fs::create_dir(&finished).with_context(|| format!("create {}", finished.display()))?;

    eprintln!("making a minimal Debian with debootstrap (about a minute)");
    let log = stage.path().join("debootstrap.log");
    let made = command::output(
        Command::new("debootstrap")
            .args(["--variant=minbase", SUITE])
            .arg(&root)
            .arg(mirror::debian()),
    );
    if let Err(error) = made {
        let inner = root.join("debootstrap/debootstrap.log");
        let text = fs::read_to_string(&inner).unwrap_or_default();
        write(&log, text.as_bytes())?;
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        return Err(error.context(format!("debootstrap failed; its log ends:\n{tail}")));
    }
    let layer = layer(&root)?;
    Image {
        reference: "localhost/debian:bookworm",
        command: &["bash"],
        layer: &layer,
    }
    .docker_archive(&finished.join("debian.docker.tar"))?;
    let entry = store.publish(&finished, &key)?;
    store.prune(1, |name| name.starts_with("debian-"))?;
    Ok(entry)
}

fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut layer = Layer::new(Vec::new());
    let mut packed = HashMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| format!("read {}", path.display()))? {
            let entry = entry.with_context(|| format!("read {}", path.display()))?;
            names.push(folder.join(entry.file_name()));
        }
        names.sort();
        for name in names {
            let path = root.join(&name);
            let metadata =
                fs::symlink_metadata(&path).with_context(|| format!("read {}", path.display()))?;
            let left_out = LEFT_OUT.iter().any(|left_out| name == Path::new(left_out));
            if left_out && !metadata.is_dir() {
                continue;
            }
            add(&mut layer, &mut packed, &path, &name, &metadata)?;
            if metadata.is_dir() && !left_out {
                folders.push(name);
            }
        }
    }
    layer.finish()
}

/// Adds one name; a file that has several names is packed once.
fn add(
    layer: &mut Layer<Vec<u8>>,
    packed: &mut HashMap<u64, PathBuf>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
) -> Result<()> {
    let owner = Owner {
        mode: metadata.mode() & 0o7777,
        uid: u64::from(metadata.uid()),
        gid: u64::from(metadata.gid()),
    };
    let kind = metadata.file_type();
    let read = || format!("read {}", path.display());
    if kind.is_dir() {
        layer.directory(name, owner)
    } else if kind.is_symlink() {
        let target = fs::read_link(path).with_context(read)?;
        layer.symlink(name, owner, target)
    } else if kind.is_file() {
        if metadata.nlink() > 1 {
            if let Some(first) = packed.get(&metadata.ino()) {
                return layer.hard_link(name, owner, first);
            }
            packed.insert(metadata.ino(), name.to_path_buf());
        }
        layer.file(name, owner, &fs::read(path).with_context(read)?)
    } else if kind.is_fifo() || kind.is_socket() {
        Ok(())
    } else {
        bail!(
            "{} is a device, which an image should not hold",
            name.display()
        )
    }
}
