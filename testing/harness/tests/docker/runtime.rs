//! Whose containers a daemon makes.

use std::path::Path;

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
    /// Ours, as far as they are built and this release of the engine takes them: it names shims since 23.0.
    pub fn ours(prefix: &Path, release: u32) -> Vec<Self> {
        let mut all = vec![Self::Command];
        if release >= 23 && prefix.join("bin").join(SHIM_PROGRAM).exists() {
            all.push(Self::Shim);
        }
        all
    }

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

/// The program that containerd looks for by the runtime's name.
const SHIM_PROGRAM: &str = "containerd-shim-cofferdam-v2";
