//! What was built before the tests: programs, guest and images.

use std::env;
use std::path::{Path, PathBuf};

/// A prefix that `cargo xtask build` has filled.
#[derive(Debug, Clone)]
pub struct Prefix(PathBuf);

/// Files without which nothing runs.
const NEEDED: [&str; 5] = [
    "bin/cofferdam",
    "bin/containerd-shim-cofferdam-v2",
    "libexec/cofferdam/cofferdam-fs",
    "lib/cofferdam/vmlinux",
    "lib/cofferdam/initramfs.cpio",
];

impl Prefix {
    /// Finds it: `COFFERDAM_PREFIX`, else `cofferdam` in cargo's build directory.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn find() -> Result<Self, String> {
        let prefix = match env::var_os("COFFERDAM_PREFIX") {
            Some(prefix) => PathBuf::from(prefix),
            None => target().join("cofferdam"),
        };
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        match NEEDED.iter().find(|file| !prefix.join(file).exists()) {
            Some(file) => Err(format!(
                "{} is missing: `cargo xtask build` makes it",
                prefix.join(file).display()
            )),
            None => Ok(Self(prefix)),
        }
    }

    /// The command.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.0.join("bin/cofferdam")
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Where tests keep templates.
pub(crate) fn templates() -> PathBuf {
    target().join("templates")
}

/// A test image's file in the build directory, e.g. `busybox.oci`.
///
/// # Errors
/// A sentence that says how to make it.
pub fn image(name: &str) -> Result<PathBuf, String> {
    let path = target().join("images").join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!(
            "{} is missing: `cargo xtask images` makes it",
            path.display()
        ))
    }
}

/// An engine that is newer than this machine's, unpacked in the build directory, e.g. `containerd`.
///
/// # Errors
/// A sentence that says how to get it.
pub fn engine(name: &str) -> Result<PathBuf, String> {
    let path = target().join("engines").join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!(
            "{} is missing: `cargo xtask engines` fetches it",
            path.display()
        ))
    }
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    };
    target.canonicalize().unwrap_or(target)
}
