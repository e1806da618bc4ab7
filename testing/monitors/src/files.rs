//! Files where reading them costs what it costs on a host that has them in its memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A folder in memory.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Result<Self> {
        tempfile::tempdir().map(Self).context("make a folder")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file there.
    pub fn add(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Copies a file there.
    pub fn copy(&self, from: &Path) -> Result<PathBuf> {
        let name = from.file_name().context("a file has a name")?;
        let path = self.0.path().join(name);
        fs::copy(from, &path).with_context(|| format!("copy {}", from.display()))?;
        Ok(path)
    }

    /// Copies a program there, with its libraries: those are found by `LD_LIBRARY_PATH`.
    pub fn program(&self, from: &Path) -> Result<PathBuf> {
        for library in libraries(from)? {
            self.copy(&library)?;
        }
        self.copy(from)
    }
}

/// The libraries of a program, with its loader.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd")
        .arg(program)
        .output()
        .context("run ldd")?;
    // A static program has none, and ldd says so by failing.
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths = words.split_ascii_whitespace().map(PathBuf::from);
    Ok(paths
        .filter(|path| path.is_absolute() && path.is_file())
        .collect())
}

/// A program's whole path.
pub fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
