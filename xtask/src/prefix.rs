//! The prefix `target/cofferdam`: what `make install` copies, laid out ready to run from.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::initramfs;
use crate::kernel;
use crate::places::Places;
use crate::standalone::{self, Address, Program};

/// The host's programs: package, and where its one binary belongs in the prefix, under its own name.
const PROGRAMS: [(&str, &str); 3] = [
    ("cofferdam", "bin/cofferdam"),
    (
        "containerd-shim-cofferdam",
        "bin/containerd-shim-cofferdam-v2",
    ),
    ("cofferdam-fs", "libexec/cofferdam/cofferdam-fs"),
];

/// The one that runs in an empty root, where there is no loader for it: package, profile and place.
const VMM: (&str, &str, &str) = (
    "cofferdam-vmm",
    "release",
    "libexec/cofferdam/cofferdam-vmm",
);

/// The default configuration: in the tree, and in the prefix.
const CONFIGURATION: (&str, &str) = ("packaging/config.toml", "etc/cofferdam/config.toml");

/// Builds everything and lays it out.
pub fn build(places: &Places, kernel: &kernel::Options) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--locked", "--release"])
        .current_dir(&places.root);
    for (package, _) in PROGRAMS {
        cargo.args(["--package", package]);
    }
    command::run(&mut cargo)?;
    for (_, path) in PROGRAMS {
        let target = places.prefix().join(path);
        let name = target.file_name().context("a program has a name")?;
        place(&places.target.join("release").join(name), &target, 0o755)?;
    }
    let (package, profile, path) = VMM;
    let built = standalone::build(
        places,
        &Program {
            package,
            profile,
            address: Address::Random,
            environment: &[],
        },
    )?;
    place_bytes(&built, &places.prefix().join(path), 0o755)?;
    let (source, path) = CONFIGURATION;
    place(
        &places.root.join(source),
        &places.prefix().join(path),
        0o644,
    )?;
    kernel::install(places, kernel)?;
    initramfs::install(places)?;
    println!(
        "ready to run: {}",
        places.prefix().join("bin/cofferdam").display()
    );
    Ok(())
}

/// Copies a file to its place unless the same content is there. A program that runs from there keeps
/// its old file: the new one takes the name by a rename.
pub fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    place_bytes(&content, to, mode)
}

/// Makes or renews a link, without a moment in which there is none.
pub fn link(entry: &Path, link: &Path) -> Result<()> {
    let draft = link.with_extension("draft");
    let make = || {
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(entry, &draft)?,
        }
        fs::rename(&draft, link)
    };
    make().with_context(|| format!("link {}", link.display()))
}

/// As [`place`], from memory.
pub fn place_bytes(content: &[u8], to: &Path, mode: u32) -> Result<()> {
    match fs::read(to) {
        Ok(present) if present == content => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", to.display())),
    }
    let folder = to.parent().context("a file in the prefix has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut draft = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("create a file in {}", folder.display()))?;
    io::Write::write_all(&mut draft, content)
        .and_then(|()| {
            draft
                .as_file()
                .set_permissions(fs::Permissions::from_mode(mode))
        })
        .with_context(|| format!("write {}", draft.path().display()))?;
    draft
        .persist(to)
        .with_context(|| format!("write {}", to.display()))?;
    Ok(())
}
