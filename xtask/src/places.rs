//! Where things lie: the source tree, the build directory, the cache outside the tree.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders every command works with.
pub struct Places {
    /// The top of the source tree.
    pub root: PathBuf,
    /// Cargo's build directory.
    pub target: PathBuf,
    /// What outlives the tree: kernels, test images.
    pub cache: PathBuf,
}

impl Places {
    /// Finds the folders from cargo's environment, so that commands work from any subfolder.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .context("CARGO_MANIFEST_DIR is not set: start this program as `cargo xtask`")?;
        let root = Path::new(&package)
            .parent()
            .context("the xtask package has no parent folder")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => root.join(directory),
            None => root.join("target"),
        };
        Ok(Self {
            root,
            target,
            cache: cache()?,
        })
    }

    /// The prefix that `cargo xtask build` fills: `bin`, `lib`, `libexec`, `etc`.
    pub fn prefix(&self) -> PathBuf {
        self.target.join("cofferdam")
    }

    /// Where the guest's kernel and image belong in the prefix.
    pub fn guest_files(&self) -> PathBuf {
        self.prefix().join("lib/cofferdam")
    }
}

fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(directory) = set("COFFERDAM_CACHE") {
        return std::path::absolute(&directory)
            .with_context(|| format!("COFFERDAM_CACHE {}", Path::new(&directory).display()));
    }
    if let Some(directory) = set("XDG_CACHE_HOME") {
        return Ok(Path::new(&directory).join("cofferdam"));
    }
    let home = set("HOME").context("neither COFFERDAM_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/cofferdam"))
}
