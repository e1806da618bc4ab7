//! What a bundle says about the processes behind its container, for the one who has to clear up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sandbox::state::ProcessIdentity;
use serde::{Deserialize, Serialize};

const FILE: &str = "cofferdam.json";

/// Written by `start` and completed by the shim. The bundle goes with the container, and so does this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The shim, in the bundle of the container that the sandbox was made for; a container that joined has none: the
    /// sandbox is not its own to end.
    pub shim: Option<ProcessIdentity>,
    /// VMM and file server, which end with the shim.
    #[serde(default)]
    pub helpers: Vec<ProcessIdentity>,
    /// The pid that containerd was told.
    #[serde(default)]
    pub pid: u32,
    /// The network namespace that the sandbox is connected to.
    #[serde(default)]
    pub network: Option<PathBuf>,
    /// The configuration that containerd named when it started the shim, for a sandbox that it makes without a task.
    #[serde(default)]
    pub configuration: Option<PathBuf>,
    /// The control groups that were made for it.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
}

impl Record {
    /// What a bundle says; nothing known when it says nothing that can be read.
    pub fn read(bundle: &Path) -> Self {
        fs::read(bundle.join(FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, bundle: &Path) -> io::Result<()> {
        let draft = bundle.join(".cofferdam.json");
        fs::write(&draft, serde_json::to_vec(self)?)?;
        fs::rename(&draft, bundle.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_may_be_missing_or_damaged() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(bundle.path()), Record::default());
        let record = Record {
            shim: Some(ProcessIdentity::current()),
            helpers: Vec::new(),
            pid: 7,
            network: Some("/run/netns/a".into()),
            configuration: Some("/etc/a.toml".into()),
            cgroups: vec!["/sys/fs/cgroup/a".into()],
        };
        record.write(bundle.path()).unwrap();
        assert_eq!(Record::read(bundle.path()), record);
        fs::write(bundle.path().join(FILE), "{").unwrap();
        assert_eq!(Record::read(bundle.path()), Record::default());
    }
}
