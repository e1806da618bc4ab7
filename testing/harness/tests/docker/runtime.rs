//! Whose containers a daemon makes, and which daemon that is.

use std::path::{Path, PathBuf};

/// A runtime as `docker run --runtime` knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The reference.
    Runc,
    /// Ours by the OCI command, behind containerd's shim for runc.
    Command,
    /// Ours by containerd's shim interface.
    Shim,
}

impl Runtime {
    /// What the engine calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Command => "cofferdam",
            Self::Shim => "io.containerd.cofferdam.v2",
        }
    }

    /// Whether its containers have a machine of their own.
    pub fn is_ours(self) -> bool {
        self != Self::Runc
    }
}

/// An engine, and how ours are to be had from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// How its cases are called.
    pub name: &'static str,
    /// The client.
    pub client: PathBuf,
    /// The daemon.
    pub daemon: PathBuf,
    /// Ours; Docker takes a shim's name since 23.
    pub ours: Runtime,
}

impl Release {
    /// Debian's: another client may come first in the path.
    pub fn debian() -> Self {
        Self {
            name: "debian",
            client: "/usr/bin/docker".into(),
            daemon: "/usr/sbin/dockerd".into(),
            ours: Runtime::Command,
        }
    }

    /// One that `cargo xtask engines` has fetched.
    fn newer(folder: &Path) -> Self {
        Self {
            name: "newer",
            client: folder.join("usr/bin/docker"),
            daemon: folder.join("usr/sbin/dockerd"),
            ours: Runtime::Shim,
        }
    }

    /// Those that are here, and a printed reason for one that is not.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::debian()];
        match harness::engine("docker") {
            Ok(folder) => all.push(Self::newer(&folder)),
            Err(reason) => eprintln!("SKIPPED docker by the shim: {reason}"),
        }
        all
    }
}
