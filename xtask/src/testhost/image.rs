//! What a test host boots from: Debian's kernel for virtual machines with its modules, and a small initial RAM disk.
//!
//! The package comes from the archive that this machine has its packages from, of the distribution that the kernel is
//! known to work from; nothing is installed. It stays in the cache under its version, unpacked: a cached one needs no
//! network. The RAM disk is packed from it and from the tree each time, which takes no time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::initramfs::cpio::Archive;
use crate::places::Places;
use crate::prefix;
use crate::store::{Locked, Store};
use crate::suite::Suite;

use super::{modules, vmlinux};

/// The package that stands for the newest kernel, and the suite it comes from.
const PACKAGE: &str = "linux-image-cloud-amd64";
const SUITE: &str = "bookworm";

/// Changes when what is made of the package changes.
const STEPS: &str = "1";

const BUSYBOX: &str = "/bin/busybox";

/// What the machine needs before it sees any files.
const BOOT_MODULES: [&str; 4] = ["virtio_mmio", "virtio_console", "virtiofs", "overlay"];

/// The first programs, where they are in the tree.
const PROGRAMS: [&str; 2] = ["init", "enter"];

/// Folders of the RAM disk: places for mounts, and those of the modules.
const DIRECTORIES: [&str; 10] = [
    "bin", "dev", "proc", "sys", "modules", "lower", "upper", "plain", "root", "tmp",
];

/// Puts links to kernel and modules, and the RAM disk, into a folder.
pub fn install(places: &Places, folder: &Path, update: bool) -> Result<()> {
    let store = Store::open(&places.cache, "testhost")?;
    let cached = newest(&store)?.filter(|_| !update);
    let entry = cached.map_or_else(|| fetch(&store.lock()?), Ok)?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for name in ["vmlinux", "modules"] {
        prefix::link(&entry.join(name), &folder.join(name))?;
    }
    let initramfs = pack(places, &entry.join("modules"))?;
    prefix::place_bytes(&initramfs, &folder.join("initramfs.cpio"), 0o644)
}

/// The newest kernel in the cache.
fn newest(store: &Store) -> Result<Option<PathBuf>> {
    let start = format!("{STEPS}-");
    store.newest(|entry| {
        entry
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&start))
    })
}

fn fetch(store: &Locked) -> Result<PathBuf> {
    let suite = Suite::open(&store.directory().join(".apt"), SUITE)?;
    let package = suite.dependency(PACKAGE, "linux-image-")?;
    let version = suite.candidate(&package)?;
    let key = format!("{STEPS}-{version}");
    if let Some(entry) = store.find(&key) {
        return Ok(entry);
    }
    eprintln!("fetching {package} {version} (about 30 MB)");
    let stage = store.stage()?;
    let content = stage.path().join("content");
    suite.unpack(&package, &version, stage.path(), &content)?;
    let release = package
        .strip_prefix("linux-image-")
        .with_context(|| format!("{package} names no kernel"))?;
    command::run(
        Command::new(BUSYBOX)
            .arg("depmod")
            .arg("-b")
            .arg(&content)
            .arg(release),
    )?;
    let finished = stage.path().join("finished");
    fs::create_dir(&finished).with_context(|| format!("create {}", finished.display()))?;
    let compressed = content.join(format!("boot/vmlinuz-{release}"));
    let image = fs::read(&compressed).with_context(|| format!("read {}", compressed.display()))?;
    let kernel =
        vmlinux::extract(&image).with_context(|| format!("unpack {}", compressed.display()))?;
    let path = finished.join("vmlinux");
    fs::write(&path, kernel).with_context(|| format!("write {}", path.display()))?;
    fs::rename(content.join("lib/modules"), finished.join("modules"))
        .context("keep the modules")?;
    let entry = store.publish(&finished, &key)?;
    store.prune(2, |name| !name.starts_with('.'))?;
    Ok(entry)
}

fn pack(places: &Places, modules: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, (5, 1))?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let busybox = read(Path::new(BUSYBOX)).context("`make deps` installs busybox-static")?;
    if crate::images::elf::needs_interpreter(&busybox)? {
        anyhow::bail!("{BUSYBOX} is not statically linked: install busybox-static");
    }
    archive.file("bin/busybox", 0o755, &busybox)?;
    let guest = places.root.join("testing/testhost/guest");
    for program in PROGRAMS {
        archive.file(program, 0o755, &read(&guest.join(program))?)?;
    }
    for (number, module) in modules::in_order(modules, &BOOT_MODULES)?
        .iter()
        .enumerate()
    {
        let name = module.file_name().context("a module has a name")?;
        let name = format!("modules/{number:02}-{}", name.to_string_lossy());
        archive.file(&name, 0o644, &read(module)?)?;
    }
    Ok(archive.finish()?)
}
