//! What a test host boots from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// The files that a test host boots from. `cargo xtask testhost --prepare` makes them.
#[derive(Debug, Clone)]
pub struct Images {
    /// The kernel, an uncompressed ELF.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initramfs: PathBuf,
    /// The folder that has the kernel's modules in a folder with its version's name.
    pub modules: PathBuf,
}

impl Images {
    /// The files in a folder that xtask made.
    ///
    /// # Errors
    /// [`Error::Image`] names the first that is missing.
    pub fn find(folder: &Path) -> Result<Self, Error> {
        let real = |name: &str| {
            let path = folder.join(name);
            fs::canonicalize(&path).map_err(|source| Error::Image { path, source })
        };
        Ok(Self {
            kernel: real("vmlinux")?,
            initramfs: real("initramfs.cpio")?,
            modules: real("modules")?,
        })
    }
}
