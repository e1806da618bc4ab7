//! Whose containers a daemon makes, and which daemon that is.

use std::path::PathBuf;

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
    /// The folder with its containerd, and containerd's shim for runc.
    pub containerd: PathBuf,
    /// Ours; Docker takes a shim's name since 23.
    pub ours: &'static [Runtime],
    /// Whether a newer one runs all cases by the same ways, and this one only those where releases differ.
    pub is_second: bool,
}

impl Release {
    /// Debian's: another client may come first in the path.
    fn debian(is_second: bool) -> Self {
        Self {
            name: "debian",
            client: "/usr/bin/docker".into(),
            daemon: "/usr/sbin/dockerd".into(),
            containerd: "/usr/bin".into(),
            ours: &[Runtime::Command],
            is_second,
        }
    }

    /// One that `cargo xtask engines` has fetched.
    fn newer() -> Result<Self, String> {
        let docker = harness::engine("docker")?;
        Ok(Self {
            name: "newer",
            client: docker.join("usr/bin/docker"),
            daemon: docker.join("usr/sbin/dockerd"),
            containerd: harness::engine("containerd")?.join("usr/bin"),
            ours: &[Runtime::Command, Runtime::Shim],
            is_second: false,
        })
    }

    /// Those that are here, and a printed reason for one that is not.
    pub fn all() -> Vec<Self> {
        match Self::newer() {
            Ok(newer) => vec![newer, Self::debian(true)],
            Err(reason) => {
                eprintln!("SKIPPED docker of a newer release, and by the shim: {reason}");
                vec![Self::debian(false)]
            }
        }
    }

    /// runc, which proves a test, and ours.
    pub fn runtimes(&self) -> impl Iterator<Item = Runtime> {
        [Runtime::Runc].into_iter().chain(self.ours.iter().copied())
    }
}
