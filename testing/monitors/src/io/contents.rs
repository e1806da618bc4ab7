//! What the guest has and reads: its first program, a disk, and a tree of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::archive::Archive;
use crate::files::{self, Files};

/// Debian's is static.
const BUSYBOX: &str = "/bin/busybox";

/// The length of the disk.
const DISK: u64 = 64 << 20;

/// What the guest's program reads of it at once.
const BLOCK: u64 = 4096;

/// Files of the tree: how many, and the bytes of each. 200 MiB.
const TREE: [(usize, usize); 3] = [(3750, 8 << 10), (750, 96 << 10), (100, 1 << 20)];

/// How many files one folder has.
const FOLDER: usize = 50;

/// All of it.
pub struct Contents {
    /// The guest's initial RAM disk.
    pub image: PathBuf,
    /// Whether iperf3 is in it.
    pub iperf: bool,
    /// A raw disk, each block of which begins with its number.
    pub disk: PathBuf,
    /// A folder with the tree.
    pub tree: PathBuf,
    /// The same as an EROFS image, if it can be made.
    pub erofs: Option<PathBuf>,
    /// How many files the tree has, and their bytes.
    pub sum: (usize, usize),
}

impl Contents {
    pub fn make(files: &Files, program: &Path) -> Result<Self> {
        let (image, iperf) = image(program)?;
        let tree = files.path().join("tree");
        write_tree(&tree)?;
        Ok(Self {
            image: files.add("measured.cpio", &image)?,
            iperf,
            disk: files.add("disk", &disk())?,
            erofs: erofs(&tree, files.path().join("erofs"))?,
            tree,
            sum: TREE.iter().fold((0, 0), |(files, bytes), (count, length)| {
                (files + count, bytes + count * length)
            }),
        })
    }
}

fn image(program: &Path) -> Result<(Vec<u8>, bool)> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "lib64", "mnt", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.console();
    archive.file("init", &read(program)?);
    archive.file("bin/busybox", &read(Path::new(BUSYBOX))?);
    let iperf = files::find("iperf3");
    if let Some(program) = &iperf {
        archive.file("bin/iperf3", &read(program)?);
        // All in one folder, the loader in its own: that is where the loader looks, too.
        for library in files::libraries(program)? {
            let name = library.file_name().context("a library has a name")?;
            archive.file(
                &format!("lib64/{}", name.to_string_lossy()),
                &read(&library)?,
            );
        }
    }
    Ok((archive.finish(), iperf.is_some()))
}

fn disk() -> Vec<u8> {
    let mut content = Vec::new();
    for block in 0..DISK / BLOCK {
        content.extend(block.to_le_bytes());
        // What is only zeros may be cheaper somewhere.
        content.resize(content.len().next_multiple_of(BLOCK as usize), 0xa5);
    }
    content
}

fn write_tree(tree: &Path) -> Result<()> {
    let mut number = 0_usize;
    for (count, length) in TREE {
        for _ in 0..count {
            let folder = tree.join(format!("folder{}", number / FOLDER));
            fs::create_dir_all(&folder).context("make a folder")?;
            let mut content = number.to_le_bytes().repeat(length / 8);
            content.truncate(length);
            fs::write(folder.join(format!("file{number}")), content).context("write a file")?;
            number += 1;
        }
    }
    Ok(())
}

/// An image that a guest can use straight from memory: nothing of it is compressed, no file's end lies beside its inode.
fn erofs(tree: &Path, to: PathBuf) -> Result<Option<PathBuf>> {
    let Some(program) = files::find("mkfs.erofs") else {
        return Ok(None);
    };
    let done = Command::new(program)
        .args(["--quiet", "-Enoinline_data", "-T0", "--all-root"])
        .arg(&to)
        .arg(tree)
        .output()
        .context("run mkfs.erofs")?;
    if !done.status.success() {
        bail!("mkfs.erofs: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(Some(to))
}
