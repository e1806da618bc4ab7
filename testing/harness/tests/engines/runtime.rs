//! What engines are given as their runtime.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::Cofferdam;

/// Whose containers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The reference.
    Runc,
    /// Ours.
    Cofferdam,
}

impl Kind {
    /// The reference first.
    pub const BOTH: [Self; 2] = [Self::Runc, Self::Cofferdam];

    fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Cofferdam => "cofferdam",
        }
    }

    /// A program of the runtime's name. Engines clear the environment, so ours is told its configuration in it; and not
    /// all of podman's calls have its `--runtime-flag`, so that the state directory for those stands here, too.
    pub fn program(self, cofferdam: &Cofferdam, root: Option<&Path>) -> PathBuf {
        let folder = cofferdam.folder().join("bin");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(self.name());
        let real = match self {
            Self::Runc => find("runc").expect("runc"),
            Self::Cofferdam => cofferdam.program(),
        };
        let root = root
            .map(|root| format!("--root '{}'", root.display()))
            .unwrap_or_default();
        let text = format!(
            "#!/bin/sh\nCOFFERDAM_CONFIG='{}' exec '{}' {root} \"$@\"\n",
            cofferdam.config().display(),
            real.display()
        );
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
        path
    }
}

/// A program of the system.
pub fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin", "/sbin", "/usr/libexec/podman"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether these programs are there; says so when not.
pub fn has(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|name| find(name).is_none())
        .collect();
    if !missing.is_empty() {
        let thread = std::thread::current();
        eprintln!(
            "SKIPPED {}: not installed: {missing:?}",
            thread.name().unwrap_or("engine test")
        );
    }
    missing.is_empty()
}

/// Mounts below a folder, the innermost first.
pub fn mounts(folder: &Path) -> Vec<PathBuf> {
    let own = folder.to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&own))
        .map(PathBuf::from)
        .collect();
    found.reverse();
    found
}
