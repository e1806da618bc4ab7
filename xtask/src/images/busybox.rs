//! The busybox image: one static program under all its names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::digest::Inputs;
use crate::store::Store;

use super::archive::{Image, write};
use super::elf;
use super::layer::{Layer, Owner};

/// Changes when the image below changes.
const RECIPE: &str = "1";

const BUSYBOX: &str = "/bin/busybox";

const DIRECTORIES: [&str; 15] = [
    "bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "usr", "usr/bin",
    "usr/sbin", "var", "var/log", "var/tmp",
];

/// Root, an ordinary daemon, and a user with supplementary groups and a home.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
user:x:1000:1000:A user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
";

const GROUP: &str = "root:x:0:
daemon:x:1:
audio:x:29:user
staff:x:50:user
user:x:1000:
nogroup:x:65534:
";

/// The cache entry, built if it is not there.
pub fn find_or_build(store: &Store) -> Result<PathBuf> {
    let program =
        fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX} (Debian: busybox-static)"))?;
    if elf::needs_interpreter(&program)? {
        bail!("{BUSYBOX} is not static: install the package busybox-static");
    }
    let mut inputs = Inputs::default();
    inputs.add("busybox").add(RECIPE).add(&program);
    let key = format!("busybox-{}", inputs.key());
    if let Some(entry) = store.find(&key) {
        return Ok(entry);
    }
    let store = store.lock()?;
    if let Some(entry) = store.find(&key) {
        return Ok(entry);
    }
    let stage = store.stage()?;
    let finished = stage.path().join("finished");
    fs::create_dir(&finished).with_context(|| format!("create {}", finished.display()))?;

    let applets = command::text(Command::new(BUSYBOX).arg("--list-full"))?;
    let layer = layer(&program, &applets)?;
    write(&finished.join("busybox.rootfs.tar"), &layer)?;
    let image = Image {
        reference: "localhost/busybox:latest",
        command: &["sh"],
        layer: &layer,
    };
    image.docker_archive(&finished.join("busybox.docker.tar"))?;
    image.oci_layout(&finished.join("busybox.oci"))?;
    let entry = store.publish(&finished, &key)?;
    store.prune(2, |name| name.starts_with("busybox-"))?;
    Ok(entry)
}

fn layer(program: &[u8], applets: &str) -> Result<Vec<u8>> {
    let mut layer = Layer::new(Vec::new());
    let root = Owner::root(0o755);
    for directory in DIRECTORIES {
        let mode = match directory {
            "root" => 0o700,
            "var/tmp" => 0o1777,
            _ => 0o755,
        };
        layer.directory(directory, Owner::root(mode))?;
    }
    layer.directory("tmp", Owner::root(0o1777))?;
    let user = Owner {
        mode: 0o755,
        uid: 1000,
        gid: 1000,
    };
    layer.directory("home/user", user)?;
    layer.file("bin/busybox", root, program)?;

    let mut names: BTreeSet<&Path> = BTreeSet::new();
    for applet in applets.lines() {
        // linuxrc stands at the top; everything else in a folder that was just made.
        let path = Path::new(applet.trim());
        let folder = path.parent().and_then(Path::to_str).unwrap_or_default();
        if path != Path::new("bin/busybox") && DIRECTORIES.contains(&folder) {
            names.insert(path);
        }
    }
    if names.len() < 100 {
        bail!("{BUSYBOX} names only {} applets", names.len());
    }
    for name in names {
        layer.symlink(name, Owner::root(0o777), BUSYBOX)?;
    }
    for (path, content) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/hostname", "busybox\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/resolv.conf", ""),
    ] {
        layer.file(path, Owner::root(0o644), content.as_bytes())?;
    }
    layer.finish()
}
