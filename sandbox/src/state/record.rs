//! What is written down of a container, so that other processes can find it and clean up.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::state::ProcessIdentity;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, or 128 + signal.
    pub code: u8,
    /// The signal that ended it, if one did.
    pub signal: Option<u8>,
    /// Whether the guest's out-of-memory killer ended it.
    #[serde(default)]
    pub oom_killed: bool,
}

impl ExitStatus {
    /// What is reported when the process was lost with its virtual machine.
    pub const LOST: Self = Self {
        code: 137,
        signal: Some(9),
        oom_killed: false,
    };
}

/// Facts about the container's processes and folders that outlive any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: ContainerId,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Root file system on the host, as `state` shows it.
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    /// The spec's annotations.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    /// The command that creates it: once it is gone without a driver, nobody will finish.
    pub creator: ProcessIdentity,
    /// The process that owns the sandbox.
    #[serde(default)]
    pub driver: Option<ProcessIdentity>,
    /// The proxy that stands for the container's first process on the host.
    #[serde(default)]
    pub init: Option<ProcessIdentity>,
    /// VMM and file server, which end with the driver.
    #[serde(default)]
    pub helpers: Vec<ProcessIdentity>,
    /// Folders of its control groups on the host.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Folders of the sandbox's control groups, where no engine has named any for its first container; they go with its last.
    #[serde(default)]
    pub machine_cgroups: Vec<PathBuf>,
    /// The spec's poststop hooks: the bundle may be gone when they are due.
    #[serde(default)]
    pub poststop: Vec<oci_spec::runtime::Hook>,
    /// The network namespace that it was given, if it existed before.
    #[serde(default)]
    pub network: Option<PathBuf>,
    /// Set when it has ended and is gone from the sandbox, or the sandbox with it.
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    /// When that was: RFC 3339, UTC.
    #[serde(default)]
    pub finished: Option<String>,
    /// Facts only of containers that `cofferdam run IMAGE` made.
    #[serde(default)]
    pub run: Option<RunRecord>,
}

/// What `cofferdam run` remembers beside the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Image as the user named it; nothing with `--rootfs`.
    pub image: Option<String>,
    /// The command line, for `ps`.
    pub command: Vec<String>,
    /// The name of the signal that `stop` sends first.
    pub stop_signal: Option<String>,
    /// Folder with the writable layer, bundle and log: removed with the container.
    pub storage: PathBuf,
    /// Folders that make up the root file system, the topmost first.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// Remove the container when it ends.
    pub remove: bool,
}

/// Lifecycle states of runtime-spec 1.2 and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Waits for `start`.
    Created,
    /// Its process runs.
    Running,
    /// Frozen by `pause`.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// The word that runc prints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}
